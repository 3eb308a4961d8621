"""SQLite stores for tests: what a thread does in the daemon is done by a Clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.task import Clock

from kvd.interfaces import Host
from kvd.stores.memory.store import MemoryStore
from kvd.stores.sqlite.journal import SqliteJournal
from kvd.stores.sqlite.syncing import Done, Worker


class ClockWorker(Worker):
    """Does its work when some time has passed.

    :param seconds: how much.
    """

    def __init__(self, clock: Clock, seconds: float = 0.004) -> None:
        self._clock = clock
        self.seconds = seconds

    def start(self, host: Host) -> None:
        """There is nothing to begin."""

    def do(self, work: Callable[[], None], done: Done) -> None:
        """Do something later."""
        self._clock.callLater(self.seconds, self._do, work, done)

    def _do(self, work: Callable[[], None], done: Done) -> None:
        try:
            work()
        except Exception as error:
            done(error)
        else:
            done(None)

    def stop(self) -> None:
        """What was begun is not done any more."""


def sqlite_store(path: Path, clock: Clock, seconds: float = 0.004) -> MemoryStore:
    """A store in a file, whose syncs take so many seconds of a Clock."""
    return MemoryStore(SqliteJournal(str(path), ClockWorker(clock, seconds)))
