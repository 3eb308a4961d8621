"""Waiting for Deferreds, so that none fails unheard, and none is waited for after the client is disconnected."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvd.errors import Unavailable

T = TypeVar("T")


def ignore(_: Any) -> None:
    """Nobody wants to know."""


def abandon(deferred: Deferred[Any]) -> None:
    """Cancel a Deferred for which nobody waits any more."""
    deferred.addErrback(ignore)
    deferred.cancel()


async def wait_for(deferred: Deferred[T]) -> T:
    """Wait for a Deferred, and abandon it if the waiting coroutine can't go on.

    The coroutine may have been closed. Or whoever runs it can't wait for a Deferred, such as an asyncio task, which
    raises a RuntimeError here.
    """
    # Not waited for directly: what is abandoned may fire at once, and must not wake a coroutine that is being closed.
    waiting: Deferred[T] = Deferred(lambda _: deferred.cancel())
    wanted = True

    def fire(result: Any) -> None:
        if wanted:
            pass_on(result, waiting)

    deferred.addBoth(fire)
    try:
        return await waiting
    except BaseException:
        wanted = False
        waiting.addErrback(ignore)  # it may have failed, and the coroutine not have heard of it
        abandon(deferred)
        raise


def pass_on(result: Any, deferred: Deferred[Any]) -> None:
    """Fire a Deferred with the result, or the failure, of another."""
    if isinstance(result, Failure):
        deferred.errback(result)
    else:
        deferred.callback(result)


class Lifetime:
    """The life of a client, which ends when it is disconnected.

    :ivar over: whether it has ended.
    """

    def __init__(self) -> None:
        self.over = False
        self._bound: dict[Deferred[Any], Deferred[Any]] = {}  # what is waited for, by what was returned; in order

    def bind(self, deferred: Deferred[T]) -> Deferred[T]:
        """A Deferred of the same result. It fails with Unavailable if the client is disconnected first.

        When it is cancelled, it fails with CancelledError and nothing else, and the original is abandoned.
        """
        bound: Deferred[T] = Deferred(self._abandon)
        if self.over:
            abandon(deferred)
            bound.errback(disconnected())
            return bound
        self._bound[bound] = deferred
        deferred.addBoth(self._fire, bound)
        return bound

    def _abandon(self, bound: Deferred[Any]) -> None:
        if (deferred := self._bound.pop(bound, None)) is not None:
            abandon(deferred)

    def _fire(self, result: Any, bound: Deferred[Any]) -> None:
        if self._bound.pop(bound, None) is not None:
            pass_on(result, bound)

    def end(self) -> None:
        """The client is disconnected: fail everything that is bound."""
        self.over = True
        while self._bound:
            bound = next(iter(self._bound))
            self._abandon(bound)
            bound.errback(disconnected())


def disconnected() -> Unavailable:
    """The error for everything that is asked of a disconnected client."""
    return Unavailable("the client is disconnected; nothing was stored")
