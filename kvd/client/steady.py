"""Time for the client's limits and pauses, which goes on evenly when somebody sets the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock

OVERDUE = 0.5
"""Seconds after which an alarm that has not rung is set again."""


def steady(reactor: IReactorTime) -> IReactorTime:
    """Monotonic time on a real reactor. Anything else, such as a Clock, keeps time by itself and is returned as is."""
    return SteadyClock(reactor) if isinstance(reactor, ReactorBase) else reactor


class SteadyClock(Clock):
    """A clock that shows monotonic time, and has a reactor wake it for what is due first.

    Twisted's reactors keep time by the wall clock. If that is set forward they wake us too early, and we wait on. If
    it is set back they wake us too late; an asyncio reactor does not, since we ask its event loop. With the others,
    limits that have passed meanwhile take effect as soon as the client is used again.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        loop = getattr(reactor, "_asyncioEventloop", None)
        self._wake: Callable[..., Any] = reactor.callLater if loop is None else loop.call_later
        self._alarm: Any = None  # an IDelayedCall, or a TimerHandle
        self._rings_at = 0.0

    def seconds(self) -> float:
        """Monotonic time."""
        return monotonic()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        """Call a function after some seconds."""
        call = DelayedCall(monotonic() + delay, callable, args, kw, self._cancelled, self._moved, monotonic)
        self.calls.append(call)
        self._set_alarm()
        return call

    def _cancelled(self, call: DelayedCall) -> None:
        self.calls.remove(call)
        if not self.calls:
            self._set_alarm()

    def _moved(self, _: DelayedCall) -> None:
        self._set_alarm()

    def _set_alarm(self) -> None:
        now = monotonic()
        due = min((call.getTime() for call in self.calls), default=None)
        if self._alarm is not None:
            if due is not None and now - OVERDUE < self._rings_at <= due:
                return
            self._alarm.cancel()
            self._alarm = None
        if due is not None:
            self._rings_at = max(due, now)
            self._alarm = self._wake(self._rings_at - now, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        try:
            self.advance(0)
        finally:
            self._set_alarm()
