"""Folding: writes what was changed since the last time into the table of pairs, in the order of the keys, in pieces.

A commit is appended, which is quick; but the commits would grow for ever. In the order of the keys each page of the
table is written once for all changes on it. While that goes on, further commits are appended. It does no harm that a
piece may hold some of what they wrote: at a start all commits that are not folded are applied again, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from kvd.accounts import MIB
from kvd.interfaces import Stored, text_in
from kvd.stores.memory.journal import Contents
from kvd.stores.sqlite.file import File

FEW: Final = 1_000_000
FEW_BYTES: Final = 256 * MIB
"""So many commits, and so many characters of them, need not be folded; nor half as much as the store holds."""

PIECE: Final = 100
"""Changed keys that are written at a time."""

PIECE_BYTES: Final = MIB
"""A piece ends when its values have come to so many characters."""

LOOK: Final = 2000
"""Keys that are looked at, and commits that are removed, at a time."""

CHANGED_BYTES: Final = 200
"""What a key takes in memory that was changed since commits were last folded."""


class Folder:
    """Knows what is not folded, and folds it.

    :param receipt_time: seconds for which commits are kept for their receipts.
    """

    def __init__(self, file: File, contents: Contents, receipt_time: float) -> None:
        self._file: Final = file
        self._contents: Final = contents
        self._receipt_time: Final = receipt_time
        self._changed: set[str] = set()  # keys that commits wrote that are not folded
        self._bytes = 0  # characters of those commits
        self._steps: Iterator[None] | None = None
        self._done_bytes = 0
        self._forgotten = file.folded  # older commits are there for their receipts alone

    def wrote(self, keys: Iterable[str], size: int) -> None:
        """A commit is to be folded one day.

        :param size: its characters.
        """
        self._changed.update(keys)
        self._bytes += size

    def left_over(self, number: int) -> None:
        """A folded commit is still there, because the daemon was killed before it could remove it."""
        self._forgotten = min(self._forgotten, number - 1)

    def memory(self) -> int:
        """What is kept here takes so many bytes."""
        return len(self._changed) * CHANGED_BYTES

    def active(self) -> bool:
        """Whether it has begun, and is not done."""
        return self._steps is not None

    def is_due(self, newest: int, hurry: bool) -> bool:
        """Whether it is time to fold.

        :param newest: the number of the newest commit that was appended.
        :param hurry: room is needed: pages that are given up can be used again.
        """
        commits = newest - self._file.folded
        if hurry:
            return commits > 0
        keys, held = self._contents.size()
        return commits > max(FEW, keys // 2) or self._bytes > max(FEW_BYTES, held // 2)

    def begin(self, newest: int) -> None:
        """Begin to fold all commits up to the newest; it was appended."""
        changed, self._changed = self._changed, set()
        self._done_bytes = self._bytes
        self._steps = self._fold(changed, newest)

    def step(self) -> None:
        """Go on for a bit. The caller has appended all commits before, and is in a transaction of SQLite's."""
        if self._steps is not None:
            for _ in self._steps:
                return
            self._steps = None
            self._bytes -= self._done_bytes

    def _fold(self, changed: set[str], last: int) -> Iterator[None]:
        yield from self._fold_changed(changed)
        yield from self._fold_removed(changed)
        file = self._file
        file.set_folded(last, self._contents.now())
        for first in range(self._forgotten + 1, last + 1, LOOK):
            file.forget_commits(first, min(first + LOOK - 1, last))
            yield
        self._forgotten = last
        before = self._contents.now() - int(min(self._receipt_time, 1e9) * 1000)
        while file.forget_receipts(before, last, LOOK):
            yield

    def _fold_changed(self, changed: set[str]) -> Iterator[None]:
        """Write the keys that are there; the others stay in ``changed``."""
        low = ""
        while changed and (keys := self._contents.keys_from(low, LOOK)):
            pairs: list[tuple[str, Stored]] = []
            size = 0
            for key in keys:
                low = key + "\0"
                if key in changed:
                    changed.remove(key)
                    stored = self._contents.value(key) or ""
                    pairs.append((key, stored))
                    size += len(text_in(stored) or "")
                    if len(pairs) == PIECE or size >= PIECE_BYTES:
                        break
            self._file.fold(pairs)
            yield

    def _fold_removed(self, changed: set[str]) -> Iterator[None]:
        """Remove the keys that are not there. What was put meanwhile is folded the next time."""
        value = self._contents.value
        if len(changed) <= LOOK:
            self._file.fold_removed([key for key in changed if value(key) is None])
            return
        low = ""
        while keys := self._file.folded_keys(low, LOOK):
            self._file.fold_removed([key for key in keys if key in changed and value(key) is None])
            low = keys[-1] + "\0"
            yield
