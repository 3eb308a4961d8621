"""SQLite stores for tests: what a thread does in the daemon is done by a Clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from kvd.stores.memory.store import MemoryStore
from kvd.stores.sqlite.journal import SqliteJournal
from kvd.stores.sqlite.syncing import Worker


class ClockWorker(Worker):
    """Does its work when some time has passed.

    :param seconds: how much.
    """

    def __init__(self, clock: Clock, seconds: float = 0.004) -> None:
        self._clock = clock
        self.seconds = seconds

    def start(self, reactor: Any) -> None:
        """There is nothing to begin."""

    def do(self, work: Callable[[], None]) -> Deferred[None]:
        """Do something later."""
        done: Deferred[None] = deferLater(self._clock, self.seconds, work)
        return done

    def stop(self) -> None:
        """What was begun is not done any more."""


def sqlite_store(path: Path, clock: Clock, seconds: float = 0.004) -> MemoryStore:
    """A store in a file, whose syncs take so many seconds of a Clock."""
    return MemoryStore(SqliteJournal(str(path), ClockWorker(clock, seconds)))
