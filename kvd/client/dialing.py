"""Making connections to the server, each with a greeting; trying again while the server can't be reached."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kvd import requests, wire
from kvd.client.link import Link, NotKvd, said
from kvd.client.waiting import Lifetime, wait_for
from kvd.errors import Busy, Idle, Internal, KvdError, Unavailable
from kvd.requests import full_jitter

RECONNECT_PAUSES = (0.2, 2.0)
"""Seconds, as :data:`kvd.requests.CONFLICT_PAUSES`, before a connection is tried again."""

LEAST_PAUSE = 0.005
"""Seconds that a pause lasts at least, so that time passes between two tries."""

LEAST_TRY = 5.0
"""Seconds that a try to connect may take at least, however short requests wait."""

GREETING = wire.request("PING")


class TookTooLong(Exception):
    """There was no time left to wait for a connection."""


class Dialer:
    """Makes all connections of a client.

    :param timeout: seconds that a reply may take.
    :param wait: seconds for which :meth:`reach` tries.
    :param rand: numbers from 0 to 1, for pauses.
    :param lifetime: the client's.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        timeout: float,
        wait: float,
        rand: Callable[[], float],
        lifetime: Lifetime,
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._timeout = timeout
        self._wait = wait
        self._random = rand
        self._lifetime = lifetime
        self._links: dict[Link, None] = {}  # in the order in which they were made

    def dial(self, limit: float) -> tuple[Link, Deferred[None]]:
        """Make a connection.

        :param limit: seconds that this may take.
        :return: the connection, and a Deferred that fires when it can be used. That fails with
            :class:`~kvd.errors.Unavailable` or :class:`~kvd.errors.Busy`, or with CancelledError.
        """
        link = Link(self._clock, self._timeout)
        self._links[link] = None
        link.when_lost().addCallback(lambda _: self._links.pop(link))
        # The server knows by the greeting that we are no stray connection, and we by its answer that it serves us.
        dialing = maybeDeferred(connectProtocol, self._endpoint, link).addCallback(lambda _: link.send(GREETING))
        ready = self._lifetime.bind(dialing).addTimeout(limit, self._clock, partial(_too_late, link))
        return link, ready.addCallback(_greeted).addErrback(_not_ready, link)

    async def reach(self) -> Link:
        """Make a connection; try again, while there is time, if the server can't be reached or is full.

        :raise kvd.errors.Unavailable: it could not be reached, or is not a kvd server.
        :raise kvd.errors.Busy: it has too many clients.
        """
        too_late = self._clock.seconds() + self._wait
        attempt = 0
        problem: KvdError | None = None
        while True:
            link, ready = self.dial(max(0, too_late - self._clock.seconds()))
            try:
                await wait_for(ready)
                return link
            except (Unavailable, Busy, Idle) as error:
                if problem is None or not isinstance(error.__cause__, TookTooLong):
                    problem = error
            except BaseException:
                link.abort(ConnectionAbortedError("the connection is not wanted any more"))
                raise
            attempt += 1
            pause = self.pause(attempt)
            hopeless = self._lifetime.over or isinstance(problem.__cause__, NotKvd)
            if hopeless or self._clock.seconds() + pause >= too_late:
                raise problem
            await self.sleep(pause)

    def pause(self, attempt: int) -> float:
        """How long to wait before the server is tried again, in seconds.

        :param attempt: how many tries have failed, from 1 on.
        """
        return max(LEAST_PAUSE, full_jitter(attempt, *RECONNECT_PAUSES, self._random))

    async def sleep(self, seconds: float) -> None:
        """Wait.

        :raise kvd.errors.Unavailable: the client is disconnected.
        """
        await wait_for(self._lifetime.bind(deferLater(self._clock, seconds)))

    async def close(self) -> None:
        """Close all connections, and wait until they are closed."""
        links = list(self._links)
        for link in links:
            link.close()
        for link in links:
            await wait_for(link.when_lost())


def _too_late(link: Link, result: object, limit: float) -> NoReturn:
    problem = "the server did not answer" if link.connected else "there was no connection"
    raise TookTooLong(f"{problem} within {limit:g} seconds")


def _greeted(line: bytes) -> None:
    try:
        reply = requests.reply(line)
    except Internal:
        raise NotKvd(f"this is not a kvd server: it says {line[:40]!r}") from None
    requests.result_of(reply)


def _not_ready(failure: Failure, link: Link) -> Failure:
    link.abort(ConnectionAbortedError("the connection is not wanted any more"))
    if failure.check(CancelledError, KvdError):
        return failure
    unavailable = Unavailable(f"can't connect: {said(failure.value)}")
    unavailable.__cause__ = failure.value
    return Failure(unavailable)
