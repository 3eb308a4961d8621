"""The room on the disk: what grows is refused while there is little, so that the disk is never really full."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from kvd.accounts import MIB
from kvd.errors import Unavailable
from kvd.interfaces import Writes, text_in

RESERVE: Final = (8 * MIB, 64 * MIB)
"""The least and the most bytes that are kept free: an eighth of the disk, within these bounds."""

LAST: Final = 4
"""With less than one part of the reserve in so many, removals are refused as well."""

ROOMY: Final = 256 * MIB
"""With so much above the reserve, nobody asks how large a commit is."""


class Disk:
    """The disk that a file is on.

    :param directory: of the file.
    :param unused: tells how many bytes of the file can be used again.
    :ivar free: bytes that were free at the last look, the unused ones among them.
    :ivar roomy: whether there is so much that no commit needs a closer look.
    :ivar reserve: bytes that are kept free.
    """

    def __init__(self, directory: str, unused: Callable[[], int]) -> None:
        self._directory: Final = directory
        self._unused: Final = unused
        self._unused_then = 0
        self.reserve = 0
        self.free = 0
        self.roomy = False
        self.look()

    def look(self, at_file: bool = True) -> None:
        """See how much is free now.

        :param at_file: whether the file may be asked; if not, as much of it is unused as the last time.
        """
        found = os.statvfs(self._directory)
        least, most = RESERVE
        self.reserve = min(most, max(least, found.f_blocks * found.f_frsize // 8))
        if at_file:
            self._unused_then = self._unused()
        self.free = found.f_bavail * found.f_frsize + self._unused_then
        self.roomy = self.free > self.reserve + ROOMY

    def is_low(self) -> bool:
        """Whether there is no more than the reserve."""
        return self.free <= self.reserve

    def admit(self, writes: Writes, waiting: int) -> None:
        """Refuse a commit for which there is no room.

        :param waiting: characters of commits that were admitted, and are not written yet.
        :raise kvd.errors.Unavailable: there is none.
        """
        if self.roomy:
            return
        size = sum([len(key) + len(text_in(value) or "") for key, value in writes.items() if value is not None])
        if size == 0:  # it removes something, or settles a receipt
            if self.free > self.reserve // LAST:
                return
        elif self.free - self.reserve > 4 * (waiting + size):  # at most four bytes a character
            return
        raise Unavailable(
            f"the disk is nearly full: {max(self.free, 0)} bytes are free, and {self.reserve} are kept in reserve; "
            "nothing was stored; reading and DEL still work"
        )
