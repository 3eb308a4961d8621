"""Snapshots of the data: the present for plain commands, and the past for transactions."""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from typing import Any, Final, TypeVar

from kvd.errors import Conflict, Unavailable
from kvd.interfaces import (
    Changed,
    Count,
    Ending,
    Later,
    Page,
    PageInMaking,
    Range,
    Reads,
    Receipt,
    Scan,
    Snapshot,
    Stored,
    Writes,
    text_in,
)
from kvd.stores.memory.data import SWEEP, Data
from kvd.stores.memory.history import Mark
from kvd.stores.memory.validation import PIECE, after, conflicts
from kvd.wire import shown


class Latest(Snapshot):
    """The present, as the snapshot of one plain command."""

    def __init__(self, data: Data) -> None:
        self._data: Final = data

    def read(self, keys: list[str]) -> list[str | None]:
        data = self._data
        if data.ends.size:
            return [text_in(stored) for stored in self.read_with_ends(keys)]
        if data.journal is not None:
            data.sees(data.unsynced.of(keys))
        values = data.values
        found: list[Any] = [values.get(key) for key in keys]
        return found

    def read_with_ends(self, keys: list[str]) -> list[Stored | None]:
        data = self._data
        if data.journal is not None:
            data.sees(data.unsynced.of(keys))
        values = data.values
        if not data.ends.size:
            return [values.get(key) for key in keys]
        now = data.clock.now()
        found: list[Stored | None] = []
        for key in keys:
            stored = values.get(key)
            if isinstance(stored, Ending) and stored.end <= now:
                data.sees(data.passed(stored.end))
                stored = None
            found.append(stored)
        return found

    def scan(self, scan: Scan) -> Page | Later[Page]:
        data = self._data
        more = data.ends.size > 0 and data.sweep(SWEEP)
        data.sees(data.unsynced.newest())
        if scan.limit > PIECE or more:
            return MemorySnapshot(data, data.begin(nobody)).scan_and_close(scan)
        page = PageInMaking(scan)
        for key in data.keys_between(scan.range, with_dead=False):
            if not page.add(key, data.values.get(key) or ""):
                return Page(page.items, key)
        return Page(page.items, None)

    def count(self, count: Count) -> int | Later[int]:
        data = self._data
        if data.ends.size and data.sweep(SWEEP):
            return Later(self._count_later(count))
        return self._count(count)

    def _count_later(self, count: Count) -> Generator[None, None, int]:
        more = True
        while more:
            yield None
            more = self._data.sweep(SWEEP)
        return self._count(count)

    def _count(self, count: Count) -> int:
        self._data.sees(self._data.unsynced.newest())
        return self._data.how_many_between(count.range)

    def conflicts(self, reads: Reads, limit: int) -> Changed:
        return []  # nothing can come between a plain command's read and its write

    def commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None = None) -> None:
        self._data.apply(writes, by, receipt)

    def close(self) -> None:
        """There is nothing to give up."""


def nobody(reason: str) -> None:
    """Nobody wants to know that the snapshot was ended."""


