"""The keys that end, in the order of their ends, and the alarm that rings when one has.

Nothing depends on the alarm but that memory is freed while nobody asks: whoever reads looks at the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from sortedcontainers import SortedList

from kvd.interfaces import ServerClock

LONGEST_WAIT: Final = 3600.0
"""Seconds after which the alarm looks at the clock at the latest: a suspended machine's time counts as well."""


class Ends:
    """Which key ends when. It holds one entry for each key that ends, however often the end was moved.

    :param clock: the time by which keys end.
    :param call_later: calls a function after some seconds; None: there is no alarm.
    :param ring: is called when a key has ended.
    :ivar size: how many keys end.
    """

    def __init__(self, clock: ServerClock, call_later: Callable[..., Any] | None, ring: Callable[[], None]) -> None:
        self.clock: Final = clock
        self._call_later: Final = call_later
        self._ring: Final = ring
        self._order: Final = SortedList()  # pairs of end and key
        self.size = 0
        self._call: Any = None
        self._rings_at = 0

    def add(self, key: str, end: int) -> None:
        """A key ends."""
        self._order.add((end, key))
        self.size += 1

    def update(self, ends: list[tuple[int, str]]) -> None:
        """Many keys end."""
        self._order.update(ends)
        self.size += len(ends)

    def remove(self, key: str, end: int) -> None:
        """A key does not end then any more."""
        self._order.remove((end, key))
        self.size -= 1

    def due(self, now: int) -> bool:
        """Whether a key has ended that is still here."""
        if not self._order:
            return False
        first: tuple[int, str] = self._order[0]
        return first[0] <= now

    def ended(self, now: int, most: int) -> list[tuple[int, str]]:
        """Some of the keys that have ended, the earliest first, each behind its end."""
        found: list[tuple[int, str]] = []
        for entry in islice(self._order, most):
            if entry[0] > now:
                break
            found.append(entry)
        return found

    # The alarm.

    def wind(self) -> None:
        """See that the alarm rings when the next key has ended. There is one delayed call at most."""
        if self._call_later is None or not self._order:
            return
        end: int = self._order[0][0]
        if self._call is not None:
            if self._rings_at <= end:  # in time; if that key ends later by then, it is wound again
                return
            self._call.cancel()
        self._rings_at = end
        wait = min(LONGEST_WAIT, max(0, end - self.clock.now()) / 1000)
        self._call = self._call_later(wait, self._wake)

    def _wake(self) -> None:
        self._call = None
        if self.due(self.clock.now()):
            self._ring()
        else:
            self.wind()

    def stop(self) -> None:
        """Ring no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
