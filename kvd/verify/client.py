"""A simulated client: one connection, the requests on it, and the record of requests and replies.

When a connection is lost, the outcomes that are still open are recorded as unknown, and the client comes back on a
new connection under a new number.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kvd import requests, wire
from kvd.client.link import Link, NotKvd
from kvd.errors import Internal
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History, Operation, Transaction

LOST: Final = "no reply"
"""Takes the place of an error code if the connection was lost."""
ODD: Final = "odd reply"
"""The same for a reply that the protocol does not allow."""

OPEN: Final = frozenset([LOST, ODD, "OUTCOME_UNKNOWN", "INTERNAL"])
"""The codes after which something may or may not have been stored."""

RECONNECT_FOR: Final = 8.0
"""Seconds for which a client tries to get a connection back."""
RECONNECT_PAUSE: Final = 0.1

_NOTHING: Final = object()


class Reply(NamedTuple):
    """A reply.

    :ivar code: the code of the error, :data:`LOST` or :data:`ODD`; empty if there was no error.
    """

    result: Any = None
    code: str = ""


class Over(Exception):
    """A transaction can't go on: a reply was an error, or never came."""


class Unreachable(Exception):
    """The server can no longer be reached."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str | None)


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], str)


def _is_page(result: Any, with_values: bool) -> bool:
    return (
        isinstance(result, dict)
        and isinstance(result.get("items"), list)
        and all(_is_pair(item) if with_values else isinstance(item, str) for item in result["items"])
        and _is_text(result.get("next", 0))
    )


_SHAPES: Final[dict[str, Callable[[Any], bool]]] = {
    "GET": _is_text,
    "MGET": lambda result: isinstance(result, list) and all(map(_is_text, result)),
    "EXISTS": lambda result: isinstance(result, bool),
    "CAS": lambda result: isinstance(result, bool),
    "INCR": lambda result: type(result) is int,
    "COUNT": lambda result: type(result) is int,
}
"""What the result of a command looks like; other commands have none."""


def _fits(words: tuple[wire.Word, ...], result: Any) -> bool:
    if words[0] == "SCAN":
        return _is_page(result, "KEYS" not in words)
    shape = _SHAPES.get(str(words[0]))
    if shape is None:
        return result is _NOTHING
    return shape(result) and (words[0] != "MGET" or len(result) == len(words) - 1)


class Client:
    """One client.

    :param connect: makes a connection.
    :param numbers: gives a number to each client that connects, or comes back.
    :param seed: decides what it does.
    :ivar over: set to true when there is no point in reconnecting.
    :ivar met_odd: whether it got a reply that the protocol does not allow.
    :ivar codes: how often it got each error, by code.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Link]], clock: IReactorTime, numbers: Iterator[int], seed: str
    ) -> None:
        self.random = random.Random(seed)
        self.number = 0
        self.over = False
        self.met_odd = False
        self.codes: dict[str, int] = {}
        self._connect = connect
        self._clock = clock
        self._numbers = numbers
        self._link: Link | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None and self._link.lost is None

    async def ready(self, history: History) -> None:
        """Connect, if there is no connection.

        :param history: records why the last one ended, if that was the server's fault.
        :raise Unreachable: that failed for :data:`RECONNECT_FOR` seconds.
        """
        if self._link is not None and self._link.lost is not None and not self.met_odd:
            record = history.begin(self.number)
            self._lost(self._link.lost, record, ("nothing",))
            history.end(record, ROLLED_BACK)
        until = self._clock.seconds() + RECONNECT_FOR
        while not self.connected:
            try:
                self._link = await self._connect()
            except Exception as error:
                if self.over or self._clock.seconds() >= until:
                    raise Unreachable(f"the server can no longer be reached: {error or type(error).__name__}") from None
                await self.sleep(RECONNECT_PAUSE)
            self.number = next(self._numbers)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await deferLater(self._clock, seconds)

    def leave(self) -> None:
        """Break the connection."""
        if self._link is not None and self._link.lost is None:
            self._link.abort(ConnectionError("the client has left"))

    def send(self, record: Transaction, *words: wire.Word) -> Deferred[Reply]:
        """Send a request.

        :param record: the transaction that it belongs to; a reply that the protocol does not allow is recorded there.
        :return: a Deferred of the reply, which never fails.
        """
        link = self._link
        assert link is not None
        return link.send(wire.request(*words)).addCallbacks(
            self._answered, self._lost, callbackArgs=(link, record, words), errbackArgs=(record, words)
        )

    def _answered(self, line: bytes, link: Link, record: Transaction, words: tuple[wire.Word, ...]) -> Reply:
        with suppress(Internal):
            reply = requests.reply(line)
            if reply["status"] != "Ok":
                code: str = reply["code"]
                self.codes[code] = self.codes.get(code, 0) + 1
                return Reply(None, code)
            result = reply.get("result", _NOTHING)
            if _fits(words, result):
                return Reply(None if result is _NOTHING else result)
        self.note_odd(record, words, line.decode(errors="replace"))
        link.abort(ConnectionError("the reply was odd"))  # there is no telling what the next replies belong to
        return Reply(None, ODD)

    def _lost(self, failure: Failure, record: Transaction, words: tuple[wire.Word, ...]) -> Reply:
        if isinstance(failure.value, NotKvd):
            self.note_odd(record, words, f"a line that answers no request: {failure.value}")
        return Reply(None, LOST)

    def note_odd(self, record: Transaction, words: tuple[wire.Word, ...], reply: str) -> None:
        """Record a reply that the protocol does not allow for a request."""
        self.met_odd = True
        request = " ".join(map(str, words))
        record.operations.append(Operation("odd", f"'{request}'", None, reply[:200]))

    async def transact(self, history: History, work: Callable[[Txn], Awaitable[None]], read_only: bool) -> bool:
        """Do some work in a transaction, and end it in one of the ways in which one can end.

        :return: whether it was committed.
        """
        txn = Txn(self, history, read_only)
        try:
            await txn.start()
            await work(txn)
        except Over:
            await txn.give_up()
        else:
            await txn.finish()
        return txn.record.outcome == COMMITTED

    def read(self, history: History, recorded: Callable[[Any], list[Operation]], *words: wire.Word) -> Deferred[Reply]:
        """Send a plain command that reads, recorded as a transaction of its own.

        :param recorded: makes the operations to record out of the result.
        """
        record = history.begin(self.number)

        def answered(reply: Reply) -> Reply:
            if not reply.code:
                record.operations += recorded(reply.result)
            history.end(record, ROLLED_BACK if reply.code else COMMITTED, reply.code or None)
            return reply

        return self.send(record, *words).addCallback(answered)

    def command(self, history: History, operation: Operation, *words: wire.Word) -> Deferred[Reply]:
        """Send one of the plain commands whose order is checked key by key."""
        record = history.begin(self.number)
        record.operations.append(operation)

        def answered(reply: Reply) -> Reply:
            code = reply.code
            if not code or (operation.verb == "INCR" and code == "NOT_A_NUMBER"):
                record.operations[0] = operation._replace(result=reply.result)
                history.end(record, COMMITTED)
            else:
                history.end(record, UNKNOWN if code in OPEN else ROLLED_BACK, code)
            return reply

        return self.send(record, *words).addCallback(answered)


