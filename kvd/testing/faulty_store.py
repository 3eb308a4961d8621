"""A memory store that answers late, and meets conflicts on demand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kvd.errors import Conflict
from kvd.interfaces import (
    Changed,
    Count,
    Host,
    Later,
    Outcome,
    Page,
    Reads,
    Receipt,
    Scan,
    Snapshot,
    Store,
    Stored,
    Writes,
    later,
)
from kvd.stores.memory.store import MemoryStore

T = TypeVar("T")


def whole(answer: Any) -> Any:
    """An answer of a memory store that may come in pieces, all at once."""
    if isinstance(answer, Later):
        steps = answer.steps
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value
    return answer


BEFORE = 3600.0
"""Seconds before its start for which the store remembers that there was nothing."""


class FaultyStore(Store):
    """Asks another store, in its own time.

    :param delay: asked before each answer: how many seconds it takes.
    :param conflict: asked at each commit of a transaction: whether it shall meet a conflict.
    """

    def __init__(
        self, store: MemoryStore, clock: IReactorTime, delay: Callable[[], float], conflict: Callable[[], bool]
    ) -> None:
        self.name = store.name
        self.promise = store.promise
        self._store = store
        self._clock = clock
        self._delay = delay
        self._conflict = conflict

    def start(self, host: Host) -> None:
        self._started = self._clock.seconds()
        self._store.start(host)

    def stop(self) -> None:
        self._store.stop()

    def info(self) -> dict[str, Any]:
        return self._store.info()

    def admit(self, writes: Writes) -> None:
        self._store.admit(writes)

    def outcome(self, receipt: Receipt) -> Outcome | Later[Outcome]:
        def ask() -> Any:  # the memory store answers at once
            found = self._store.outcome(receipt)
            assert isinstance(found, Outcome)
            # It remembers everything since its start. Before that there was nothing, but a client can't know that, and
            # could not count on "never" for what a test does in the very instant of the start.
            if found.kept >= self._clock.seconds() - self._started:
                return found._replace(kept=found.kept + BEFORE)
            return found

        answer: Outcome | Later[Outcome] = self.answer(ask)
        return answer

    def snapshot(self, ended: Callable[[str], None]) -> Snapshot | Later[Snapshot]:
        return self.answer(lambda: FaultySnapshot(self, self._store.snapshot(ended), self._conflict))

    def latest(self) -> Snapshot:
        # When answers are late, others may commit between a plain command's read and its write; the server
        # repeats it then. A plain command never tells its client of a conflict, so none is asked for here.
        if self._delay():
            return FaultySnapshot(self, self._store.snapshot(), lambda: False)
        return self._store.latest()

    def answer(self, work: Callable[[], T], given_up: Callable[[], None] | None = None) -> T | Later[T]:
        """Do the work, now or later.

        :param given_up: called instead of it if nobody waits for the answer any more.
        """
        delay = self._delay()
        if not delay:
            return work()
        started: Deferred[None] = deferLater(self._clock, delay)

        def not_started(failure: Failure) -> Failure:
            if given_up is not None:
                given_up()
            return failure

        return later(started.addCallbacks(lambda _: whole(work()), not_started))


class FaultySnapshot(Snapshot):
    """A snapshot of a faulty store."""

    def __init__(self, store: FaultyStore, snapshot: Snapshot, conflict: Callable[[], bool]) -> None:
        self._store = store
        self._snapshot: Any = snapshot  # of a memory store, which answers at once
        self._conflict = conflict

    def close(self) -> None:
        self._snapshot.close()

    def read(self, keys: list[str]) -> list[str | None] | Later[list[str | None]]:
        return self._store.answer(lambda: self._snapshot.read(keys))

    def read_with_ends(self, keys: list[str]) -> list[Stored | None] | Later[list[Stored | None]]:
        return self._store.answer(lambda: self._snapshot.read_with_ends(keys))

    def scan(self, scan: Scan) -> Page | Later[Page]:
        return self._store.answer(lambda: self._snapshot.scan(scan))

    def count(self, count: Count) -> int | Later[int]:
        return self._store.answer(lambda: self._snapshot.count(count))

    def conflicts(self, reads: Reads, limit: int) -> Changed | Later[Changed]:
        return self._store.answer(lambda: self._snapshot.conflicts(reads, limit))

    def commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None = None) -> Later[None] | None:
        # A commit closes the snapshot, whatever becomes of it.
        return self._store.answer(lambda: self._commit(reads, writes, by, receipt), self.close)

    def _commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None) -> None:
        if self._conflict():
            self.close()
            raise Conflict("a conflict, as the test wanted; nothing was stored, START again")
        self._snapshot.commit(reads, writes, by, receipt)
