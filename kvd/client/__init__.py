"""The Deferred client, for programs that run on Twisted.

::

    client = await connect(reactor, "tcp:localhost:8765")
    async with client.transaction() as txn:
        await txn.put("key2", await txn.get("key1"))

Every method returns a Deferred. It fails with a class of :mod:`kvd.errors`: the class of the server's error
code, or, if no reply came, :class:`~kvd.errors.OutcomeUnknown` for what may have been stored and
:class:`~kvd.errors.Unavailable` for what was not. Cancelling one means that its answer is not wanted any more; what
it asked for may be done all the same.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from math import inf
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from kvd import requests, wire
from kvd.client.asking import Asker
from kvd.client.commands import Commands
from kvd.client.dialing import LEAST_PAUSE, Dialer
from kvd.client.link import TIMEOUT
from kvd.client.pool import Pool
from kvd.client.shared import Shared
from kvd.client.steady import steady
from kvd.client.transaction import Transaction
from kvd.client.waiting import Lifetime, disconnected
from kvd.errors import BadArguments, BadRequest, Conflict, Idle, KvdError, Unavailable
from kvd.receipts import Outcome
from kvd.requests import CONFLICT_PAUSES, RETRY_FOR, Page, full_jitter

__all__ = ["Client", "Outcome", "Page", "Transaction", "connect"]

P = ParamSpec("P")
T = TypeVar("T")


class Client(Commands):
    """A client of a kvd server; made by :func:`connect`, which tells of the parameters."""

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        *,
        timeout: float,
        wait: float,
        pool: int,
        retry_for: float,
        rand: Callable[[], float],
    ) -> None:
        self._clock = steady(reactor)
        self._timeout = timeout
        self._retry_for = retry_for
        self._random = rand
        self._lifetime = Lifetime()
        self._dialer = Dialer(self._clock, endpoint, timeout, wait, rand, self._lifetime)
        self._shared = Shared(self._clock, self._dialer, wait, self._lifetime)
        self._pool = Pool(self._clock, self._dialer, pool, timeout, self._lifetime)
        self._asker = Asker(self._clock, self._dialer, wait, self._lifetime)

    def disconnect(self) -> Deferred[None]:
        """Close all connections, for good; the server rolls open transactions back. A second call does no harm.

        What waits for a connection fails with Unavailable; what was sent fails when its connection is closed, unless
        its reply comes first.

        :return: a Deferred that fires when they are closed.
        """
        self._lifetime.end()
        return Deferred.fromCoroutine(self._dialer.close())

    # Commands outside a transaction.

    def call(self, *words: wire.Word) -> Deferred[Any]:
        """Send any command: its name, and its arguments.

        START and QUIT are refused with BadRequest, because all requests outside transactions share one connection.

        :return: a Deferred of the ``result`` of its reply (None where it has none).
        """
        name = requests.name(words)
        if name in ("START", "QUIT"):
            better = "transaction() or transact()" if name == "START" else "disconnect()"
            return fail(BadRequest(f"{name} has no place on a connection that others share; use {better}"))
        try:
            line = requests.encode(*words)
        except KvdError as error:
            return fail(error)
        if self._lifetime.over:
            return fail(disconnected())
        may_store = requests.changes(name)
        link = self._shared.link
        if link is not None:
            return link.ask(line, may_store)
        return self._shared.ready().addCallback(lambda link: link.ask(line, may_store))

    def ping(self, text: str | None = None) -> Deferred[str]:
        """``PONG``, or the text."""
        return self.call("PING", *([] if text is None else [text]))

    def info(self, section: str | None = None) -> Deferred[dict[str, Any]]:
        """What the server is and does: a dict of sections, or one section."""
        return self.call("INFO", *([] if section is None else [section]))

    def help(self, command: str | None = None) -> Deferred[Any]:
        """All commands, as a dict of what they do by their usage; or a line about one command."""
        if isinstance(command, str):
            return self.call("HELP", *command.split())
        return self.call("HELP", *([] if command is None else [command]))

    # Transactions.

    def outcome(self, receipt: str) -> Deferred[Outcome]:
        """What became of the COMMIT with a receipt. If it has not happened, it never will: asking settles that.

        It is asked for on a connection of its own; again and again, for ``timeout`` seconds, while the server can't be
        reached.

        :param receipt: as in the field ``receipt`` of an OutcomeUnknown.
        :return: a Deferred. It fails with Unavailable if the server could not tell.
        """
        return Deferred.fromCoroutine(self._asker.outcome(receipt, self._timeout))

    def transaction(self, read_only: bool = False) -> Transaction:
        """A transaction, to be used in ``async with``: commits at its end, rolls back if it raises.

        :raise kvd.errors.Unavailable: when it begins: no connection could be had for it.
        :raise kvd.errors.InTransaction: when it begins: it is inside another one, and the pool has no connection left.
        :raise kvd.errors.Conflict: at its end: something that it read was changed meanwhile.
        :raise kvd.errors.Unavailable: at its end: nothing was stored, the server could not be reached.
        :raise kvd.errors.OutcomeUnknown: at its end: the reply to COMMIT was lost, and for ``timeout`` seconds the
            server could not tell what became of it.
        """
        return Transaction(self._pool, read_only, self._asker, self._timeout)

    def transact(
        self, fn: Callable[Concatenate[Transaction, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run ``fn(txn, *args, **kwargs)`` in a transaction, and commit; again, if nothing was stored.

        It runs again after a Conflict, an Unavailable or an Idle, until ``retry_for`` seconds have passed since the
        call. So it must bear running more than once: what it does besides ``txn`` is not rolled back. Every other
        error ends it.

        If the reply to COMMIT is lost, it asks the server what became of it, for ``retry_for`` seconds from then on.
        So what was stored is not done again. OutcomeUnknown remains for a server that can't tell in that time.

        :param fn: a coroutine function, or a function that returns a Deferred.
        :return: a Deferred of what ``fn`` returned when its changes were stored. It fails with TypeError if ``fn``
            returned something else.
        """

        def run(txn: Transaction) -> Awaitable[T]:
            work = fn(txn, *args, **kwargs)
            if not isawaitable(work):
                raise TypeError(
                    f"{getattr(fn, '__qualname__', fn)} must be a coroutine function, or return a Deferred; "
                    f"it returned {type(work).__name__}"
                )
            return work

        return Deferred.fromCoroutine(self._transact(run))

    async def _transact(self, run: Callable[[Transaction], Awaitable[T]]) -> T:
        too_late = self._clock.seconds() + self._retry_for
        attempt = 0
        while True:
            try:
                async with Transaction(self._pool, False, self._asker, self._retry_for) as txn:
                    result = await run(txn)
                return result
            except (Conflict, Unavailable, Idle):
                attempt += 1
                pause = max(LEAST_PAUSE, full_jitter(attempt, *CONFLICT_PAUSES, self._random))
                if self._lifetime.over or self._clock.seconds() + pause >= too_late:
                    raise
            await self._dialer.sleep(pause)


