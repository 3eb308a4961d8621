"""Asking the server what became of COMMITs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kvd import receipts, requests
from kvd.client.dialing import LEAST_TRY, Dialer, TookTooLong
from kvd.client.link import said
from kvd.client.steady import SteadyClock
from kvd.client.waiting import Lifetime, disconnected, wait_for
from kvd.errors import KvdError, Unavailable
from kvd.receipts import ASK_AGAIN, Outcome


class Asker:
    """Asks for outcomes, each time on a connection of its own.

    The shared one would do, but OUTCOME waits for a COMMIT that is under way, and others would wait behind it. And
    what has just broken one connection may have broken that one, too, without a sign yet.

    :param wait: seconds that a try to connect may take.
    :ivar seconds: tells the time by which the age of a transaction is measured.
    """

    def __init__(self, clock: IReactorTime, dialer: Dialer, wait: float, lifetime: Lifetime) -> None:
        self.seconds: Callable[[], float] = receipts.uptime if isinstance(clock, SteadyClock) else clock.seconds
        self._clock = clock
        self._dialer = dialer
        self._wait = max(wait, LEAST_TRY)
        self._lifetime = lifetime

    async def settle(self, receipt: str, began: float, lost: KvdError, limit: float) -> None:
        """See what became of a COMMIT that had no reply; returns if it has happened.

        :param began: when :attr:`seconds` said so, its START had not been sent.
        :param lost: the error of the COMMIT.
        :param limit: seconds for which to ask.
        :raise kvd.errors.Unavailable: nothing was stored.
        :raise kvd.errors.OutcomeUnknown: it could not be learnt.
        """
        try:
            found = await self.outcome(receipt, limit)
        except KvdError as error:
            raise receipts.unsettled(lost, error.mesg, receipt) from error
        receipts.settle(found, self.seconds() - began, lost)

    async def outcome(self, receipt: str, limit: float) -> Outcome:
        """What became of the COMMIT with a receipt; asks again and again while the server can't tell.

        :param limit: seconds for which to ask.
        :raise kvd.errors.Unavailable: it could not be learnt.
        """
        line = requests.encode("OUTCOME", requests.text("receipt", receipt))
        too_late = self._clock.seconds() + limit
        attempt = 0
        pause = 0.0
        problem: KvdError | None = None
        while True:
            try:
                if attempt:
                    await self._dialer.sleep(pause)
                return await self._ask(line, too_late)
            except ASK_AGAIN as error:
                if problem is None or not isinstance(error.__cause__, TookTooLong):
                    problem = error
            attempt += 1
            pause = self._dialer.pause(attempt)
            if self._lifetime.over:
                raise Unavailable("the client is disconnected; ask for the outcome on another one")
            if self._clock.seconds() + pause >= too_late:
                raise receipts.unheard(limit, problem)

    async def _ask(self, line: bytes, too_late: float) -> Outcome:
        if self._lifetime.over:
            raise disconnected()
        link, ready = self._dialer.dial(min(self._wait, max(0, too_late - self._clock.seconds())))
        try:
            await wait_for(ready)
            answer = link.send(line).addErrback(_unanswered)
            left = max(0, too_late - self._clock.seconds())
            found = receipts.outcome(requests.reply(await wait_for(answer.addTimeout(left, self._clock, _too_late))))
        except BaseException:
            link.abort(ConnectionAbortedError("the connection is not wanted any more"))
            raise
        link.close()
        return found


def _unanswered(failure: Failure) -> Failure:
    if failure.check(CancelledError, KvdError):
        return failure
    return Failure(Unavailable(f"the connection broke: {said(failure.value)}"))


def _too_late(result: object, limit: float) -> NoReturn:
    raise Unavailable("the server did not answer in time")
