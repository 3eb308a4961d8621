"""The memory store: a dict with snapshots. Everything is forgotten when the process ends.

Current values live in a dict (in parts, see :mod:`kvd.stores.memory.split`), and their keys in order in a sorted
list. With no snapshot open a write is one dict store. What open snapshots still see of the past is in
:mod:`kvd.stores.memory.history`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from heapq import merge
from itertools import islice
from typing import Any, Final, TypeVar

from sortedcontainers import SortedList

from kvd.accounts import MIB, Account, Budget, memory_of
from kvd.errors import BadArguments, Conflict, Unavailable
from kvd.interfaces import (
    Changed,
    Count,
    Host,
    Later,
    Page,
    PageInMaking,
    Range,
    Reads,
    Scan,
    Snapshot,
    Store,
    Writes,
)
from kvd.stores.memory.history import History, Mark
from kvd.stores.memory.journal import Journal, Unsynced
from kvd.stores.memory.split import SplitDict
from kvd.wire import shown

PAIR_BYTES: Final = 100
"""What a pair takes in memory beside its key and value: its places in the dict and in the list, and rounding."""

LARGEST: Final = 5 * MIB
"""More bytes than any one pair can take: a string takes up to four bytes for each of its characters."""

PIECE: Final = 500
"""Keys that are looked at before others have their turn."""


def _nobody(reason: str) -> None:
    pass


def _nothing() -> None:
    pass


class MemoryStore(Store):
    """A :class:`kvd.interfaces.Store` that answers at once, or in pieces where much is asked for.

    :param journal: makes its commits durable; None: nothing does.
    """

    name = "memory"
    promise = "memory only: everything is forgotten on exit"

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal: Final = journal
        self.unsynced: Final = Unsynced()
        self._synced: Callable[[], None] = _nothing
        self.values = SplitDict()
        self.order = SortedList()  # the keys of values
        self.dead = SortedList()  # keys that are not in values but that an open snapshot sees
        self._keep_accounts(Budget(0))
        self._latest = Latest(self)

    def _keep_accounts(self, budget: Budget) -> None:
        self.budget = budget
        self.account = Account(budget.data)
        self.history = History(Account(budget.past))

    def start(self, host: Host) -> None:
        """Hold what is kept with the server's budget from now on."""
        self._keep_accounts(host.budget)
        self._synced = host.synced
        if self.journal is not None:
            self.journal.start(host)

    def synced(self, number: int) -> None:
        """All commits up to that number are durable."""
        self.unsynced.synced(number)
        self.durable = number
        self._synced()

    def sees(self, number: int) -> None:
        """An answer rests on a commit; 0: on none that is not durable."""
        if number > self.seen:
            self.seen = number

    def stop(self) -> None:
        """There is nothing to close."""

    def snapshot(self, ended: Callable[[str], None] = _nobody) -> MemorySnapshot:
        """The state as it is now."""
        return MemorySnapshot(self, self.history.open(ended))

    def latest(self) -> Latest:
        """The current state, whenever it is asked."""
        return self._latest

    def info(self) -> dict[str, Any]:
        """How much there is."""
        return {
            "keys": len(self.values),
            "old_values": self.history.size,
            "old_values_bytes": self.history.account.held,
        }

    def admit(self, writes: Writes) -> None:
        """Refuse what grows at the memory limit."""
        if self.budget.used > self.budget.room and self._growth(writes) > 0:
            raise self.budget.exceeded()

    def _growth(self, writes: Writes) -> int:
        """By how many bytes these writes would make the data grow; less than 0 if it would shrink."""
        grown = 0
        for key, value in writes.items():
            old = self.values.get(key)
            if old is not None:
                grown -= pair_bytes(key, old)
            if value is not None:
                grown += pair_bytes(key, value)
        return grown

    def apply(self, writes: Writes, by: int) -> None:
        """Make writes visible, all as one commit.

        :raise OutOfMemory: there is no room for them; nothing was stored.
        """
        budget = self.budget
        if budget.used + LARGEST * len(writes) > budget.room:  # else there is room for sure
            grown = self._growth(writes)
            if grown > 0 and budget.used + grown > budget.room:
                raise budget.exceeded()
        if self.history.newest is not None:
            self._remember(writes, by)
        grown = 0
        changed = False
        for key, value in writes.items():
            if value is not None:
                changed = True
                old = self.values.put(key, value)
                if old is None:
                    self.order.add(key)
                    grown += pair_bytes(key, value)
                else:
                    grown += memory_of(value) - memory_of(old)
            else:
                old = self.values.remove(key)
                if old is not None:
                    changed = True
                    self.order.remove(key)
                    grown -= pair_bytes(key, old)
        self.account.set(self.account.held + grown)
        if self.journal is not None and changed:
            number = self.unsynced.committed(writes)
            self.sees(number)
            self.journal.append(number, writes, by)
        elif self.journal is not None:  # but that there was nothing to remove may not be durable yet
            self.sees(self.unsynced.of(list(writes)))
        if self.history.size:
            self._let_go()

    def _let_go(self) -> None:
        """End the oldest snapshots if old values take too much memory."""
        history, budget = self.history, self.budget
        while history.size and (history.account.held > budget.limit // 4 or budget.used > budget.limit):
            mark = history.oldest
            if mark is None:
                return
            held = history.account.held
            self.forget(mark)
            mark.ended(f"the old values that it and others could see took {held} bytes of memory, too much")

    def _remember(self, writes: Writes, by: int) -> None:
        self.history.version += 1
        for key, value in writes.items():
            old = self.values.get(key)
            if old is None and value is None:
                continue  # removing what is not there changes nothing
            self.history.replaced(key, old, by)
            if old is None:
                self.dead.discard(key)
            elif value is None:
                self.dead.add(key)

    def forget(self, mark: Mark) -> None:
        """Close a snapshot."""
        freed = self.history.close(mark)
        if not self.dead:
            return
        for key in freed:
            if self.values.get(key) is None:
                self.dead.discard(key)

    def keys_between(self, within: Range, with_dead: bool) -> Iterator[str]:
        """The keys of a range, in its order; with those that only snapshots see, if wanted."""
        low, high, descending = within
        inclusive = (True, False)
        alive = self.order.irange(low, high, inclusive, descending)
        if not with_dead or not self.dead:
            return iter(alive)
        return merge(alive, self.dead.irange(low, high, inclusive, descending), reverse=descending)

    def how_many_between(self, within: Range) -> int:
        """How many keys a range holds now."""
        low, high, _ = within
        start: int = self.order.bisect_left(low)
        end: int = len(self.order) if high is None else self.order.bisect_left(high)
        return max(0, end - start)


def pair_bytes(key: str, value: str) -> int:
    """What a pair takes in memory."""
    return memory_of(key) + memory_of(value) + PAIR_BYTES


class Latest(Snapshot):
    """The current state of a memory store, as the snapshot of one plain command."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def read(self, keys: list[str]) -> list[str | None]:
        """The values as they are now."""
        store = self._store
        if store.journal is not None:
            store.sees(store.unsynced.of(keys))
        values = store.values
        return [values.get(key) for key in keys]

    def scan(self, scan: Scan) -> Page | Later[Page]:
        """A page of what is there now."""
        self._store.sees(self._store.unsynced.newest())
        if scan.limit > PIECE:
            return self._store.snapshot().scan_and_close(scan)
        page = PageInMaking(scan)
        for key in self._store.keys_between(scan.range, with_dead=False):
            value = "" if scan.keys_only else self._store.values.get(key) or ""
            if not page.add(key, value):
                return Page(page.items, key)
        return Page(page.items, None)

    def count(self, count: Count) -> int:
        """The number of keys as it is now."""
        self._store.sees(self._store.unsynced.newest())
        return self._store.how_many_between(count.range)

    def conflicts(self, reads: Reads, limit: int) -> Changed:
        """None: nothing can come between a plain command's read and its write."""
        return []

    def commit(self, reads: Reads, writes: Writes, by: int) -> None:
        """Store."""
        self._store.apply(writes, by)

    def close(self) -> None:
        """There is nothing to give up."""


class MemorySnapshot(Snapshot):
    """The state of a memory store at one instant."""

    def __init__(self, store: MemoryStore, mark: Mark) -> None:
        self._store = store
        self._mark = mark
        self._number: Final = store.unsynced.number

    def _sees(self) -> None:
        """What is read here rests on all commits before it, of which some may not be durable yet."""
        if self._number > self._store.durable:
            self._store.sees(self._number)

    def _value(self, key: str) -> str | None:
        change = self._store.history.change_after(key, self._mark.version)
        return self._store.values.get(key) if change is None else change.old

    def read(self, keys: list[str]) -> list[str | None]:
        """The values as they were."""
        self._sees()
        return [self._value(key) for key in keys]

    def _walk(self, within: Range) -> Generator[list[tuple[str, str]], None, None]:
        """The pairs of a range as they were, in order, a piece at a time. Commits may happen between the pieces."""
        rest: Range | None = within
        while rest is not None:
            if self._mark.closed:
                raise Unavailable("the snapshot that this read from was given up for want of memory; try again")
            keys = list(islice(self._store.keys_between(rest, with_dead=True), PIECE))
            rest = _after(rest, keys[-1]) if len(keys) == PIECE else None
            pairs = []
            for key in keys:
                value = self._value(key)
                if value is not None:
                    pairs.append((key, value))
            yield pairs

    def scan(self, scan: Scan) -> Page | Later[Page]:
        """A page of what was there."""
        self._sees()
        return _at_once_or_in_pieces(self._scan(scan))

    def scan_and_close(self, scan: Scan) -> Page | Later[Page]:
        """The same, for a snapshot that serves nothing else."""
        return _at_once_or_in_pieces(self._scan_and_close(scan))

    def _scan_and_close(self, scan: Scan) -> Generator[None, None, Page]:
        try:
            return (yield from self._scan(scan))
        finally:
            self.close()

    def _scan(self, scan: Scan) -> Generator[None, None, Page]:
        without = frozenset(scan.without)
        page = PageInMaking(scan)
        first = True
        for pairs in self._walk(scan.range):
            if not first:
                yield None
            first = False
            for key, value in pairs:
                if key not in without and not page.add(key, "" if scan.keys_only else value):
                    return Page(page.items, key)
        return Page(page.items, None)

    def count(self, count: Count) -> int | Later[int]:
        """The number of keys as it was."""
        self._sees()
        return _at_once_or_in_pieces(self._count(count))

    def _count(self, count: Count) -> Generator[None, None, int]:
        store = self._store
        number = -sum(self._value(key) is not None for key in count.without)
        if store.history.how_many_after(self._mark) <= PIECE:
            # As it is now, without what was changed since.
            number += store.how_many_between(count.range)
            for key in store.history.keys_after(self._mark, count.range):
                number += (self._value(key) is not None) - (store.values.get(key) is not None)
            return number
        for pairs in self._walk(count.range):
            number += len(pairs)
            yield None
        return number

    def conflicts(self, reads: Reads, limit: int) -> Changed:
        """What was changed since, in the order in which it was read."""
        self._store.sees(self._store.unsynced.newest())
        if self._store.history.version == self._mark.version:
            return []
        found: dict[str, int | None] = {}
        for read in reads:
            for key in [read] if isinstance(read, str) else self._changed_in(read):
                change = self._store.history.change_after(key, self._mark.version)
                if change is not None:
                    found.setdefault(key, change.by)
                    if len(found) == limit:
                        return list(found.items())
        return list(found.items())

    def _changed_in(self, within: Range) -> list[str]:
        # Look through the keys of the range, or through all that was changed: whichever is less.
        history = self._store.history
        if history.how_many_after(self._mark) < self._store.how_many_between(within):
            return sorted(history.keys_after(self._mark, within), reverse=within.descending)
        return list(self._store.keys_between(within, with_dead=True))

    def commit(self, reads: Reads, writes: Writes, by: int) -> None:
        """Check what was read, and store."""
        conflicts = self.conflicts(reads, 1)
        self.close()
        if conflicts:
            key, changer = conflicts[0]
            raise Conflict(
                f"key {shown(key)} was changed by client {changer} after this transaction began; "
                "nothing was stored, START again",
                key=key,
                by=changer,
            )
        self._store.apply(writes, by)

    def close(self) -> None:
        """Let the store forget what only this snapshot saw."""
        if not self._mark.closed:
            self._store.forget(self._mark)


def _after(within: Range, key: str) -> Range:
    """What is left of a range when it has been gone through up to and including a key."""
    return within._replace(high=key) if within.descending else within._replace(low=key + "\0")


T = TypeVar("T")


def _at_once_or_in_pieces(steps: Generator[None, None, T]) -> T | Later[T]:
    """The answer, if it takes no pause to work it out; else the pieces to it."""
    try:
        next(steps)
    except StopIteration as done:
        answer: T = done.value
        return answer
    return Later(steps)


def memory(argument: str) -> MemoryStore:
    """The store of ``--store memory``."""
    if argument:
        raise BadArguments(f"the memory store takes no argument, and was given {argument!r}")
    return MemoryStore()