class MemorySnapshot(Snapshot):
    """The state at one instant."""

    def __init__(self, data: Data, mark: Mark) -> None:
        self._data: Final = data
        self._mark: Final = mark
        self._number: Final = data.unsynced.number

    def _sees(self) -> None:
        """What is read here rests on all commits before it, of which some may not be durable yet."""
        if self._number > self._data.unsynced.durable:
            self._data.sees(self._number)

    def _is_there(self) -> None:
        if self._mark.closed:
            raise Unavailable("the snapshot that this read from was given up because memory was short; try again")

    def _value(self, key: str) -> Stored | None:
        change = self._data.history.change_after(key, self._mark.version)
        stored = self._data.values.get(key) if change is None else change.old
        if isinstance(stored, Ending) and stored.end <= self._mark.time:
            return None  # it had ended, and was only not swept
        return stored

    def read(self, keys: list[str]) -> list[str | None]:
        if self._data.journal is not None:
            self._sees()
        return [text_in(self._value(key)) for key in keys]

    def read_with_ends(self, keys: list[str]) -> list[Stored | None]:
        if self._data.journal is not None:
            self._sees()
        return [self._value(key) for key in keys]

    def _walk(self, within: Range) -> Generator[list[tuple[str, Stored]], None, None]:
        """The pairs of a range as they were, in order, a piece at a time. Commits may happen between the pieces."""
        rest: Range | None = within
        while rest is not None:
            self._is_there()
            keys = list(islice(self._data.keys_between(rest, with_dead=True), PIECE))
            rest = after(rest, keys[-1]) if len(keys) == PIECE else None
            pairs = []
            for key in keys:
                value = self._value(key)
                if value is not None:
                    pairs.append((key, value))
            yield pairs

    def scan(self, scan: Scan) -> Page | Later[Page]:
        self._sees()
        return _at_once_or_in_pieces(self._scan(scan))

    def scan_and_close(self, scan: Scan) -> Page | Later[Page]:
        """A page, from a snapshot that serves nothing else."""
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
                if key not in without and not page.add(key, value):
                    return Page(page.items, key)
        return Page(page.items, None)

    def count(self, count: Count) -> int | Later[int]:
        self._sees()
        return _at_once_or_in_pieces(self._count(count))

    def _count(self, count: Count) -> Generator[None, None, int]:
        data = self._data
        yield from data.sweep_all(self._mark.time)
        self._is_there()
        number = -sum(self._value(key) is not None for key in count.without)
        if data.history.how_many_after(self._mark) <= PIECE:
            # As it is now, without what was changed since.
            number += data.how_many_between(count.range)
            for key in data.history.keys_after(self._mark, count.range):
                number += (self._value(key) is not None) - (data.values.get(key) is not None)
            return number
        for pairs in self._walk(count.range):
            number += len(pairs)
            yield None
        return number

    def conflicts(self, reads: Reads, limit: int) -> Changed | Later[Changed]:
        data = self._data
        found = self._changed(reads, limit)
        if data.journal is not None:
            data.sees(data.unsynced.newest())
        return found

    def _changed(self, reads: Reads, limit: int) -> Changed | Later[Changed]:
        data = self._data
        history, version = data.history, self._mark.version
        ends = data.ends.size > 0
        if history.version == version and not (ends and data.ends.due(data.clock.now())):
            return []
        found: Changed = []
        for read in reads:
            if not isinstance(read, str):  # a range takes longer
                return _at_once_or_in_pieces(conflicts(data, self._mark, list(reads), limit))
            if ends:
                data.sweep_of([read])
            change = history.change_after(read, version)
            if change is not None:
                found.append((read, change.by))
                if len(found) == limit:
                    break
        return found

    def commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None = None) -> Later[None] | None:
        found = self.conflicts(reads, 1)
        if isinstance(found, Later):
            if receipt is not None:
                self._data.receipts.begin(receipt)
            return Later(self._commit_in_pieces(found, writes, by, receipt))
        self._finish(found, writes, by, receipt)
        return None

    def _commit_in_pieces(
        self, found: Later[Changed], writes: Writes, by: int, receipt: Receipt | None
    ) -> Generator[Any, Any, None]:
        self._mark.busy = True
        try:
            changed = yield from found.steps
            if receipt is not None:
                self._data.receipts.end(receipt)
            self._finish(changed, writes, by, receipt)  # at once, so that nothing comes between
        finally:
            self._mark.busy = False
            self.close()
            if receipt is not None:
                self._data.receipts.end(receipt)

    def _finish(self, changed: Changed, writes: Writes, by: int, receipt: Receipt | None) -> None:
        self.close()
        if changed:
            key, changer = changed[0]
            what = f"was changed by client {changer}" if changer else "ended"
            raise Conflict(
                f"key {shown(key)} {what} after this transaction began; nothing was stored, START again",
                key=key,
                by=changer,
            )
        self._data.apply(writes, by, receipt)

    def close(self) -> None:
        if not self._mark.closed:
            self._data.history.close(self._mark)


T = TypeVar("T")


def _at_once_or_in_pieces(steps: Generator[None, None, T]) -> T | Later[T]:
    """The answer, if it takes no pause to work it out; else a Later for it."""
    try:
        next(steps)
    except StopIteration as done:
        answer: T = done.value
        return answer
    return Later(steps)
