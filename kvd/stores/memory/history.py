"""What open snapshots can still see: the values that commits replaced since, and who replaced them.

While no snapshot is open there is nothing to remember. While some are, a commit records what it replaces. A record is
what the snapshots of some span of versions see of one key, and it is kept in the list of the newest open snapshot of
that span. When that snapshot is closed, the record moves on to the next older one if that one sees it too, and is
dropped if not. So nothing is ever held that no open snapshot can see.

A snapshot that holds many records is closed in the background, a piece at a time. Until that is done it stays in the
chain, and is as good as closed to everybody else.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final

from kvd.accounts import Account, memory_of
from kvd.interfaces import Range, Stored, stored_bytes

RECORD_BYTES: Final = 250
"""What a record takes in memory beside key and old value: itself, its places in two lists, and the key's entry."""

AT_ONCE: Final = 500
"""Records that are let go of at once; more than that in pieces of so many."""


class Record:
    """The value that a key had from version ``since`` until the commit ``version`` replaced it."""

    __slots__ = ("by", "key", "old", "since", "version")

    def __init__(self, key: str, old: Stored | None, since: int, version: int, by: int) -> None:
        self.key: Final = key
        self.old: Final = old
        self.since: Final = since
        self.version: Final = version
        self.by: Final = by


def record_bytes(key: str, old: Stored | None) -> int:
    """What a record takes in memory."""
    return RECORD_BYTES + memory_of(key) + stored_bytes(old)


_version_of: Final = attrgetter("version")


class Mark:
    """The place of an open snapshot in the order of commits; a link in a chain from old to new.

    :param time: when it was taken; 0 if no key had an end then.
    :param ended: is told why, if the store has to end the snapshot.
    :ivar busy: whether a commit on it is under way, which must be left to finish.
    :ivar bytes: what its records take in memory.
    """

    __slots__ = ("busy", "bytes", "closed", "ended", "newer", "older", "records", "time", "version")

    def __init__(self, version: int, time: int, older: Mark | None, ended: Callable[[str], None]) -> None:
        self.version: Final = version
        self.time: Final = time
        self.ended: Final = ended
        self.closed = False
        self.busy = False
        self.older = older
        self.newer: Mark | None = None
        self.records: list[Record] = []
        self.bytes = 0


