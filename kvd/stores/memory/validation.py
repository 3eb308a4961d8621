"""Validation: what of a read set was changed since a snapshot, worked out in pieces where that is much.

Keys are looked up. For ranges, either the keys in them are gone through, or the keys that were changed, whichever is
less; ranges that overlap are merged first, so that no key is looked at twice however many ranges hold it. Commits may
happen between the pieces: what they change is watched, and looked at before the answer is given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from kvd.interfaces import Changed, Range
from kvd.stores.memory.data import SWEEP, Data
from kvd.stores.memory.history import Mark

PIECE: Final = 500
"""Keys that are looked at before others have their turn."""

FEW_RANGES: Final = 200
"""Only so many ranges are looked at for how many keys they hold."""


def conflicts(data: Data, mark: Mark, reads: list[str | Range], limit: int) -> Generator[None, None, Changed]:
    """Which keys of a read set were changed since a snapshot, in the order in which they were read.

    The answer is that of the instant at which the generator returns.

    :param limit: the most keys that are wanted.
    """
    ranges = [read for read in reads if not isinstance(read, str)]
    watcher: list[str] = []
    data.history.watchers.append(watcher)
    try:
        changed = SortedList()
        if ranges:
            yield from _changed_in(data, mark, _Ranges(ranges), watcher, changed)
        if data.ends.size:
            data.sweep_of([read for read in reads if isinstance(read, str)])
        data.sees(data.unsynced.newest())
        return _in_order(data, mark, reads, changed, limit)
    finally:
        data.history.watchers.remove(watcher)


def _changed_in(
    data: Data, mark: Mark, ranges: _Ranges, watcher: list[str], changed: SortedList
) -> Generator[None, None, None]:
    """Collect the keys in some ranges that were changed since a snapshot."""
    history = data.history
    number = history.how_many_after(mark)
    if len(ranges.lows) <= FEW_RANGES and ranges.how_many(data) < number:
        for within in ranges.all():
            rest: Range | None = within
            while rest is not None:
                keys = list(islice(data.keys_between(rest, with_dead=True), PIECE))
                for key in keys:
                    if history.change_after(key, mark.version) is not None:
                        changed.add(key)
                rest = after(rest, keys[-1]) if len(keys) == PIECE else None
                if rest is not None:
                    yield None
    else:
        records = history.records_after(mark)
        while records:
            _add(data, mark, ranges, [record.key for record in records[-PIECE:]], changed)
            del records[-PIECE:]
            if records:
                yield None
    more = True
    while more:
        more = data.sweep(SWEEP)  # what has ended meanwhile; it is watched like what was written
        keys = watcher[:PIECE]
        del watcher[:PIECE]
        _add(data, mark, ranges, keys, changed)
        more = more or bool(watcher)
        if more:
            yield None


def _add(data: Data, mark: Mark, ranges: _Ranges, keys: Iterable[str], changed: SortedList) -> None:
    for key in keys:
        if ranges.hold(key) and key not in changed and data.history.change_after(key, mark.version) is not None:
            changed.add(key)


def _in_order(data: Data, mark: Mark, reads: list[str | Range], changed: SortedList, limit: int) -> Changed:
    found: dict[str, int | None] = {}
    for read in reads:
        if isinstance(read, Range) and not changed:
            continue
        keys: Iterable[str] = [read] if isinstance(read, str) else _within(changed, read)
        for key in keys:
            if key not in found:
                change = data.history.change_after(key, mark.version)
                if change is not None:
                    found[key] = change.by
                    if len(found) == limit:
                        return list(found.items())
    return list(found.items())


def _within(changed: SortedList, read: Range) -> Iterable[str]:
    keys: Iterable[str] = changed.irange(read.low, read.high, (True, False), read.descending)
    return keys


class _Ranges:
    """Ranges, merged where they overlap."""

    def __init__(self, ranges: list[Range]) -> None:
        self.lows: list[str] = []
        self._highs: list[str | None] = []
        for low, high, _ in sorted(ranges, key=_low_of):
            if high is not None and high <= low:
                continue
            if self.lows:
                last = self._highs[-1]
                if last is None:
                    break
                if low <= last:
                    if high is None or high > last:
                        self._highs[-1] = high
                    continue
            self.lows.append(low)
            self._highs.append(high)

    def all(self) -> list[Range]:
        """They themselves."""
        return [Range(low, high) for low, high in zip(self.lows, self._highs, strict=True)]

    def hold(self, key: str) -> bool:
        """Whether one of them holds a key."""
        place = bisect_right(self.lows, key) - 1
        if place < 0:
            return False
        high = self._highs[place]
        return high is None or key < high

    def how_many(self, data: Data) -> int:
        """How many keys they hold, with those that only snapshots see."""
        number = 0
        for within in self.all():
            number += data.how_many_between(within) + data.how_many_dead_between(within)
        return number


def _low_of(within: Range) -> str:
    return within.low


def after(within: Range, key: str) -> Range:
    """What is left of a range when it has been gone through up to and including a key."""
    return within._replace(high=key) if within.descending else within._replace(low=key + "\0")
