"""What open snapshots can still see: the values that commits replaced since, and who replaced them.

While no snapshot is open there is nothing to remember. While some are, a commit records what it
replaces. A record is what the snapshots of some span of versions see of one key, and it is kept in the
list of the newest open snapshot of that span. When that snapshot is closed, the record moves on to
the next older one if that one sees it too, and is dropped if not. So nothing is ever held that no
open snapshot can see.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from kvd.accounts import Account, memory_of
from kvd.interfaces import Range

RECORD_BYTES: Final = 250
"""What a record takes in memory beside the old value: itself, its places in two lists, and the key's entry."""


class Record:
    """The value that a key had from version ``since`` until the commit ``version`` replaced it."""

    __slots__ = ("by", "key", "old", "since", "version")

    def __init__(self, key: str, old: str | None, since: int, version: int, by: int) -> None:
        self.key: Final = key
        self.old: Final = old
        self.since: Final = since
        self.version: Final = version
        self.by: Final = by


def record_bytes(old: str | None) -> int:
    """What the record of an old value takes in memory."""
    return RECORD_BYTES + memory_of(old)


_version_of: Final = attrgetter("version")


class Mark:
    """The place of an open snapshot in the order of commits; a link in a chain from old to new.

    :param ended: is told why, if the store has to end the snapshot.
    """

    __slots__ = ("closed", "ended", "newer", "older", "records", "version")

    def __init__(self, version: int, older: Mark | None, ended: Callable[[str], None]) -> None:
        self.version = version
        self.ended = ended
        self.closed = False
        self.older = older
        self.newer: Mark | None = None
        self.records: list[Record] = []


class History:
    """The records of all open snapshots.

    :ivar size: how many records are held.
    :ivar account: holds the memory that they take.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.version = 0
        self.oldest: Mark | None = None
        self.newest: Mark | None = None
        self.size = 0
        self._records: dict[str, list[Record]] = {}

    def open(self, ended: Callable[[str], None]) -> Mark:
        """Begin to remember what commits replace from now on.

        :param ended: is told why, if the store has to end the snapshot.
        """
        mark = Mark(self.version, self.newest, ended)
        if self.newest is not None:
            self.newest.newer = mark
        else:
            self.oldest = mark
        self.newest = mark
        return mark

    def close(self, mark: Mark) -> list[str]:
        """Give a snapshot up.

        :return: the keys of which nothing is remembered any more.
        """
        mark.closed = True
        older, newer = mark.older, mark.newer
        if older is not None:
            older.newer = newer
        else:
            self.oldest = newer
        if newer is not None:
            newer.older = older
        else:
            self.newest = older
        mark.older = mark.newer = None  # its owner may keep it, and would keep them alive
        if self.newest is None:
            return self._forget_all(mark)
        freed = []
        all_records = self._records
        seen_since = older.version if older is not None else -1
        keep = older.records if older is not None else []
        for record in mark.records:
            if record.since <= seen_since:
                keep.append(record)
                continue
            self._count(-1, -record_bytes(record.old))
            records = all_records[record.key]
            if len(records) > 1:
                del records[bisect_right(records, record.version, key=_version_of) - 1]
            else:
                del all_records[record.key]
                freed.append(record.key)
        mark.records = []
        return freed

    def _forget_all(self, last: Mark) -> list[str]:
        """What is left to do when the last snapshot is closed: it is a few times faster than record by record."""
        freed = list(self._records)
        last.records = []
        self._records = {}
        self._count(-self.size, -self.account.held)
        return freed

    def replaced(self, key: str, old: str | None, by: int) -> None:
        """Record what the commit of the present version replaced, if an open snapshot can see it."""
        newest = self.newest
        if newest is None:
            return
        records = self._records.get(key)
        if records is None:
            self._records[key] = records = []
            since = 0
        else:
            since = records[-1].version
            if since > newest.version:
                return
        record = Record(key, old, since, self.version, by)
        records.append(record)
        newest.records.append(record)
        self._count(1, record_bytes(old))

    def _count(self, number: int, taken: int) -> None:
        self.size += number
        self.account.set(self.account.held + taken)

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

    def keys_after(self, mark: Mark, within: Range) -> set[str]:
        """The keys of a range that were changed after a snapshot.

        What was changed after it has a record that it sees, and that is held by it or by a newer one.
        """
        keys = set()
        each: Mark | None = mark
        while each is not None:
            for record in each.records:
                if within.holds(record.key):
                    keys.add(record.key)
            each = each.newer
        return keys