class Txn:
    """A transaction under way, and its record."""

    def __init__(self, client: Client, history: History, read_only: bool) -> None:
        self.client = client
        self.history = history
        self.read_only = read_only
        self.random = client.random
        self.record = history.begin(client.number)
        self.then: list[Callable[[], Deferred[Reply]]] = []  # plain reads to send right after COMMIT
        self._code = ""  # of the first error
        self._open: list[Deferred[Reply]] = []  # what was sent without waiting for the reply

    def _send(self, *words: wire.Word) -> Deferred[Reply]:
        return self.client.send(self.record, *words).addCallback(self._note)

    def _note(self, reply: Reply) -> Reply:
        self._code = self._code or reply.code
        return reply

    async def start(self) -> None:
        """Send START, and usually wait for its reply."""

        def started(reply: Reply) -> Reply:
            if not reply.code:
                self.history.started(self.record)
            return reply

        words = ("START", "READONLY") if self.read_only else ("START",)
        self._open.append(self._send(*words).addCallback(started))
        if self.random.random() < 0.7:
            await self._settle()
            await self.pause(0.4)

    async def _settle(self) -> None:
        for each in self._open:
            await each
        self._open.clear()
        if self._code:
            raise Over

    async def pause(self, chance: float) -> None:
        """Sometimes wait a little, so that others get ahead.

        :param chance: how often.
        """
        if self.random.random() < chance:
            await self.client.sleep(self.random.choice((0.001, 0.003, 0.01)))

    async def ask(self, *requests: tuple[wire.Word, ...]) -> list[Any]:
        """Send all requests at once, and wait for their results.

        :raise Over: one of them was refused, or got no reply.
        """
        waiting = [self._send(*words) for words in requests]
        results = [(await each).result for each in waiting]
        if self._code:
            raise Over
        return results

    def did(self, verb: str, key: str, argument: Any = None, result: Any = None) -> None:
        """Record an operation."""
        self.record.operations.append(Operation(verb, key, argument, result))

    def tell(self, *words: wire.Word) -> None:
        """Send a request that has no result, without waiting for its reply."""
        self._open.append(self._send(*words))

    async def finish(self) -> None:
        """Usually COMMIT; otherwise ROLLBACK, COMMIT after an error, or disconnect."""
        await self.pause(0.3)
        dice = self.random.random()
        if dice < 0.005:
            if dice < 0.001:
                self._send("COMMIT")
                self.history.end(self.record, UNKNOWN, LOST)
            else:
                self.history.end(self.record, ROLLED_BACK, LOST)
            self.client.leave()
        elif dice < 0.07:
            await self._end("ROLLBACK")
        else:
            if dice < 0.1:
                self.tell("INCR", "-", "not a number")
            await self._end("COMMIT")

    async def give_up(self) -> None:
        """End it after an error."""
        await self._end(self.random.choice(("ROLLBACK", "COMMIT")))

    async def _end(self, command: str) -> None:
        goes_out = self.client.connected

        def ended(reply: Reply) -> None:
            code = reply.code
            if command == "ROLLBACK":
                if code:
                    self.client.leave()  # the transaction may still be open
                outcome = ROLLED_BACK
            elif not code:
                outcome = COMMITTED
                if self._code:
                    self.client.note_odd(self.record, (f"COMMIT after {self._code}",), "Ok")
            else:
                outcome = UNKNOWN if code in OPEN and goes_out else ROLLED_BACK
            self.history.end(self.record, outcome, self._code or code or None)

        end = self.client.send(self.record, command).addCallback(ended)
        looks = [look() for look in self.then] if goes_out and self.random.random() < 0.3 else []
        for each in [*self._open, *looks]:
            await each
        await end
