"""The connection that all requests outside transactions share. It is made again whenever it is lost."""

from __future__ import annotations

from typing import NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kvd.client.dialing import LEAST_TRY, Dialer
from kvd.client.link import Link, said
from kvd.client.waiting import Lifetime, ignore
from kvd.errors import Busy, Unavailable


class Shared:
    """Keeps one connection up.

    :param wait: seconds that a caller of :meth:`ready` waits at most.
    :ivar link: the connection; None while there is none.
    """

    def __init__(self, clock: IReactorTime, dialer: Dialer, wait: float, lifetime: Lifetime) -> None:
        self.link: Link | None = None
        self._clock = clock
        self._dialer = dialer
        self._wait = wait
        self._lifetime = lifetime
        self._waiting: dict[Deferred[Link], None] = {}  # in order
        self._attempt = 0
        self._problem: BaseException | None = None  # why there is no connection

    async def begin(self) -> None:
        """Make the first connection."""
        self._made(await self._dialer.reach())

    def ready(self) -> Deferred[Link]:
        """A Deferred of the connection, once there is one.

        :return: fails with :class:`~kvd.errors.Unavailable` or :class:`~kvd.errors.Busy` if it takes too long.
        """
        waiting: Deferred[Link] = Deferred(self._waiting.pop)
        self._waiting[waiting] = None
        return self._lifetime.bind(waiting).addTimeout(self._wait, self._clock, self._too_late)

    def _too_late(self, result: object, limit: float) -> NoReturn:
        if isinstance(self._problem, Busy):
            raise Busy(self._problem.mesg)
        why = "" if self._problem is None else f" ({said(self._problem)})"
        raise Unavailable(f"the server could not be reached for {limit:g} seconds{why}; nothing was stored")

    def _made(self, link: Link) -> None:
        self._attempt = 0
        # Those who waited go first, so the connection is there for others only when all of them have sent.
        while self._waiting and link.lost is None:
            waiting = next(iter(self._waiting))
            del self._waiting[waiting]
            waiting.callback(link)
        if link.lost is None:
            self.link = link
        link.when_lost().addCallback(self._lost, link)

    def _lost(self, _: None, link: Link) -> None:
        self.link = None
        assert link.lost is not None
        self._again(link.lost)

    def _again(self, failure: Failure) -> None:
        if self._lifetime.over:
            return
        self._problem = failure.value
        self._attempt += 1
        pause: Deferred[None] = deferLater(self._clock, self._dialer.pause(self._attempt))
        self._lifetime.bind(pause).addCallbacks(self._dial, ignore)

    def _dial(self, _: None) -> None:
        link, ready = self._dialer.dial(max(self._wait, LEAST_TRY))
        ready.addCallbacks(lambda _: self._made(link), self._again)
