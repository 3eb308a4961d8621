"""A store that answers later: for the contract suite, and for what can go wrong while a client waits.

It keeps its data in a memory store, does each thing at a random later time, and so answers in any order. Now and
then a plain command's commit meets a conflict, as it would with other servers on the same cluster.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from kvd.errors import Conflict
from kvd.interfaces import Count, Later, Page, Reads, Scan
from kvd.limits import Budget
from kvd.stores.memory import MemorySnapshot, MemoryStore


class SlowStore:
    """A :class:`kvd.interfaces.Store` that answers everything later.

    :param seed: decides delays and conflicts.
    :ivar failures: exceptions with which the next answers fail, before anything is done.
    :ivar lost_answers: the same, but what was asked for is done.
    :ivar silent: while it is true, no question is answered at all.
    """

    name = "slow"
    promise = "for tests"

    def __init__(self, clock: Clock, seed: int = 0) -> None:
        self.clock = clock
        self.memory = MemoryStore()
        self.random = random.Random(seed)
        self.failures: list[Exception] = []
        self.lost_answers: list[Exception] = []
        self.silent = False
        self.asked = 0

    def start(self, budget: Budget) -> None:
        """Count what is held."""
        self.memory.start(budget)

    def stop(self) -> None:
        """There is nothing to close."""

    def info(self) -> dict[str, Any]:
        """The figures of the memory store behind it."""
        return self.memory.info()

    def later(self, act: Callable[[], Any]) -> Later[Any]:
        """Do something some time later; not at all if the answer is not wanted any more by then."""
        self.asked += 1
        answer: Deferred[Any] = Deferred()
        if not self.silent:
            call = self.clock.callLater(self.random.uniform(0, 0.05), self._answer, answer, act)
            answer._canceller = lambda _: call.cancel()
        return Later(answer)

    def _answer(self, answer: Deferred[Any], act: Callable[[], Any]) -> None:
        try:
            if self.failures:
                raise self.failures.pop(0)
            done = act()
            if self.lost_answers:
                raise self.lost_answers.pop(0)
        except Exception as error:
            answer.errback(error)
        else:
            answer.callback(done)

    def growth(self, writes: Mapping[str, str | None]) -> int:
        """That of the memory store behind it."""
        return self.memory.growth(writes)

    def snapshot(self, ended: Callable[[str], None]) -> Later[SlowSnapshot]:
        """A snapshot of the time at which the answer comes."""
        return self.later(lambda: SlowSnapshot(self, self.memory.snapshot(ended)))

    def latest(self) -> SlowSnapshot:
        """A snapshot of the time of its first read."""
        return SlowSnapshot(self, None)


class SlowSnapshot:
    """A :class:`kvd.interfaces.Snapshot` that answers later."""

    def __init__(self, store: SlowStore, taken: MemorySnapshot | None) -> None:
        self._store = store
        self._taken = taken
        self._plain = taken is None

    def _there(self) -> MemorySnapshot:
        if self._taken is None:
            self._taken = self._store.memory.snapshot()
        return self._taken

    def read(self, keys: list[str]) -> Later[list[str | None]]:
        return self._store.later(lambda: self._there().read(keys))

    def scan(self, scan: Scan) -> Later[Page]:
        return self._store.later(lambda: self._there().scan(scan))

    def count(self, count: Count) -> Later[int]:
        return self._store.later(lambda: self._there().count(count))

    def conflicts(self, reads: Reads, limit: int) -> Later[list[tuple[str, int | None]]]:
        return self._store.later(lambda: self._there().conflicts(list(reads), limit))

    def commit(self, reads: Reads, writes: Mapping[str, str | None], by: int) -> Later[None]:
        def act() -> None:
            if self._plain and self._store.random.random() < 0.2:
                self.close()
                raise Conflict("another server was faster", key="?")
            self._there().commit(reads, writes, by)

        return self._store.later(act)

    def close(self) -> None:
        if self._taken is not None:
            self._taken.close()
