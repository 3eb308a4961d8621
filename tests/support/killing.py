"""Rounds in which a daemon on a SQLite store is killed under load, and looked at when it is there again."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Final

from tests.support import twistd_variant
from tests.support.daemon import Daemon, wait_for
from tests.support.kill_load import Load, scan

EAGER: Final = {
    "journal.WAL_BYTES": 100_000,
    "journal.LOOK_EVERY": 0.01,
    "folding.FEW": 100,
    "folding.PIECE": 10,
    "folding.LOOK": 100,
}
"""Folds and checkpoints all the time."""


def through(constants: Mapping[str, float], variant: str = "honest") -> tuple[str, ...]:
    """What to start twistd with, so that the store has other constants."""
    return (
        sys.executable,
        str(Path(twistd_variant.__file__)),
        variant,
        *(f"{name}={value}" for name, value in constants.items()),
    )


class Rounds:
    """One file, and its daemons, of which one dies after the other.

    :param seed: decides what the clients do, and roughly when the daemons die.
        :ivar checkpoints: how many checkpoints there were.
    """

    def __init__(self, directory: Path, seed: int, variant: str = "honest") -> None:
        self._directory = directory
        self._path = directory / "kvd.db"
        self._random = Random(seed)
        self._variant = variant
        self._lives = 0
        self.load = Load(self._random)
        self.checkpoints = 0
        self._folded: set[int] = set()

    def _daemon(self, *options: str) -> Daemon:
        shutil.rmtree(self._directory / f"life{self._lives - 2}", ignore_errors=True)
        self._lives += 1
        home = self._directory / f"life{self._lives}"
        home.mkdir()
        store = ("--port", "0", "--store", f"sqlite:{self._path}")
        return Daemon(home, *store, *options, through=through(EAGER, self._variant))

    def prepare(self) -> None:
        """Make the file."""
        with self._daemon() as daemon:
            self.load.prepare(daemon.started().client())
            daemon.stop()

    def round(self) -> list[str]:
        """Kill a daemon under load, and say what is wrong afterwards."""
        seconds = self._random.uniform(0.02, 0.5)
        options = self._random.choice([(), (), ("--sync", "0.2")])
        with self._daemon(*options) as daemon:
            daemon.started()
            before = self.load.acknowledged()
            parties = self.load.begin(daemon.client)
            wait_for(lambda: self.load.acknowledged() > before + 20, "the clients to be at work")
            time.sleep(seconds)
            daemon.send_signal(signal.SIGKILL)
            for party in parties:
                party.join(20)
                assert not party.is_alive()
            daemon.stopped()
        shown = self._look()
        if self._random.random() < 0.3:  # another one dies while it starts
            with self._daemon() as daemon:
                wait_for(lambda: daemon.pid_file.exists() or daemon.process.poll(), "the daemon to be begun")
                time.sleep(self._random.uniform(0, 0.3))
                daemon.process.kill()
                daemon.stopped()
        with self._daemon() as daemon:
            client = daemon.started().client()
            found = self.load.faults(client)
            for key, value in shown.items() ^ dict(scan(client)).items():
                side = "view" if shown.get(key) == value else "daemon"
                found.append(f"only the {side} shows {key!r}: {value[:20]}")
            if "Traceback" in daemon.log():
                found.append(f"there is a traceback in the log: {daemon.log()}")
            daemon.send_signal(signal.SIGKILL if self._random.random() < 0.8 else signal.SIGTERM)
            daemon.stopped()
        return found

    @property
    def folds(self) -> int:
        """In how many rounds a fold was completed."""
        return len(self._folded) - 1

    def _look(self) -> dict[str, str]:
        """What the view shows in a copy of the files that a killed daemon has left."""
        for end in ("", "-wal"):
            shutil.copy(f"{self._path}{end}", self._directory / f"copy.db{end}")
        with closing(sqlite3.connect(self._directory / "copy.db")) as copy:
            about = dict(copy.execute("SELECT name, value FROM about"))
            self.checkpoints = int(about["checkpoints"])
            self._folded.add(about["folded"])
            return dict(copy.execute("SELECT key, value FROM pairs"))