def connect(
    reactor: Any,
    endpoint: str | IStreamClientEndpoint,
    *,
    timeout: float = TIMEOUT,
    wait: float = 5.0,
    pool: int = 10,
    retry_for: float = RETRY_FOR,
    rand: Callable[[], float] = random.random,
) -> Deferred[Client]:
    """Connect to a server.

    :param reactor: the reactor, or a Clock; it gives the time.
    :param endpoint: a Twisted client endpoint, or the string for one, such as ``tcp:localhost:8765``.
    :param timeout: seconds that a reply may take. If one takes longer, its connection is given up, and
        all that is under way on it fails.
    :param wait: seconds that this, a command, or a transaction waits for a connection while there is none.
    :param pool: the most transactions that are open at once; others wait for their turn, for ``timeout`` at most.
    :param retry_for: seconds for which :meth:`Client.transact` tries again.
    :param rand: the source of chance for pauses, numbers from 0 to 1; for tests.
    :return: a Deferred. It fails with :class:`~kvd.errors.Unavailable` if the server can't be reached or is not a kvd
        server, with :class:`~kvd.errors.Busy` if it has too many clients, and with
        :class:`~kvd.errors.BadArguments` if a number is wrong.
    """

    async def begin() -> Client:
        _check_options(timeout, wait, pool, retry_for)
        where = clientFromString(reactor, endpoint) if isinstance(endpoint, str) else endpoint
        client = Client(reactor, where, timeout=timeout, wait=wait, pool=pool, retry_for=retry_for, rand=rand)
        await client._shared.begin()
        return client

    return Deferred.fromCoroutine(begin())


def _check_options(timeout: float, wait: float, pool: int, retry_for: float) -> None:
    for name, seconds in (("timeout", timeout), ("wait", wait)):
        if not isinstance(seconds, int | float) or not 0 < seconds < inf:
            raise BadArguments(f"{name} must be a number of seconds, more than 0, not {seconds!r}")
    if not isinstance(retry_for, int | float) or not 0 <= retry_for < inf:
        raise BadArguments(f"retry_for must be a number of seconds, 0 or more, not {retry_for!r}")
    if not isinstance(pool, int) or pool < 1:
        raise BadArguments(f"pool must be a number of connections, 1 or more, not {pool!r}")
