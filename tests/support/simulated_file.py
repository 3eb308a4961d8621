"""The simulation on a SQLite store, whose daemon is killed now and then, and begins anew with the file::

python -m tests.support.simulated_file SEED
"""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kvd.protocols.line import factory as line_factory
from kvd.stores.memory.store import MemoryStore
from kvd.stores.sqlite import folding, journal
from tests.support.simulation import Outcome, Simulation
from tests.support.sqlite import sqlite_store

EAGER = ((folding, "FEW", 10), (folding, "PIECE", 3), (folding, "LOOK", 7), (journal, "WAL_BYTES", 60_000))
"""Folds and checkpoints all the time."""


class FileSimulation(Simulation):
    """One run."""

    in_file = True

    def __init__(self, seed: int, directory: Path, logged: bool = False) -> None:
        self._path = directory / "kvd.db"
        self._dice = dice = random.Random(-seed)
        self._sync_time = dice.choice([0.0, 0.0005, 0.004, 0.1])
        self._sync = dice.choice([0.0, 0.0, 0.3])
        super().__init__(seed, "", logged)
        self.crashes = 0

    def _open_store(self) -> MemoryStore:
        return sqlite_store(self._path, self._clock, self._sync_time)

    @property
    def _journal(self) -> Any:
        return self._memory._journal

    def _held_for_the_disk(self) -> int:
        held: int = self._journal._account.held
        return held

    def run(self) -> Outcome:
        """Let everything happen, and check it."""
        with ExitStack() as patches:
            for module, name, value in EAGER:
                patches.enter_context(patch.object(module, name, value))
            return super().run()

    def _play(self) -> None:
        for _ in range(self._dice.randint(0, 3)):
            self._clock.callLater(self._crowd.patience * self._dice.uniform(1, 100), self._crash)
        super()._play()

    def _crash(self) -> None:
        """The daemon is killed, and another one is there at once."""
        if self._stopped is not None or self._at_work is None or self._at_work.called:
            return
        self.crashes += 1
        self._network.tell("the server crashes")
        self._journal._file.abandon()
        self._journal._file = None
        self._service._watch.stop()
        self._network.crash()
        self._memory = self._open_store()
        self._service = self._serve(self._memory)
        self._network.factory = line_factory(self._service)
        self._start_service()

    def _check_end(self) -> None:
        super()._check_end()
        pairs = {key: self._memory.data.values.get(key) for key in self._memory.data.order}
        found = self._open_store()
        self._serve(found).startService()
        if pairs != {key: found.data.values.get(key) for key in found.data.order}:
            self.problems.append("end: the file does not hold what the store held")
        journal: Any = found._journal
        journal._file.abandon()


def simulate(seed: int, logged: bool = False) -> tuple[Outcome, int]:
    """Run a seed.

    :return: what came of it, and how often the daemon was killed.
    """
    with tempfile.TemporaryDirectory() as directory:
        simulation = FileSimulation(seed, Path(directory), logged)
        outcome = simulation.run()
        outcome.problems.extend([f"run  python -m tests.support.simulated_file {seed}"] if outcome.problems else [])
        return outcome, simulation.crashes


if __name__ == "__main__":
    outcome, _ = simulate(int(sys.argv[1]), logged=True)
    print("\n".join(outcome.log))
    sys.exit(1 if outcome.problems else 0)
