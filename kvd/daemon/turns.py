"""A run queue for long work, so that new requests of others are answered in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

SLICE = 0.005
"""Seconds that waiting turns take at most before the reactor looks for new requests; the last one may overrun it."""


class TurnQueue:
    """Turns that wait for each other, first come, first served.

    :param clock: the reactor, or a Clock.
    :param seconds: tells the time.
    :param before: is called before each slice of turns: it sends the replies that are ready.
    """

    def __init__(self, clock: IReactorTime, seconds: Callable[[], float], before: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._before = before
        self._turns: deque[Callable[[], object]] = deque()

    def add(self, turn: Callable[[], object]) -> None:
        """Have a turn taken after all that wait already."""
        self._turns.append(turn)
        if len(self._turns) == 1:
            self._clock.callLater(0, self._take)

    def wait(self) -> Deferred[None]:
        """A Deferred that fires when its turn has come."""
        come: Deferred[None] = Deferred()
        self.add(lambda: come.callback(None))
        return come

    def background(self, steps: Iterator[None]) -> None:
        """Take an iterator to its end, one step a turn."""

        def step() -> None:
            for _ in steps:
                self.add(step)
                break

        self.add(step)

    def _take(self) -> None:
        self._before()
        end = self._seconds() + SLICE
        for _ in range(len(self._turns)):  # those that come meanwhile wait for the next slice
            turn = self._turns[0]
            try:
                turn()
            finally:
                self._turns.popleft()
            if self._seconds() > end:
                break
        if self._turns:
            self._clock.callLater(0, self._take)
