"""A transaction, pure: write set, read set and savepoints over a store's snapshot.

Reading takes two steps, so that the store can answer later in between: :meth:`Transaction.missing` says what the store
must be asked for, and :meth:`Transaction.overlay` lays the transaction's own writes over the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge
from typing import Any, Final

from kvd.accounts import memory_of
from kvd.errors import NoSavepoint
from kvd.interfaces import (
    Count,
    Ends,
    Page,
    PageInMaking,
    Range,
    Scan,
    Snapshot,
    Stored,
    Wanted,
    Writes,
    stored_bytes,
    text_in,
)
from kvd.wire import shown

ENTRY_BYTES: Final = 150
"""What an entry of the write set, the read set or an undo record takes in memory beside its texts."""

SAVEPOINT_BYTES: Final = 450
"""What a savepoint takes in memory beside its undo records."""

NOT_WRITTEN: Final = object()
"""Stands in an undo record for: the transaction had not written this key before."""


class Savepoint:
    """A point that the write set can be taken back to."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        # What the write set held for each key before it was first written after this savepoint.
        self.undo: dict[str, Any] = {}


class Transaction:
    """An open transaction.

    :param snapshot: what it reads from, and commits on top of.
    :param read_only: whether it may write.
    :param now: the time of its START, in seconds of the server's clock.
    :ivar used: when it was last used.
    :ivar bytes: what read set, write set and savepoints take in memory.
    :ivar aborted: why it can't commit, for people, after an error; ROLLBACK TO revives it.
    :ivar expired: why the server ended it; only COMMIT or ROLLBACK get the connection out of that.
    """

    def __init__(self, snapshot: Snapshot, read_only: bool, now: float) -> None:
        self.snapshot: Final = snapshot
        self.read_only: Final = read_only
        self.started: Final = now
        self.used = now
        self.writes: Writes = {}
        # Keys and ranges, in the order in which they were first read; the values mean nothing.
        self.reads: dict[str | Range, None] = {}
        self.savepoints: list[Savepoint] = []
        self.bytes = 0
        self.aborted: str | None = None
        self.expired: str | None = None

    # Reading.

    def missing(self, wanted: Wanted) -> Wanted:
        """What of ``wanted`` the transaction's own writes do not answer; it counts as read."""
        if isinstance(wanted, list):
            if self.writes:
                writes = self.writes
                wanted = [key for key in wanted if key not in writes]
            for key in wanted:
                self._has_read(key)
            return wanted
        if isinstance(wanted, Ends):
            keys: Any = self.missing(wanted.keys)
            return wanted if keys is wanted.keys else Ends(keys)
        own = [key for key in self.writes if wanted.range.holds(key)]
        if isinstance(wanted, Count):
            self._has_read(wanted.range)
        return wanted._replace(without=own) if own else wanted

    def overlay(self, wanted: Wanted, answer: Any) -> Any:
        """Lay the own writes over the store's answer to what :meth:`missing` said."""
        if isinstance(wanted, list):
            if not self.writes:
                return answer
            values = iter(answer)
            return [text_in(self.writes[key]) if key in self.writes else next(values) for key in wanted]
        if isinstance(wanted, Ends):
            found = iter(answer)
            return [self.writes[key] if key in self.writes else next(found) for key in wanted.keys]
        if isinstance(wanted, Count):
            own = [key for key, value in self.writes.items() if value is not None and wanted.range.holds(key)]
            return answer + len(own)
        page = self._merged(wanted, answer)
        self._has_read(_part_read(wanted.range, page.met))
        return page

    def _has_read(self, read: str | Range) -> None:
        if read not in self.reads:
            self.reads[read] = None
            self.bytes += read_bytes(read)

    def _merged(self, scan: Scan, page: Page) -> Page:
        own: list[tuple[str, Any]] = [
            (key, value) for key, value in self.writes.items() if value is not None and scan.range.holds(key)
        ]
        if not own:
            return page
        own.sort(key=_key_of, reverse=scan.range.descending)
        # The store's page is full by itself if it met a further key, so that key never gets in here.
        stored = page.items if page.met is None else [*page.items, (page.met, "")]
        return cut_page(scan, merge(stored, own, key=_key_of, reverse=scan.range.descending))

    # Writing.

    def write(self, writes: Writes) -> None:
        """Put writes into the write set."""
        for key, value in writes.items():
            before: Any = self.writes.get(key, NOT_WRITTEN)
            if self.savepoints and key not in self.savepoints[-1].undo:
                self.savepoints[-1].undo[key] = before
                self.bytes += undo_bytes(before)
            if before is not NOT_WRITTEN:
                self.bytes -= write_bytes(key, before)
            self.writes[key] = value
            self.bytes += write_bytes(key, value)

    # Savepoints.

    def savepoint(self, name: str) -> None:
        """Set a savepoint; it hides an older one of the same name."""
        self.bytes += SAVEPOINT_BYTES
        self.savepoints.append(Savepoint(name))

    def rollback_to(self, name: str) -> None:
        """Drop the writes made after a savepoint, and the savepoints set after it. What was read stays read.

        :raise kvd.errors.NoSavepoint: there is none of that name.
        """
        index = self._find(name)
        for savepoint in reversed(self.savepoints[index:]):
            for key, before in savepoint.undo.items():
                if before is NOT_WRITTEN:
                    del self.writes[key]
                else:
                    self.writes[key] = before
        del self.savepoints[index + 1 :]
        self.savepoints[index].undo.clear()
        self.aborted = None
        self._measure()

    def release(self, name: str) -> None:
        """Forget a savepoint and those set after it, and keep the writes.

        :raise kvd.errors.NoSavepoint: there is none of that name.
        """
        index = self._find(name)
        if index:
            below = self.savepoints[index - 1].undo
            for savepoint in self.savepoints[index:]:
                for key, before in savepoint.undo.items():
                    below.setdefault(key, before)
        del self.savepoints[index:]
        self._measure()

    def _measure(self) -> None:
        self.bytes = SAVEPOINT_BYTES * len(self.savepoints)
        self.bytes += sum(map(read_bytes, self.reads))
        for key, value in self.writes.items():
            self.bytes += write_bytes(key, value)
        for savepoint in self.savepoints:
            self.bytes += sum(map(undo_bytes, savepoint.undo.values()))

    def _find(self, name: str) -> int:
        for index in range(len(self.savepoints) - 1, -1, -1):
            if self.savepoints[index].name == name:
                return index
        raise NoSavepoint(f"there is no savepoint {shown(name)} in this transaction; set it with SAVEPOINT first")

    def forget(self) -> None:
        """Drop everything, and give up the snapshot."""
        self.snapshot.close()
        self.writes.clear()
        self.reads.clear()
        self.savepoints.clear()
        self.bytes = 0


def read_bytes(read: str | Range) -> int:
    """What an entry of the read set takes in memory."""
    return ENTRY_BYTES + memory_of(read if isinstance(read, str) else read.low + (read.high or ""))


def write_bytes(key: str, value: Stored | None) -> int:
    """What an entry of the write set takes in memory."""
    return ENTRY_BYTES + memory_of(key) + stored_bytes(value)


def undo_bytes(before: Any) -> int:
    """What an undo record takes in memory; its key is counted with the write."""
    return ENTRY_BYTES + (0 if before is NOT_WRITTEN else stored_bytes(before))


def _part_read(whole: Range, met: str | None) -> Range:
    """What a scan has read: the whole range, or up to and including the key that it met last."""
    if met is None:
        return whole
    if whole.descending:
        return whole._replace(low=met)
    return whole._replace(high=met + "\0")  # the very next key in order


def _key_of(pair: tuple[str, Any]) -> str:
    return pair[0]


def cut_page(scan: Scan, pairs: Iterable[tuple[str, Any]]) -> Page:
    """Take from ordered pairs what fits into one page."""
    page = PageInMaking(scan)
    for key, value in pairs:
        if not page.add(key, value):
            return Page(page.items, key)
    return Page(page.items, None)
