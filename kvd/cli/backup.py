"""``kvd backup``: write all pairs to a new file for the SQLite store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import ClassVar

from twisted.python import usage

from kvd.cli import files, program
from kvd.cli.connecting import find
from kvd.cli.files import STANDARD, written
from kvd.cli.pairs import counted
from kvd.cli.program import CONNECT, TIMEOUT, Problem, Program, note
from kvd.cli.progress import on_terminal, progress, speed
from kvd.cli.snapshot import begin
from kvd.reactor import install_reactor
from kvd.stores.sqlite import format


class Options(files.Options):
    """The options of ``kvd backup``."""

    longdesc = (
        "Writes all pairs of a running server, as they were at one instant, to a new file, which twistd kvd --store "
        "sqlite:FILE opens. FILE must not exist. A backup that breaks off leaves nothing behind. The exit status is 1 "
        "if the server refused it, 2 after another error, and 130 after Ctrl-C."
    )
    optParameters: ClassVar = [CONNECT, TIMEOUT]

    def postOptions(self) -> None:
        """See that there can be a store under this name."""
        if self["file"] == STANDARD:
            raise usage.UsageError("a store is a file, and can't be written to standard output; kvd dump can")


@contextmanager
def _store(path: str) -> Iterator[sqlite3.Connection]:
    """A new store, which is there, with all that the ``with`` block has inserted, at the end of the block."""
    for suffix in ("-wal", "-journal"):
        if os.path.lexists(path + suffix):  # SQLite would take it for a part of the new file
            raise Problem(f"{path}{suffix} is left of another file with that name; move it away, or name another file")
    try:
        with written(path, anew=True) as beside, closing(sqlite3.connect(beside, isolation_level=None)) as store:
            # A file that is not whole is removed, so it needs no protection from a crash.
            store.execute("PRAGMA journal_mode = OFF")
            store.execute("PRAGMA synchronous = OFF")
            store.execute("BEGIN")
            format.create(store)
            yield store
            store.execute("COMMIT")
    except sqlite3.Error as error:
        raise Problem(f"can't write to {path}: {error}") from None


async def _run(running: Program, options: Options) -> int:
    path = options["file"]
    server = find(running.reactor, options["connect"], options["timeout"])
    with _store(path) as store:
        snapshot = await begin(server, "", count=on_terminal())
        with progress(running.reactor, speed(lambda: snapshot.seen, lambda: snapshot.share)):
            while snapshot.more:
                format.insert_pairs(store, await snapshot.page())
        await snapshot.end()
    note(f"{counted(snapshot.seen)} written to {path}")
    return 0


def run(options: Options) -> None:
    """Run it, and exit."""
    install_reactor()
    program.run(lambda running: _run(running, options))
