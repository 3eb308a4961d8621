"""The journal of the SQLite store: appends each commit to the file, syncs it, and folds old commits.

Commits are gathered while a sync is under way, and appended together when it is over: so all clients share a sync, and
a page of the file is written once for all of them. A thread syncs. While it checkpoints, the connection to the file is
lent to it, and commits are gathered until it is given back.

What can't be written or synced is never tried again. Linux forgets after a failed sync that the pages were not
written, so the next one would succeed without them. The process ends, and the next one reads what there is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from kvd.accounts import MIB, Account
from kvd.errors import Unavailable
from kvd.interfaces import Host, Receipt, Stored, Writes
from kvd.stores.memory.journal import Contents, Journal
from kvd.stores.sqlite import format as layout
from kvd.stores.sqlite.disk import Disk
from kvd.stores.sqlite.file import File
from kvd.stores.sqlite.folding import Folder
from kvd.stores.sqlite.syncing import DiskThread, Worker

WAL_BYTES: Final = 4 * MIB
"""The ``-wal`` file is checkpointed when it has so many bytes; the smaller, the less time a checkpoint takes."""

AT_ONCE: Final = 4 * MIB
"""Characters of commits that are appended at a time."""

WAITING: Final = 64 * MIB
"""More characters of commits than this may not wait for a slow disk."""

ROW_BYTES: Final = 300
"""What a commit that waits takes in memory, beside its text."""

LOOK_EVERY: Final = 0.2
"""Seconds between two looks at the room on the disk, and for how long a commit relies on one."""


class SqliteJournal(Journal):
    """Keeps a store in a file.

    :param path: of the file, absolute.
    :param worker: waits for the disk; a thread if it is not given.
    """

    name = "sqlite"

    _file: File | None = None  # None: it can't be written any more, or not yet

    def __init__(self, path: str, worker: Worker | None = None) -> None:
        self._path: Final = path
        self._worker: Final = worker or DiskThread()
        self._rows: list[layout.Row] = []  # gathered, and not appended yet
        self._waiting = 0  # their characters
        self._asked = False  # they are written in the next turn of the loop
        self._busy = False  # the worker works
        self._lent = False  # and has the connection
        self._worker_error: Exception | None = None
        self._timer: Any = None
        self._folds = False  # in the background
        self._next_look = 0.0
        self._relies_until = 0.0  # on what was seen of the disk
        self._syncs = 0

    def start(self, host: Host, contents: Contents, synced: Callable[[int], None]) -> None:
        self._host = host
        self._tell_synced = synced
        self._account = Account(host.budget.data)
        self.promise = f"in the file {self._path}: {_cost(host.sync)}"
        file = File(self._path)
        try:
            self._folder = Folder(file, contents, host.receipt_times[0])
            self._load(file, contents)
            self._disk = Disk(os.path.dirname(self._path), file.unused_bytes)
        except BaseException:
            file.abandon()
            raise
        self._appended = self._synced = file.newest
        self._worker.start(host)
        self._file = file

    def _load(self, file: File, contents: Contents) -> None:
        began = told = self._host.seconds()
        number = 0

        def pairs() -> Iterator[list[tuple[str, Stored]]]:
            nonlocal number, told
            for piece in file.pairs():
                number += len(piece)
                now = self._host.seconds()
                if now - told > 2:
                    told = now
                    self._host.tell(f"{number} keys are loaded from {self._path}")
                yield piece

        contents.restore(pairs())
        now = self._host.clock.now()
        for piece in file.commits():
            for row, writes in piece:
                commit, at, _, user, name, committed, text, _ = row
                if commit > file.folded:
                    contents.repeat(writes)
                    self._folder.wrote(writes, len(text))
                if name:
                    contents.remember(Receipt(user or None, name), bool(committed), commit, max(0, now - at) / 1000)
                elif commit <= file.folded:
                    self._folder.left_over(commit)
        self._host.clock.not_before(max(file.time(), file.newest_time))
        contents.restored(file.newest, max(0, now - file.about("receipts_since")) / 1000)
        took = self._host.seconds() - began
        commits = file.newest - file.folded
        self._host.tell(f"{self._path} is loaded: {number} keys, and {commits} commits after them, in {took:.2f} s")

    # Commits.

    def admit(self, writes: Writes) -> None:
        now = self._host.seconds()
        if now >= self._relies_until or not self._disk.roomy:  # others may have filled it while nobody wrote here
            self._relies_until = now + LOOK_EVERY
            self._disk.look(at_file=not self._lent)
            self._disk.admit(writes, self._waiting)
        if self._waiting > WAITING:
            raise Unavailable(
                f"the disk is too slow: {self._waiting} characters wait to be written, and at most {WAITING} may; "
                "nothing was stored, try again"
            )

    def append(self, number: int, writes: Writes, by: int, receipt: Receipt | None, committed: bool) -> None:
        row = layout.row(number, self._host.clock.now(), writes, by, receipt, committed)
        size = len(row[6])
        self._rows.append(row)
        self._waiting += size
        self._folder.wrote(writes, size)
        if not self._asked and not self._must_wait():
            self._asked = True
            self._host.soon(self._write)

    def ended(self, keys: list[str]) -> None:
        self._folder.wrote(keys, 0)

    def _must_wait(self) -> bool:
        """Whether commits are gathered until the worker has done what it does."""
        return self._lent or (self._busy and not self._host.sync)

    def _write(self) -> None:
        """Append what was gathered, and see that it is synced."""
        self._asked = False
        file = self._file
        if file is None or self._must_wait():
            return
        with self._or_fail():
            if file.wal_bytes() > WAL_BYTES and not self._busy:
                self._lent = True
                self._work(file.checkpoint)
                return
            if self._rows:
                self._append(file)
            if self._host.sync:
                self._tell_synced(self._appended)
                if self._timer is None and self._appended > self._synced:
                    self._timer = self._host.reactor.callLater(self._host.sync, self._sync_now)
            elif self._appended > self._synced:
                self._work(file.sync)
            if self._rows and not self._must_wait():
                self._asked = True
                self._host.soon(self._write)

    def _append(self, file: File) -> None:
        """Append what was gathered, or some of it if that is much."""
        size = place = 0
        while place < len(self._rows) and size <= AT_ONCE:
            size += len(self._rows[place][6])
            place += 1
        rows, self._rows = self._rows[:place], self._rows[place:]
        file.append(rows)
        self._appended = rows[-1][0]
        self._waiting -= size
        self._account.set(self._waiting + len(self._rows) * ROW_BYTES + self._folder.memory())

    def _sync_now(self) -> None:
        self._timer = None
        if self._file is not None and not self._busy:
            self._work(self._file.sync)

    def _work(self, work: Callable[[], None]) -> None:
        """Have the worker sync, or checkpoint, which syncs as well."""
        self._busy = True
        number = self._appended

        def do() -> None:
            try:
                work()
            except Exception as error:
                self._worker_error = error  # a stop does not wait for the reactor to be told
                raise

        def done(problem: BaseException | None) -> None:
            if self._file is None:
                return
            if problem is not None:
                self._fail(problem)
            else:
                self._is_synced(number)

        self._worker.do(do, done)

    def _is_synced(self, number: int) -> None:
        self._busy = self._lent = False
        self._syncs += 1
        self._synced = number
        if not self._host.sync:
            self._tell_synced(number)
        self._write()
        if self._file is not None and not self._lent:
            with self._or_fail():
                self._look_after(self._file)

    @contextmanager
    def _or_fail(self) -> Iterator[None]:
        """What can't be written means that there is no way on."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def _fail(self, error: object) -> None:
        self._file = None
        self._host.failed(f"{self._path} can't be written: {error}")

    # Old commits.

    def _look_after(self, file: File) -> None:
        """Fold old commits if there are many, or if the disk is nearly full."""
        now = self._host.seconds()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self._disk.look()
            if not self._folder.active() and self._folder.is_due(self._appended, self._disk.is_low()):
                self._folder.begin(self._appended)
        if self._folder.active() and not self._folds:
            self._folds = True
            self._host.background(self._fold_on(file))

    def _fold_on(self, file: File) -> Iterator[None]:
        """Fold, until that is done or the connection is needed for something else."""
        with self._or_fail():
            while self._folder.active() and self._file is not None and not self._lent:
                if file.wal_bytes() > WAL_BYTES:
                    break
                if self._rows:
                    self._append(file)
                if not self._rows:  # else there were very many; they go first
                    self._fold_a_piece(file)
                yield
        self._folds = False
        self._write()
        if self._file is not None and not self._lent and not self._folder.active():
            self._next_look = 0.0  # what was appended meanwhile may be due; while all is refused, no commit asks for it
            with self._or_fail():
                self._look_after(file)

    def _fold_a_piece(self, file: File) -> None:
        with file.transaction():
            self._folder.step()

    def stop(self) -> None:
        self._worker.stop()
        if self._timer is not None:
            self._timer.cancel()
        if self._file is not None and self._worker_error is not None:
            self._fail(self._worker_error)
        file, self._file = self._file, None
        if file is not None:
            with self._or_fail():
                self._finish(file)

    def _finish(self, file: File) -> None:
        """Append the rest, fold everything, and close."""
        while self._rows:
            self._append(file)
        while self._folder.active():
            self._fold_a_piece(file)
        self._folder.begin(self._appended)
        while self._folder.active():
            if file.wal_bytes() > WAL_BYTES:
                file.checkpoint()
            self._fold_a_piece(file)
        file.close()

    def info(self) -> dict[str, Any]:
        file = self._file
        return {
            "file": self._path,
            "sync": self._host.sync or "always",
            "syncs": self._syncs,
            "commits_to_fold": 0 if file is None else self._appended - file.folded,
            "commits_to_sync": len(self._rows) + self._appended - self._synced,
            "disk_free": self._disk.free,
            "disk_reserve": self._disk.reserve,
        }


def _cost(sync: float) -> str:
    if not sync:
        return "what was acknowledged survives every crash"
    return f"a crash of the machine can cost the last {sync:g} s, and a crash of the process nothing"
