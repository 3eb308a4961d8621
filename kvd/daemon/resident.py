"""What the process really takes in memory.

That can be much more than what is held for clients: memory that was given up leaves holes, and what comes next may
not fit into them. So nothing may grow while the process takes more than the limit, whatever the account says.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from kvd.accounts import Budget

EVERY: Final = 0.1
"""Seconds between two looks. In that time clients can't send more than some 40 MiB."""

TRIM_SHARE: Final = 20
"""Giving holes back to the system takes time; it is done for at most one part in so many of all time."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """The resident memory of this process; 0 where that can't be told."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


def give_back() -> None:
    """Give free memory back to the system, where the C library can do that (glibc)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class ResidentWatch:
    """Lets nothing grow while the process takes more than the limit.

    What it took when it began does not count.

    :param seconds: the time.
    """

    def __init__(self, budget: Budget, seconds: Callable[[], float]) -> None:
        self._budget = budget
        self._seconds = seconds
        self._most = budget.limit + resident_bytes()
        self._no_trim_before = 0.0

    def look(self) -> None:
        """See what the process takes now."""
        resident = resident_bytes()
        began = self._seconds()
        if resident > self._most and began >= self._no_trim_before:
            give_back()
            now = self._seconds()
            self._no_trim_before = now + TRIM_SHARE * (now - began)
            resident = resident_bytes()
        self._budget.set_crowded(resident > self._most)
        if self._budget.crowded:
            self._budget.give_up()  # one account a look: what it gives up shows in the next
