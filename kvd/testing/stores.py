"""A store that answers later: for the contract suite, and for what can go wrong while a client waits.

It keeps its data in a memory store, does each thing at a random later time, and so answers in any order. Now and
then a plain command's commit meets a conflict, as it would with other servers on the same cluster.

:class:`FlakyStore` fails too, in every way that a store may: before the deed, behind it, and with silence.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from kvd.errors import Conflict, KvdError, OutcomeUnknown, Unavailable
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
from kvd.stores.memory.journal import Contents, Journal
from kvd.stores.memory.snapshots import MemorySnapshot
from kvd.stores.memory.store import MemoryStore
from kvd.testing.faulty_store import whole


class SlowStore(Store):
    """A :class:`kvd.interfaces.Store` that answers everything later.

    :param seed: decides delays and conflicts.
    :param memory: the memory store behind it; an empty one if none is given.
    :ivar failures: exceptions with which the next answers fail, before anything is done.
    :ivar lost_answers: the same, but what was asked for is done.
    :ivar silent: while it is true, no question is answered at all.
    """

    name = "slow"
    promise = "for tests"

    def __init__(self, clock: Clock, seed: int = 0, memory: MemoryStore | None = None) -> None:
        self.clock = clock
        self.memory = memory or MemoryStore()
        self.random = random.Random(seed)
        self.failures: list[Exception] = []
        self.lost_answers: list[Exception] = []
        self.silent = False
        self.asked = 0

    def start(self, host: Host) -> None:
        """Hold what is kept."""
        self.memory.start(host)

    def stop(self) -> None:
        """There is nothing to close."""

    def info(self) -> dict[str, Any]:
        """The figures of the memory store behind it."""
        return self.memory.info()

    def later(self, act: Callable[[], Any], give_up: Callable[[], None] | None = None) -> Later[Any]:
        """Do something some time later; not at all if the answer is not wanted any more by then.

        :param give_up: what a commit does instead if it is not done.
        """
        self.asked += 1
        call = None
        if not self.silent:
            call = self.clock.callLater(self.random.uniform(0, 0.05), lambda: self._answer(answer, act, give_up))

        def cancel(_: Deferred[Any]) -> None:
            if call is not None:
                call.cancel()
            if give_up is not None:
                give_up()

        answer: Deferred[Any] = Deferred(cancel)
        return later(answer)

    def _answer(self, answer: Deferred[Any], act: Callable[[], Any], give_up: Callable[[], None] | None) -> None:
        try:
            if self.failures:
                if give_up is not None:
                    give_up()
                raise self.failures.pop(0)
            done = whole(act())
            if self.lost_answers:
                raise self.lost_answers.pop(0)
        except Exception as error:
            answer.errback(error)
        else:
            answer.callback(done)

    def admit(self, writes: Writes) -> None:
        """As the memory store behind it does."""
        self.memory.admit(writes)

    def outcome(self, receipt: Receipt) -> Later[Outcome]:
        """What the memory store behind it says at the time of the answer."""
        return self.later(lambda: self.memory.outcome(receipt))

    def snapshot(self, ended: Callable[[str], None]) -> Later[SlowSnapshot]:
        """A snapshot of the time at which the answer comes."""
        return self.later(lambda: SlowSnapshot(self, ended, plain=False).take())

    def latest(self) -> SlowSnapshot:
        """A snapshot of the time of its first read."""
        return SlowSnapshot(self, lambda reason: None, plain=True)


class SlowSnapshot(Snapshot):
    """A :class:`kvd.interfaces.Snapshot` that answers later."""

    def __init__(self, store: SlowStore, ended: Callable[[str], None], plain: bool) -> None:
        self._store = store
        self._tell_end = ended
        self._taken: MemorySnapshot | None = None
        self._plain = plain
        self._commits = False
        self._ended = False

    def take(self) -> SlowSnapshot:
        """Take it now."""
        self._taken = self._store.memory.snapshot(self._end)
        return self

    def _end(self, reason: str) -> None:
        self._ended = True
        self._tell_end(reason)

    def _there(self) -> MemorySnapshot:
        if self._ended:
            raise Unavailable("the store gave the snapshot up for want of memory; nothing was stored")
        if self._taken is None:
            self.take()
        assert self._taken is not None
        return self._taken

    def read(self, keys: list[str]) -> Later[list[str | None]]:
        return self._store.later(lambda: self._there().read(keys))

    def read_with_ends(self, keys: list[str]) -> Later[list[Stored | None]]:
        return self._store.later(lambda: self._there().read_with_ends(keys))

    def scan(self, scan: Scan) -> Later[Page]:
        return self._store.later(lambda: self._there().scan(scan))

    def count(self, count: Count) -> Later[int]:
        return self._store.later(lambda: self._there().count(count))

    def conflicts(self, reads: Reads, limit: int) -> Later[Changed]:
        return self._store.later(lambda: self._there().conflicts(list(reads), limit))

    def commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None = None) -> Later[None]:
        def act() -> None:
            if self._plain and self._store.random.random() < 0.2:
                self._give_up()
                raise Conflict("another server was faster", key="?")
            whole(self._there().commit(reads, writes, by, receipt))

        self._commits = True
        return self._store.later(act, self._give_up)

    def close(self) -> None:
        if not self._commits:  # else the commit closes it, which may still be done
            self._give_up()

    def _give_up(self) -> None:
        if self._taken is not None:
            self._taken.close()


class FickleStore(SlowStore):
    """A slow store that decides at every call whether to answer at once or later.

    Over a network this is what a cache does: some reads are at hand, and others are not.
    """

    name = "fickle"

    def later(self, act: Callable[[], Any], give_up: Callable[[], None] | None = None) -> Any:
        """Do something now, or later."""
        if self.random.random() < 0.5:
            return super().later(act, give_up)
        self.asked += 1
        return whole(act())


class SlowSync(Journal):
    """Makes the commits of a memory store durable as a disk does: one sync at a time, for all that came before it.

    :param seconds: what a sync takes.
    :ivar syncs: how many there have been.
    :ivar broken: whether the next sync fails.
    """

    def __init__(self, clock: Clock, seconds: float = 0.004) -> None:
        self._clock = clock
        self._seconds = seconds
        self._newest = 0
        self._busy = False
        self.syncs = 0
        self.broken = False

    def start(self, host: Host, contents: Contents, synced: Callable[[int], None]) -> None:
        """Learn whom to tell of what."""
        self._host = host
        self._synced = synced

    def stop(self) -> None:
        """There is nothing to close."""

    def admit(self, writes: Writes) -> None:
        """There is always room."""

    def info(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}

    def ended(self, keys: list[str]) -> None:
        """There is nothing to do."""

    def append(self, number: int, writes: Writes, by: int, receipt: Receipt | None, committed: bool) -> None:
        """Have it synced with what else comes in this turn of the event loop."""
        self._newest = number
        if not self._busy:
            self._busy = True
            self._clock.callLater(0, self._begin)

    def _begin(self) -> None:
        self.syncs += 1
        self._clock.callLater(self._seconds, self._end, self._newest)

    def _end(self, number: int) -> None:
        if self.broken:
            self._host.failed("the disk is broken")
            return
        self._busy = False
        if self._newest > number:
            self._busy = True
            self._begin()
        self._synced(number)


def slow_sync_store(clock: Clock, seconds: float = 0.004) -> tuple[MemoryStore, SlowSync]:
    """A memory store whose commits are applied at once and durable after a sync, and its journal."""
    journal = SlowSync(clock, seconds)
    return MemoryStore(journal), journal


class StoreBroke(Exception):
    """A fault of the store, as a bug in it would be."""


class FlakyStore(SlowStore):
    """A slow store that now and then fails: nothing is stored, or nobody knows whether something is.

    :param trouble: how likely it is, from 0 to 1, that something goes wrong with a question.
    """

    def __init__(self, clock: Clock, seed: int, memory: MemoryStore, trouble: float) -> None:
        super().__init__(clock, seed, memory)
        self.trouble = trouble

    def later(self, act: Callable[[], Any], give_up: Callable[[], None] | None = None) -> Later[Any]:
        """Do something later, or fail."""
        if self.random.random() >= self.trouble:
            return super().later(act, give_up)
        kind = self.random.choice(["unavailable", "broken", "silent", "lost", "late"])
        if kind == "silent":  # until the server waits no longer
            return later(Deferred(lambda _: give_up() if give_up is not None else None))
        if kind == "lost" and give_up is not None:
            return super().later(lambda: self._lose_answer(act))
        if kind == "late" and give_up is not None:  # done only when the server has given up waiting
            return later(Deferred(lambda _: self._do_late(act)))
        error = StoreBroke() if kind == "broken" else Unavailable("the store can't be reached; nothing was stored")
        return super().later(lambda: self._fail(error, give_up))

    def _fail(self, error: Exception, give_up: Callable[[], None] | None) -> None:
        if give_up is not None:
            give_up()
        raise error

    def _lose_answer(self, act: Callable[[], Any]) -> None:
        act()
        raise self.random.choice([OutcomeUnknown("the link to the store broke"), StoreBroke()])

    def _do_late(self, act: Callable[[], Any]) -> None:
        self.clock.callLater(self.random.uniform(0, 5), self._do_quietly, act)

    def _do_quietly(self, act: Callable[[], Any]) -> None:
        with suppress(KvdError):  # it would have been refused
            act()
