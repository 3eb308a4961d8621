"""What a memory store tells to whatever makes its commits durable, and which of them are not yet.

A commit is applied and answered at once; its key is remembered here until it is durable, so that whoever reads it
meanwhile can be told from those who read something else. See :class:`kvd.interfaces.Store` for what is done with that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from kvd.compiler import mypyc_attr
from kvd.interfaces import Host, Receipt, Writes


@mypyc_attr(allow_interpreted_subclasses=True)
class Journal(ABC):
    """Makes commits durable, in the order of their numbers."""

    @abstractmethod
    def start(self, host: Host) -> None:
        """The store starts."""

    @abstractmethod
    def append(self, number: int, writes: Writes, by: int, receipt: Receipt | None, committed: bool) -> None:
        """Take a commit that was applied. :meth:`Unsynced.synced` is to be called when it is durable.

        :param committed: if not, nothing was committed: the receipt was settled.
        """


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
