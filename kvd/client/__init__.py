"""The Deferred client, for programs that run on Twisted.

::

    client = await connect(reactor, "tcp:localhost:8765")
    async with client.transaction() as txn:
        await txn.put("key2", await txn.get("key1"))

Every method returns a Deferred. It fails with a class of :mod:`kvd.errors`: the class of the server's error
code, or, if no reply came, :class:`~kvd.errors.OutcomeUnknown` for what may have been stored and
:class:`~kvd.errors.Unavailable` for what surely was not. Cancelling one means that its answer is not
wanted any more; what it asked for may be done all the same.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kvd import requests, wire
from kvd.client.link import TIMEOUT, Link
from kvd.client.pool import Pool
from kvd.errors import (
    Aborted,
    BadRequest,
    Conflict,
    KvdError,
    NoTransaction,
    ReceiptUsed,
    TransactionExpired,
    Unavailable,
)
from kvd.requests import CHANGING, CONFLICT_PAUSES, RETRY_FOR, Page, full_jitter

__all__ = ["Client", "Page", "Transaction", "connect"]

P = ParamSpec("P")
T = TypeVar("T")

ENDED = (Conflict, Aborted, TransactionExpired, ReceiptUsed)
"""The errors of a COMMIT behind which surely no transaction is open any more."""


RECONNECT_PAUSES = (0.2, 2.0)
"""Seconds, as :data:`kvd.requests.CONFLICT_PAUSES`, before a lost connection is made again."""


class Commands:
    """A method for each data command."""

    def call(self, *words: wire.Word) -> Deferred[Any]:
        """Send a request; a Deferred of the ``result`` of its reply (None where it has none)."""
        raise TypeError("a subclass says how")

    def put(self, key: str, value: str) -> Deferred[None]:
        """Store a value; overwrite what was there."""
        return self.call("PUT", key, value)

    def get(self, key: str) -> Deferred[str | None]:
        """The value, or None."""
        return self.call("GET", key)

    def delete(self, key: str) -> Deferred[None]:
        """Remove a key; no error if there is none."""
        return self.call("DEL", key)

    def mget(self, *keys: str) -> Deferred[list[str | None]]:
        """The values of several keys, of one instant."""
        return self.call("MGET", *keys)

    def exists(self, key: str) -> Deferred[bool]:
        """Whether there is such a key."""
        return self.call("EXISTS", key)

    def incr(self, key: str, delta: int = 1) -> Deferred[int]:
        """Add to an integer (nothing counts as 0); the sum."""
        return self.call("INCR", key, delta)

    def cas(self, key: str, expected: str | None, new: str | None) -> Deferred[bool]:
        """Store ``new`` if the key holds ``expected``; whether it did. None means: absent."""
        return self.call("CAS", key, expected, new)

    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Deferred[Page[Any]]:
        """Pairs in the order of their keys, from ``start`` up to but without ``end``; one page of them.

        :param limit: the most items of the page, 1 to 10,000; 100 if not given.
        """
        found = self.call(*wire.scan_words(prefix, start, end, limit, reverse, keys_only))
        return found.addCallback(requests.page, keys_only)

    def count(self, prefix: str = "") -> Deferred[int]:
        """How many keys there are."""
        return self.call("COUNT", "PREFIX", prefix)


def _exchange(link: Link, words: tuple[wire.Word, ...], changing: bool) -> Deferred[Any]:
    """Send a request, and make of its reply a result or an error."""
    if link.lost is not None:
        return fail(_no_reply(link.lost, False))
    return link.send(wire.request(*words)).addCallbacks(requests.result, _no_reply, errbackArgs=(changing,))


def _no_reply(failure: Failure, changing: bool) -> Failure:
    if failure.check(CancelledError, KvdError):  # of the caller's doing, or told by the server
        return failure
    return Failure(requests.lost(f"the connection broke: {_said(failure)}", changing))


def _said(failure: Failure) -> str:
    return failure.getErrorMessage().rstrip(".") or type(failure.value).__name__


class Transaction(Commands):
    """A transaction, on a connection of its own; made by :meth:`Client.transaction`.

    It is open inside its ``async with`` block. If its connection breaks there, it has failed: nothing of it
    is stored, and whatever is asked of it fails.
    """

    def __init__(self, pool: Pool, read_only: bool) -> None:
        self._pool = pool
        self._read_only = read_only
        self._link: Link | None = None
        self._writes = False

    def call(self, *words: wire.Word) -> Deferred[Any]:
        """Send a request inside the transaction; a Deferred of the ``result`` of its reply."""
        if self._link is None:
            return fail(NoTransaction("this transaction is not open; it is inside its async with block"))
        name = requests.name(words)
        if name in ("START", "COMMIT", "QUIT") or (name == "ROLLBACK" and len(words) == 1):
            return fail(BadRequest(f"{name} is not for you to send; the transaction ends with its async with block"))
        self._writes = self._writes or name in CHANGING
        return _exchange(self._link, words, False)

    def savepoint(self, name: str) -> Deferred[None]:
        """Set a point to go back to."""
        return self.call("SAVEPOINT", name)

    def rollback_to(self, name: str) -> Deferred[None]:
        """Drop what was changed since the savepoint, and go on."""
        return self.call("ROLLBACK", "TO", name)

    def release(self, name: str) -> Deferred[None]:
        """Forget the savepoint, and keep the changes."""
        return self.call("RELEASE", name)

    def check(self) -> Deferred[dict[str, Any]]:
        """Would it commit now? A dict with ``commits conflicts reads writes age``."""
        return self.call("CHECK")

    async def __aenter__(self) -> Transaction:
        if self._link is not None:
            raise NoTransaction("this transaction is open already")
        link = await self._pool.lease()
        try:
            await _exchange(link, ("START", *["READONLY"] * self._read_only), False)
        except BaseException:
            self._pool.drop(link)  # it may hold an open transaction
            raise
        self._link = link
        self._writes = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        link, self._link = self._link, None
        assert link is not None
        if kind is not None:
            # Nobody waits for the reply: the block may end because its Deferred was cancelled or dropped.
            rolled_back = _exchange(link, ("ROLLBACK",), False)
            rolled_back.addCallbacks(lambda _: self._pool.give_back(link), lambda _: self._pool.drop(link))
            return
        try:
            await _exchange(link, ("COMMIT",), self._writes)
        except ENDED:
            self._pool.give_back(link)
            raise
        except BaseException:
            self._pool.drop(link)
            raise
        self._pool.give_back(link)


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
        self._clock = reactor
        self._wait = wait
        self._retry_for = retry_for
        self._random = rand
        self._link: Link | None = None  # what all commands outside transactions share
        self._waiting: dict[Deferred[Link], None] = {}  # callers that wait for it, in order
        self._closed = False
        self._pool = Pool(reactor, endpoint, pool, timeout, wait)
        factory = Factory.forProtocol(lambda: Link(reactor, timeout))
        factory.noisy = False
        self._service = ClientService(
            endpoint,
            factory,
            retryPolicy=lambda attempt: full_jitter(attempt, *RECONNECT_PAUSES, rand),
            clock=reactor,
            prepareConnection=self._made,
        )

    # The shared connection.

    def _made(self, link: Any) -> None:
        # ClientService is not ready to be stopped at this moment, and who waits may want just that.
        self._clock.callLater(0, self._connected, link)

    def _connected(self, link: Link) -> None:
        if link.lost is None:
            self._link = link
            link.when_lost().addCallback(self._disconnected)
        elif not link.lost.check(KvdError):
            return  # wait for the next one; but who was turned away with a word hears it
        while self._waiting:
            waiting = next(iter(self._waiting))
            del self._waiting[waiting]
            waiting.callback(link)

    def _disconnected(self, _: None) -> None:
        self._link = None

    def _next_link(self) -> Deferred[Link]:
        waiting: Deferred[Link] = Deferred(lambda waiting: self._waiting.pop(waiting))
        self._waiting[waiting] = None
        return waiting.addTimeout(self._wait, self._clock)

    async def _begin(self) -> None:
        """Connect for the first time."""
        try:
            self._service.startService()
            await self._service.whenConnected(failAfterFailures=1).addTimeout(self._wait, self._clock)
            # A server that is full turns its clients away after they have connected.
            await self.ping().addTimeout(self._wait, self._clock)
        except Exception as error:
            await deferLater(self._clock, 0)  # ClientService can't be stopped while it tells of its failure
            await self.disconnect()
            if isinstance(error, KvdError | CancelledError):
                raise
            raise Unavailable(f"can't connect: {str(error) or type(error).__name__}") from error

    def disconnect(self) -> Deferred[None]:
        """Close all connections, for good; the server rolls open transactions back.

        :return: a Deferred that fires when they are closed.
        """
        self._closed = True
        for waiting in list(self._waiting):
            waiting.errback(Unavailable("the client is disconnected"))
        self._waiting.clear()
        return Deferred.fromCoroutine(self._close(self._service.stopService()))

    async def _close(self, stopped: Deferred[None]) -> None:
        await self._pool.close()
        await stopped

    # Commands outside a transaction.

    def call(self, *words: wire.Word) -> Deferred[Any]:
        """Send a request; a Deferred of the ``result`` of its reply (None where it has none)."""
        name = requests.name(words)
        if name in ("START", "QUIT"):
            better = "transaction() or transact()" if name == "START" else "disconnect()"
            return fail(BadRequest(f"{name} has no place on a connection that others share; use {better}"))
        if self._closed:
            return fail(Unavailable("the client is disconnected"))
        if self._link is not None:
            return _exchange(self._link, words, name in CHANGING)
        return self._next_link().addCallbacks(_exchange, self._unreached, (words, name in CHANGING))

    def _unreached(self, failure: Failure) -> Failure:
        if failure.check(TimeoutError):
            return Failure(Unavailable(f"the server could not be reached for {self._wait:g} seconds"))
        return failure

    def ping(self, text: str | None = None) -> Deferred[str]:
        """``PONG``, or the text."""
        return self.call("PING", *([] if text is None else [text]))

    def info(self, section: str | None = None) -> Deferred[dict[str, Any]]:
        """What the server is and does; all sections, or one."""
        return self.call("INFO", *([] if section is None else [section]))

    def help(self, command: str | None = None) -> Deferred[Any]:
        """What there is, by usage; or a line about one command."""
        return self.call("HELP", *([] if command is None else command.split()))

    # Transactions.

    def transaction(self, read_only: bool = False) -> Transaction:
        """A transaction, to be used in ``async with``: commits at its end, rolls back if it raises.

        :raise kvd.errors.Unavailable: when it begins: no connection could be had for it.
        :raise kvd.errors.Conflict: at its end: something that it read was changed meanwhile.
        """
        return Transaction(self._pool, read_only)

    def transact(
        self, fn: Callable[Concatenate[Transaction, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run ``fn(txn, *args, **kwargs)`` in a transaction, and commit; again, if nothing was stored.

        It runs again after a Conflict, and after an Unavailable, until ``retry_for`` seconds have passed since the
        call. So it must bear running more than once: what it does besides ``txn`` is not rolled back. Every
        other error ends it, an unknown outcome too.

        :param fn: a coroutine function, or a function that returns a Deferred.
        :return: a Deferred of what ``fn`` returned when its changes were stored.
        """
        return Deferred.fromCoroutine(self._transact(lambda txn: fn(txn, *args, **kwargs)))

    async def _transact(self, run: Callable[[Transaction], Awaitable[T]]) -> T:
        too_late = self._clock.seconds() + self._retry_for
        attempt = 0
        while True:
            try:
                async with self.transaction() as txn:
                    result = await run(txn)
                return result
            except (Conflict, Unavailable):
                attempt += 1
                pause = full_jitter(attempt, *CONFLICT_PAUSES, self._random)
                if self._closed or self._clock.seconds() + pause >= too_late:
                    raise
            await deferLater(self._clock, pause)


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

    :param reactor: the reactor; it gives the time.
    :param endpoint: a Twisted client endpoint, or the string for one, as ``tcp:localhost:8765``.
    :param timeout: seconds that a reply may take. If one takes longer, its connection is given up, and
        all that is under way on it fails.
    :param wait: seconds that a command waits for a connection while there is none.
    :param pool: the most transactions that are open at once; others wait for their turn, for as long as for a reply.
    :param retry_for: seconds for which :meth:`Client.transact` tries again.
    :param rand: the source of chance for pauses, numbers from 0 to 1; for tests.
    :raise kvd.errors.Unavailable: the server can't be reached.
    """

    async def begin() -> Client:
        where = clientFromString(reactor, endpoint) if isinstance(endpoint, str) else endpoint
        client = Client(reactor, where, timeout=timeout, wait=wait, pool=pool, retry_for=retry_for, rand=rand)
        await client._begin()
        return client

    return Deferred.fromCoroutine(begin())
