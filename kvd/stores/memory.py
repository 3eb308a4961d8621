"""The memory store: a dict with snapshots. Everything is forgotten when the process ends.

Current values live in a plain dict, and their keys in order in a sorted list. With no snapshot open
a write is one dict store. What open snapshots still see of the past is in :mod:`kvd.stores.history`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from typing import Any, Final

from sortedcontainers import SortedList

from kvd.errors import BadArguments, Conflict
from kvd.interfaces import Count, Page, Range, Reads, Scan
from kvd.stores.history import History, Mark
from kvd.transaction import cut_page
from kvd.wire import shown


class MemoryStore:
    """A :class:`kvd.interfaces.Store` that answers at once."""

    name: Final = "memory"
    promise: Final = "memory only: everything is forgotten on exit"

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.order = SortedList()  # the keys of values
        self.dead = SortedList()  # keys that are not in values but that an open snapshot sees
        self.history = History()
        self._latest = Latest(self)

    def start(self) -> None:
        """There is nothing to open."""

    def stop(self) -> None:
        """There is nothing to close."""

    def snapshot(self) -> MemorySnapshot:
        """The state as it is now."""
        return MemorySnapshot(self, self.history.open())

    def latest(self) -> Latest:
        """The current state, whenever it is asked."""
        return self._latest

    def info(self) -> dict[str, Any]:
        """How much there is."""
        return {"keys": len(self.values), "old_values": self.history.size}

    def apply(self, writes: Mapping[str, str | None], by: int) -> None:
        """Make writes visible, all as one commit."""
        values = self.values
        if self.history.newest is not None:
            self._remember(writes, by)
        for key, value in writes.items():
            if value is not None:
                before = len(values)
                values[key] = value
                if len(values) != before:
                    self.order.add(key)
            elif key in values:
                del values[key]
                self.order.remove(key)

    def _remember(self, writes: Mapping[str, str | None], by: int) -> None:
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
        for key in self.history.close(mark):
            if key not in self.values:
                self.dead.discard(key)

    def keys_between(self, within: Range, with_dead: bool) -> Iterator[str]:
        """The keys of a range, in its order; with those that only snapshots see, if wanted."""
        low, high, descending = within
        if high is not None and high <= low:
            return iter(())
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


class Latest:
    """The current state of a memory store, as the snapshot of one plain command."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def read(self, keys: list[str]) -> list[str | None]:
        """The values as they are now."""
        return list(map(self._store.values.get, keys))

    def scan(self, scan: Scan) -> Page:
        """A page of what is there now."""
        values = self._store.values
        keys = self._store.keys_between(scan.range, with_dead=False)
        return cut_page(scan, ((key, "" if scan.keys_only else values[key]) for key in keys))

    def count(self, count: Count) -> int:
        """The number of keys as it is now."""
        return self._store.how_many_between(count.range)

    def conflicts(self, reads: Reads, limit: int) -> list[tuple[str, int | None]]:
        """None: nothing can come between a plain command's read and its write."""
        return []

    def commit(self, reads: Reads, writes: Mapping[str, str | None], by: int) -> None:
        """Store."""
        self._store.apply(writes, by)

    def close(self) -> None:
        """There is nothing to give up."""


class MemorySnapshot:
    """The state of a memory store at one instant."""

    def __init__(self, store: MemoryStore, mark: Mark) -> None:
        self._store = store
        self._mark = mark
        self._closed = False

    def _value(self, key: str) -> str | None:
        change = self._store.history.change_after(key, self._mark.version)
        return self._store.values.get(key) if change is None else change.old

    def read(self, keys: list[str]) -> list[str | None]:
        """The values as they were."""
        return [self._value(key) for key in keys]

    def scan(self, scan: Scan) -> Page:
        """A page of what was there."""
        return cut_page(scan, self._pairs(scan))

    def _pairs(self, scan: Scan) -> Iterator[tuple[str, str]]:
        without = frozenset(scan.without)
        for key in self._store.keys_between(scan.range, with_dead=True):
            value = self._value(key)
            if value is not None and key not in without:
                yield key, "" if scan.keys_only else value

    def count(self, count: Count) -> int:
        """The number of keys as it was: as it is now, without what was changed since."""
        store = self._store
        number = store.how_many_between(count.range)
        for key in store.history.keys_after(self._mark, count.range):
            number += (self._value(key) is not None) - (key in store.values)
        return number - sum(self._value(key) is not None for key in count.without)

    def conflicts(self, reads: Reads, limit: int) -> list[tuple[str, int | None]]:
        """What was changed since, in the order in which it was read."""
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

    def commit(self, reads: Reads, writes: Mapping[str, str | None], by: int) -> None:
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
        if not self._closed:
            self._closed = True
            self._store.forget(self._mark)


def memory(argument: str) -> MemoryStore:
    """The store of ``--store memory``."""
    if argument:
        raise BadArguments(f"the memory store takes no argument, and was given {argument!r}")
    return MemoryStore()
