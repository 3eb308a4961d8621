"""The file of the SQLite store: opened by one process alone, checked, read, appended to, and closed.

SQLite is in WAL mode: a commit is only appended to the ``-wal`` file, and whoever wants it to be durable syncs that
file. There is exactly one connection, which locks the file: no other process can open it, and SQLite's fault that needs
two connections (https://sqlite.org/wal.html#walresetbug) can't occur.

**Nothing here may open and close the database file itself** while SQLite has it open: closing any descriptor of a file
drops all POSIX locks that the process has on it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import uuid4

from kvd.accounts import MIB
from kvd.interfaces import CannotOpen, Ending, Stored, Writes
from kvd.stores.sqlite import format as layout
from kvd.stores.sqlite.format import Row

PIECE: Final = 10_000
"""Rows that are read at a time."""

MOST_QUOTED: Final = 200
"""Characters of what SQLite says of damage that are told."""

_FRAME: Final = 24 + 4096
"""Bytes of a page in the ``-wal`` file, with its header; the file's own header has 32."""

_NOT_THE_FILE: Final = ("unable to open", "disk I/O error", "readonly", "is full", "out of memory")
"""What SQLite says where the fault is not in what the file holds."""


class File:
    """An open file.

    :param path: absolute; it is made if it does not exist.
    :raise CannotOpen: it can't be opened, or is not one that this store can read.
    :ivar folded: the number of the commit up to which commits are folded.
    :ivar newest: the number of the newest commit.
    :ivar newest_time: the newest time that a commit, of those that were read, has recorded.
    """

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self.newest_time = 0
        self._frames = 0
        self._salt = b""
        try:
            self._connection = self._open()
            self._wal = os.open(f"{path}-wal", os.O_RDWR)
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise self._cannot_open(error) from error

    def _cannot_open(self, error: Exception) -> CannotOpen:
        why = str(error)
        if "locked" in why:
            return CannotOpen(f"{self.path} is in use by another process; only one can have it open")
        if "readonly" in why and os.access(self.path, os.W_OK):
            return self.damaged("it says that it must not be written")
        if isinstance(error, OSError) or any(each in why for each in _NOT_THE_FILE):
            return CannotOpen(f"can't open {self.path}: {why}")
        if isinstance(error, UnicodeDecodeError):  # SQLite quotes the file
            why = "its tables are not described in UTF-8"
        return self.damaged(why)

    def damaged(self, how: str) -> CannotOpen:
        """The error for a file that can't be trusted."""
        how = " ".join(how.split())  # SQLite's words have more than one line, and may quote much
        return CannotOpen(
            f"{self.path} is damaged ({how[:MOST_QUOTED]}); put a backup in its place, or move it away to begin with "
            "an empty store"
        )

    def _open(self) -> sqlite3.Connection:
        with suppress(FileNotFoundError), open(self.path, "rb") as file:
            head = file.read(16)
            # If the power was lost while the file was made, anything may be there, and SQLite undoes it.
            if head and head != b"SQLite format 3\0" and not os.path.exists(f"{self.path}-journal"):
                raise CannotOpen(f"{self.path} is not a file of kvd; name another one")
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")  # takes the lock; it stays when the transaction ends
            self._check_kind(connection)
            connection.execute("COMMIT")
            self._sync_directory()
            self._write_wal_anew()
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise self.damaged(found)
            tables = connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table'").fetchall()
            if {sql for (sql,) in tables} != {*layout.TABLES}:
                raise self.damaged("its tables are not those that were made")
            _checkpoint(connection, "TRUNCATE")
            self.folded: int = self._about(connection, "folded")
            self._checkpoints: int = self._about(connection, "checkpoints")
            (newest,) = connection.execute("SELECT max(number) FROM commits").fetchone()
            self.newest = max(self.folded, newest or 0)
            connection.execute(  # the first write makes the -wal file anew
                "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (self.newest + 1, uuid4().hex, layout.now())
            )
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application == layout.APPLICATION:
            if version > layout.VERSION:
                raise CannotOpen(
                    f"{self.path} was written by a later version of kvd (its format is {version}, and this one knows "
                    f"{layout.VERSION}); install that version"
                )
            return
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
            raise CannotOpen(f"{self.path} is an SQLite database, but not one of kvd; name another file")
        layout.create(connection)

    def _sync_directory(self) -> None:
        directory = os.open(os.path.dirname(self.path), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write_wal_anew(self) -> None:
        """Write what an earlier process left in the ``-wal`` file over itself, and sync that.

        If a sync had failed there, some of it is in the system's cache alone, and taken for written. A checkpoint would
        move it to the database; a power loss in the middle would leave half of it there, and nothing to mend that with.
        """
        with suppress(FileNotFoundError), open(f"{self.path}-wal", "r+b", buffering=0) as file:
            place = 0
            while piece := os.pread(file.fileno(), MIB, place):
                place += os.pwrite(file.fileno(), piece, place)
            os.fdatasync(file.fileno())

    # What is read at the start.

    def about(self, name: str) -> Any:
        """What the file says about itself."""
        return self._about(self._connection, name)

    def _about(self, connection: sqlite3.Connection, name: str) -> Any:
        found = connection.execute("SELECT value, sum FROM about WHERE name = ?", (name,)).fetchone()
        if found is None or found[1] != layout.about_sum(name, found[0]):
            raise self.damaged(f"what it says of {name!r} is wrong")
        return found[0]

    def time(self) -> int:
        """The time that was recorded when commits were folded; the first files have none."""
        there = self._connection.execute("SELECT 1 FROM about WHERE name = 'time'").fetchone()
        return 0 if there is None else int(self.about("time"))

    def pairs(self) -> Iterator[list[tuple[str, Stored]]]:
        """The folded pairs in the order of their keys, a piece at a time.

        :raise CannotOpen: the file is damaged, or this version of kvd can't read it.
        """
        pair_sum = layout.pair_sum
        before = ""
        for found in self._pieces("SELECT key, value, ends, sum FROM folded ORDER BY key"):
            pairs: list[tuple[str, Stored]] = []
            with self._summing():
                for key, value, ends, total in found:
                    if total != pair_sum(key, value, ends):
                        raise self.damaged(f"the sum of the key {key!r} is wrong")
                    if key <= before:  # a page of the file is in a wrong place
                        raise self.damaged(f"the key {key!r} is out of order")
                    before = key
                    pairs.append((key, value if ends is None else Ending(value, ends)))
            yield pairs

    def commits(self) -> Iterator[list[tuple[Row, Writes]]]:
        """All commits that are there, from old to new, each with its writes if it is not folded."""
        expected = self.folded + 1
        for found in self._pieces("SELECT * FROM commits ORDER BY number"):
            piece = []
            with self._summing():
                for row in found:
                    number, at, _, user, name, committed, text, total = row
                    if name or total != layout.row_sum(number, at, user, name, committed, text):
                        if total != layout.row_sum(number, at, user, name, committed, text, True):
                            raise self.damaged(f"the sum of commit {number} is wrong")
                        self.newest_time = max(self.newest_time, at)
                    if number > self.folded:
                        if number != expected:
                            raise self.damaged(f"commit {expected} is missing")
                        expected += 1
                    piece.append((row, self._writes(text) if number > self.folded else {}))
            yield piece

    @contextmanager
    def _summing(self) -> Iterator[None]:
        """Bytes that are not text have no sum."""
        try:
            yield
        except AttributeError as error:
            raise self.damaged("what should be a text is none") from error

    def _pieces(self, query: str) -> Iterator[list[Any]]:
        """The rows that a query finds, a piece at a time. The caller computes the sum of each."""
        try:
            rows = self._connection.execute(query)
            while found := rows.fetchmany(PIECE):
                yield found
        except sqlite3.Error as error:
            raise self._cannot_open(error) from error

    def _writes(self, text: str) -> Writes:
        writes: Writes = {}
        for item in json.loads(text):
            if not isinstance(item, list) or not 2 <= len(item) <= 3:
                raise self._too_new("commits of another kind")
            key, value = layout.text_of(item[0]), None if item[1] is None else layout.text_of(item[1])
            writes[key] = value if value is None or len(item) == 2 else Ending(value, item[2])
        return writes

    def _too_new(self, what: str) -> CannotOpen:
        return CannotOpen(
            f"{self.path} has {what}, which this version of kvd does not know; install the one that wrote it"
        )

    # What is written.

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of SQLite's. After it, what was written is in the ``-wal`` file, and not durable yet."""
        self._connection.execute("BEGIN IMMEDIATE")
        yield
        self._connection.execute("COMMIT")

    def append(self, rows: list[Row]) -> None:
        """Append commits, as a transaction of SQLite's."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")

    def fold(self, pairs: list[tuple[str, Stored]]) -> None:
        """Write pairs into the table of pairs."""
        layout.insert_pairs(self._connection, [_in_parts(*pair) for pair in pairs])

    def fold_removed(self, keys: list[str]) -> None:
        """Remove keys from the table of pairs."""
        self._connection.executemany("DELETE FROM folded WHERE key = ?", [(key,) for key in keys])

    def folded_keys(self, low: str, most: int) -> list[str]:
        """Some keys of the table of pairs in their order, from one on."""
        rows = self._connection.execute("SELECT key FROM folded WHERE key >= ? ORDER BY key LIMIT ?", (low, most))
        return [key for (key,) in rows]

    def set_folded(self, number: int, time: int) -> None:
        """All commits up to that number are folded.

        :param time: is recorded, because their rows will be gone.
        """
        self.set_about("time", time)
        self.set_about("folded", number)
        self.folded = number

    def set_about(self, name: str, value: Any) -> None:
        """Say something about the file."""
        total = layout.about_sum(name, value)
        self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?, ?)", (name, value, total))

    def forget_commits(self, first: int, last: int) -> None:
        """Remove folded commits without a receipt."""
        self._connection.execute("DELETE FROM commits WHERE number BETWEEN ? AND ? AND receipt = ''", (first, last))

    def forget_receipts(self, before: int, last: int, most: int) -> bool:
        """Remove folded commits that were kept for their receipts and are too old.

        :param before: the time, in milliseconds since 1970 UTC.
        :param last: the newest commit that may be removed.
        :param most: how many are looked at.
        :return: whether there may be more.
        """
        found = self._connection.execute(
            "SELECT number, at FROM commits WHERE number <= ? ORDER BY number LIMIT ?", (last, most)
        ).fetchall()
        old = []
        for number, at in found:
            if at >= before:
                break
            old.append((number, at))
        if old:
            self._connection.execute("DELETE FROM commits WHERE number <= ?", (old[-1][0],))
            self.set_about("receipts_since", old[-1][1])
        return len(old) == most

    def sync(self) -> None:
        """Make all that was appended durable."""
        os.fdatasync(self._wal)

    def checkpoint(self) -> None:
        """Move what is in the ``-wal`` file to the database file, and begin with its first page again.

        This syncs both files, which takes long, and so does the next write, which is done here for that reason.
        """
        _checkpoint(self._connection, "FULL")
        self._checkpoints += 1
        self.set_about("checkpoints", self._checkpoints)

    def abandon(self) -> None:
        """Close it without having written anything."""
        self._connection.close()
        os.close(self._wal)

    def close(self) -> None:
        """Checkpoint, and close."""
        _checkpoint(self._connection, "TRUNCATE")
        self._connection.close()
        os.close(self._wal)

    # Figures.

    def wal_bytes(self) -> int:
        """How much of the ``-wal`` file is in use: its frames have the salt that its header has."""
        salt = os.pread(self._wal, 8, 16)
        if salt != self._salt:
            self._salt, self._frames = salt, 0
        while os.pread(self._wal, 8, 32 + self._frames * _FRAME + 8) == salt:
            self._frames += 1
        return self._frames * _FRAME

    def unused_bytes(self) -> int:
        """Bytes of pages in the file that hold nothing any more and will be used again."""
        (pages,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        return int(pages) * 4096


def _in_parts(key: str, stored: Stored) -> tuple[str, str, int | None]:
    return (key, stored.value, stored.end) if isinstance(stored, Ending) else (key, stored, None)


def _checkpoint(connection: sqlite3.Connection, how: str) -> None:
    busy, pages, moved = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    if busy or pages != moved:
        raise sqlite3.OperationalError(f"a checkpoint moved {moved} of {pages} pages")
