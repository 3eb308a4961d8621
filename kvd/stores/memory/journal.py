"""What a memory store tells to whatever makes its commits durable, and which of them are not yet.

A commit is applied and answered at once; its key is remembered here until it is durable, so that whoever reads it
meanwhile can be told from those who read something else. See :class:`kvd.interfaces.Store` for what is done with that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from kvd.compiler import mypyc_attr
from kvd.interfaces import Host, Receipt, Stored, Writes


@mypyc_attr(allow_interpreted_subclasses=True)
class Contents(ABC):
    """What a store holds, as its journal sees it."""

    @abstractmethod
    def now(self) -> int:
        """The time by which keys end."""

    @abstractmethod
    def restore(self, pairs: Iterator[list[tuple[str, Stored]]]) -> None:
        """Take all pairs from the disk, in the order of their keys, a piece at a time."""

    @abstractmethod
    def repeat(self, writes: Writes) -> None:
        """Apply a commit from the disk."""

    @abstractmethod
    def remember(self, receipt: Receipt, committed: bool, number: int, age: float) -> None:
        """Take a receipt from the disk, the oldest first.

        :param number: of the commit that it came with.
        :param age: seconds since then.
        """

    @abstractmethod
    def restored(self, number: int, complete: float) -> None:
        """Everything was taken from the disk.

        :param number: of the newest commit.
        :param complete: for how many seconds back all receipts are there.
        """

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """The number of keys, and the bytes of memory that the pairs take."""

    @abstractmethod
    def value(self, key: str) -> Stored | None:
        """What a key holds, or None."""

    @abstractmethod
    def keys_from(self, low: str, most: int) -> list[str]:
        """Some keys in their order, from one on."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Journal(ABC):
    """Makes the commits of a store durable, in the order of their numbers.

    :ivar name: what ``--store`` calls a store with this journal.
    :ivar promise: what happens to its data when the server ends.
    """

    name = "memory"
    promise = "for tests"

    @abstractmethod
    def start(self, host: Host, contents: Contents, synced: Callable[[int], None]) -> None:
        """Open what the commits are written to, and restore what was written earlier.

        :param synced: is to be told that all commits up to a number are durable.
        :raise kvd.interfaces.CannotOpen: that is not possible.
        """

    @abstractmethod
    def admit(self, writes: Writes) -> None:
        """Refuse a commit that can't be written down.

        :raise kvd.errors.Unavailable: there is no room for it.
        """

    @abstractmethod
    def append(self, number: int, writes: Writes, by: int, receipt: Receipt | None, committed: bool) -> None:
        """Take a commit that was applied.

        :param writes: may be empty: the commit records the time, which is :meth:`Contents.now`, or a receipt.
        :param committed: if not, nothing was committed: the receipt was settled.
        """

    @abstractmethod
    def ended(self, keys: list[str]) -> None:
        """Learn that some keys have ended, and were removed. The time of that was recorded by a commit."""

    @abstractmethod
    def stop(self) -> None:
        """Make everything durable, and close."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Figures for INFO."""


class Unsynced:
    """Which keys were written by commits that are not durable yet.

    :ivar number: that of the newest commit.
    :ivar durable: that of the newest one that is durable.
    """

    def __init__(self) -> None:
        self.number = 0
        self.durable = 0
        self._written: dict[str, int] = {}  # the newest such commit of each key
        self._waiting: Final[deque[tuple[int, list[str]]]] = deque()

    def committed(self, writes: Writes) -> int:
        """Give the next commit its number."""
        self.number += 1
        for key in writes:
            self._written[key] = self.number
        self._waiting.append((self.number, list(writes)))
        return self.number

    def also(self, number: int, keys: list[str]) -> None:
        """The commit of that number, though it may not be the newest, has removed some more keys."""
        if number > self.durable:
            for key in keys:
                self._written[key] = number
            self._waiting.append((number, keys))

    def of(self, keys: list[str]) -> int:
        """The newest commit, not yet durable, that wrote one of some keys; 0: none did."""
        newest = 0
        for key in keys:
            number = self._written.get(key)
            if number is not None and number > newest:
                newest = number
        return newest

    def newest(self) -> int:
        """The newest commit, if it is not durable yet; else 0."""
        return self.number if self.number > self.durable else 0

    def synced(self, number: int) -> None:
        """All commits up to that number are durable."""
        self.durable = number
        while self._waiting and self._waiting[0][0] <= number:
            commit, keys = self._waiting.popleft()
            for key in keys:
                if self._written[key] == commit:
                    del self._written[key]