class History:
    """The records of all open snapshots.

    :param account: holds the memory that they take.
    :param freed: is told each key of which nothing is remembered any more.
    :param background: takes an iterator to its end, a step at a time.
    :ivar version: the number of the newest commit, counted while snapshots are open.
    :ivar open: how many snapshots are open.
    :ivar size: how many records are held.
    :ivar watchers: lists that are told the keys of each commit.
    """

    def __init__(
        self, account: Account, freed: Callable[[str], None], background: Callable[[Iterator[None]], None]
    ) -> None:
        self.account: Final = account
        self.version = 0
        self.open = 0
        self.oldest: Mark | None = None
        self.newest: Mark | None = None
        self.size = 0
        self.watchers: list[list[str]] = []
        self._freed: Final = freed
        self._background: Final = background
        self._records: dict[str, list[Record]] = {}

    # Snapshots.

    def begin(self, ended: Callable[[str], None], time: int = 0) -> Mark:
        """Begin to remember what commits replace from now on.

        :param ended: is told why, if the store has to end the snapshot.
        :param time: when that is. If a key has ended since the last snapshot, its end takes effect by a commit, as any
            change does; so there must have been one.
        """
        mark = Mark(self.version, time, self.newest, ended)
        if self.newest is not None:
            self.newest.newer = mark
        else:
            self.oldest = mark
        self.newest = mark
        self.open += 1
        return mark

    def close(self, mark: Mark) -> None:
        """Give a snapshot up."""
        mark.closed = True
        self.open -= 1
        if not self.open:
            self._forget_all()
        elif len(mark.records) <= AT_ONCE:
            if mark.records:
                self._let_go(mark, AT_ONCE)
            self._unlink(mark)
        else:
            self._background(self._let_go_in_pieces(mark))

    def hurry(self, mark: Mark, most: int) -> None:
        """Let go of some more records of a closed snapshot now, because memory is short."""
        self._let_go(mark, most)

    def _let_go_in_pieces(self, mark: Mark) -> Iterator[None]:
        while mark.records:
            self._let_go(mark, AT_ONCE)
            yield None
        self._unlink(mark)

    def _let_go(self, mark: Mark, most: int) -> None:
        """Pass some records of a closed snapshot on to the next older one, or drop what that one does not see."""
        older = mark.older
        seen_since = older.version if older is not None else -1
        rest = len(mark.records) - most
        for record in mark.records[max(0, rest) :]:
            if older is not None and record.since <= seen_since:
                older.records.append(record)
                size = record_bytes(record.key, record.old)
                older.bytes += size
                mark.bytes -= size
            else:
                self._drop(mark, record)
        del mark.records[max(0, rest) :]

    def _drop(self, mark: Mark, record: Record) -> None:
        size = record_bytes(record.key, record.old)
        mark.bytes -= size
        self._count(-1, -size)
        records = self._records.get(record.key)
        if records is None:
            return
        if len(records) > 1:
            del records[bisect_right(records, record.version, key=_version_of) - 1]
        else:
            del self._records[record.key]
            self._freed(record.key)

    def _unlink(self, mark: Mark) -> None:
        older, newer = mark.older, mark.newer
        mark.older = mark.newer = None  # its owner may keep it, and would keep them alive
        if older is not None:
            older.newer = newer
        elif self.oldest is mark:
            self.oldest = newer
        if newer is not None:
            newer.older = older
        elif self.newest is mark:
            self.newest = older

    def _forget_all(self) -> None:
        """The last snapshot is closed: start afresh. What there was is freed in the background if it is much."""
        marks = []
        mark = self.oldest
        while mark is not None:
            marks.append(mark)
            following = mark.newer
            mark.older = mark.newer = None
            mark = following
        self.oldest = self.newest = None
        records, self._records = self._records, {}
        self._count(-self.size, -self.account.held)
        steps = self._free(records, [mark.records for mark in marks])
        for mark in marks:
            mark.records = []  # for those that are being let go of in pieces
            mark.bytes = 0
        if len(records) <= AT_ONCE:
            for _ in steps:
                pass
        else:
            self._background(steps)

    def _free(self, records: dict[str, list[Record]], lists: list[list[Record]]) -> Iterator[None]:
        while records:
            for _ in range(min(AT_ONCE, len(records))):
                key, _records = records.popitem()
                if key not in self._records:
                    self._freed(key)
            yield None
        for each in lists:
            while each:
                del each[-AT_ONCE:]
                yield None

    # Commits.

    def commits(self) -> None:
        """A commit begins."""
        self.version += 1

    def replaced(self, key: str, old: Stored | None, by: int) -> None:
        """Record what the commit of the present version replaced, if an open snapshot can see it."""
        if self.newest is not None:
            self._record(self.newest, key, old, self.version, by)

    def _record(self, mark: Mark, key: str, old: Stored | None, version: int, by: int) -> None:
        """Record what the commit of a version replaced, if a snapshot can see it: the newest one before the commit."""
        records = self._records.get(key)
        if records is None:
            self._records[key] = records = []
            since = 0
        else:
            since = records[-1].version
            if since > mark.version:
                return
        record = Record(key, old, since, version, by)
        records.append(record)
        mark.records.append(record)
        size = record_bytes(key, old)
        mark.bytes += size
        self._count(1, size)

    def remembers(self, key: str) -> bool:
        """Whether there is a record of a key."""
        return key in self._records

    # Keys that end.

    def before(self, end: int) -> tuple[Mark, int] | None:
        """Where an end belongs in the order of commits, though it is noted later than it happened.

        :return: the newest snapshot that was taken before it, and the version by which the key has ended: that of the
            next snapshot, to which it was gone already. None: no open snapshot was taken before it.
        """
        mark = self.newest
        newer: Mark | None = None
        while mark is not None and mark.time >= end:
            newer = mark
            mark = mark.older
        if mark is None:
            return None
        if newer is not None:
            return mark, newer.version
        self.commits()
        return mark, self.version

    def ended(self, place: tuple[Mark, int], key: str, old: Stored) -> None:
        """Record that a key has ended, which is a change by nobody.

        :param place: what :meth:`before` said of its end.
        """
        mark, version = place
        self._record(mark, key, old, version, 0)

    def _count(self, number: int, taken: int) -> None:
        self.size += number
        self.account.set(self.account.held + taken)

    # What snapshots ask.

    def change_after(self, key: str, version: int) -> Record | None:
        """The first change of a key after a version; its ``old`` is the value at that version.

        The answer is right for every version at which a snapshot is open.
        """
        records = self._records.get(key)
        if records is None or records[-1].version <= version:
            return None
        return records[bisect_right(records, version, key=_version_of)]

    def how_many_after(self, mark: Mark) -> int:
        """An upper bound for the number of keys that were changed after a snapshot."""
        number = 0
        each: Mark | None = mark
        while each is not None:
            number += len(each.records)
            each = each.newer
        return number

    def records_after(self, mark: Mark) -> list[Record]:
        """The records of all keys that were changed after a snapshot, and perhaps some more.

        What was changed after it has a record that it sees, and that is held by it or by a newer one.
        """
        found: list[Record] = []
        each: Mark | None = mark
        while each is not None:
            found.extend(each.records)
            each = each.newer
        return found

    def keys_after(self, mark: Mark, within: Range) -> set[str]:
        """The keys of a range that were changed after a snapshot, and perhaps some more."""
        return {record.key for record in self.records_after(mark) if within.holds(record.key)}
