"""Clients of a simulation that write bytes themselves: many requests without waiting, rubbish among them.

They read slowly, shut down their sending side, or vanish. Each reply must be the one that belongs to its request.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kvd import requests, wire
from kvd.errors import Internal, KvdError
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, Operation, Transaction
from tests.support.simulated_clients import ACCOUNTS, Crowd

HALF_LINE = b"PUT half_a_line x"

RUBBISH = [
    (b"PUT \xff x\n", "BAD_REQUEST"),
    (b"[\n", "BAD_REQUEST"),
    (b'["GET", true]\n', "BAD_REQUEST"),
    (b'["GET", 1]\r\n', "BAD_ARGUMENTS"),
    (b"GET\n", "BAD_ARGUMENTS"),
    (b"INCR register1 many\r\n", "BAD_ARGUMENTS"),
    (b"GETT a\n", "UNKNOWN_COMMAND"),
    (b"GET " + b"k" * 1025 + b"\n", "TOO_LARGE"),
]


class Request(NamedTuple):
    """One request.

    :ivar line: as it is sent, with its end.
    :ivar take: is given the reply, as bytes; None if it will never come.
    """

    line: bytes
    take: Callable[[bytes | None], None]


class Typewriter(Protocol):
    """A connection that takes each reply for that of the oldest request that has none yet.

    :ivar over: the connection has ended.
    """

    transport: Any

    def __init__(self, crowd: Crowd) -> None:
        self.over = False
        self._crowd = crowd
        self._waiting: deque[Request] = deque()
        self._partial = b""
        self._quits = False  # what is sent behind a QUIT is dropped
        self._turned_away = False
        self._watchers: list[tuple[Deferred[None], bool]] = []

    def send(self, batch: list[Request], quits: bool = False) -> None:
        """Send requests, all at once."""
        self._quits = self._quits or quits
        self._waiting.extend(batch)
        self.transport.write(b"".join(request.line for request in batch))

    def wait(self, for_end: bool = False) -> Deferred[None]:
        """A Deferred that fires when all replies are there, or the connection has ended."""
        waiting: Deferred[None] = Deferred()
        self._watchers.append((waiting, for_end))
        self._look()
        return waiting

    def _look(self) -> None:
        watchers, self._watchers = self._watchers, []
        for waiting, for_end in watchers:
            if self.over or not (self._waiting or for_end):
                self._crowd.clock.callLater(0, waiting.callback, None)
            else:
                self._watchers.append((waiting, for_end))

    def dataReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._received(line)
        self._look()

    def _received(self, line: bytes) -> None:
        stalled = b'"code": "IDLE"' in line and self._crowd.network.stalls > 0  # the rest of a line was held up
        if b'"code": "BUSY"' in line or stalled:
            self._turned_away = True
        elif not self._waiting:
            self._crowd.problems.append(f"order: the reply {line!r} belongs to no request")
        else:
            request = self._waiting.popleft()
            try:
                request.take(line)
            except (LookupError, TypeError, ValueError, AttributeError, Internal) as error:
                self._crowd.problems.append(f"order: {request.line[:60]!r} got the reply {line[:60]!r} ({error})")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True
        cut_short = reason.check(ConnectionDone) is None or self._turned_away or self._quits or self._crowd.stopping
        if self._waiting and not self.transport.disconnecting and not cut_short:
            self._crowd.problems.append(f"order: {len(self._waiting)} requests got no reply before an orderly end")
        for request in self._waiting:
            request.take(None)
        self._waiting.clear()
        self._look()


class Typist:
    """One client after the other that writes bytes itself."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._rand = crowd.rand
        self._own: list[tuple[str, str]] = []  # keys that this one inserted, with their prefixes

    async def work(self) -> None:
        """Connect, type, and leave; some times."""
        for _ in range(self._rand.randint(1, 3)):
            link = Typewriter(self._crowd)
            try:
                await connectProtocol(self._crowd.network, link)
            except ConnectionRefusedError:
                await deferLater(self._crowd.clock, 0.5)
            else:
                await self._type(link)
            if self._crowd.stopping:
                return

    async def _type(self, link: Typewriter) -> None:
        rand, number = self._rand, next(self._crowd.numbers)
        for _ in range(rand.randint(1, 6)):
            link.send(self._batch(number))
            if rand.random() < 0.1:
                link.transport.pauseProducing()
                self._crowd.clock.callLater(rand.uniform(0, 3), link.transport.resumeProducing)
            await (link.wait() if rand.random() < 0.7 else self._crowd.pause())
            if link.over:
                return
        how = rand.choice(["shuts", "shuts", "quits", "closes", "vanishes", "breaks off", "speaks HTTP"])
        self._crowd.network.tell(f"{link.transport.name} {how}")
        if how == "quits":
            link.send([Request(b"QUIT\n", lambda reply: None), *self._batch(number)], quits=True)
        elif how == "speaks HTTP":
            link.send([self._refused(b"GET / HTTP/1.1\r\n", "BAD_REQUEST")], quits=True)
        elif how == "closes":
            link.transport.loseConnection()
        elif how == "vanishes":
            link.transport.abortConnection()
        else:
            if how == "breaks off":
                link.transport.write(HALF_LINE)
            link.transport.loseWriteConnection()
        await link.wait(for_end=True)

    def _batch(self, number: int) -> list[Request]:
        batch: list[Request] = []
        flood = self._rand.random() < 0.01
        for _ in range(1000 if flood else self._rand.choice([1, 2, 5, 20])):
            what = self._rand.random()
            if flood or what < 0.3:
                batch.append(self._ping())
            elif what < 0.4:
                batch.append(self._refused(*self._rand.choice(RUBBISH)))
            elif what < 0.8:
                batch.append(self._plain(number))
            else:
                batch += self._transaction(number)
        return batch

    def _line(self, words: tuple[wire.Word, ...]) -> bytes:
        """A request in one of its forms, perhaps with an empty line before it."""
        empty = self._rand.choice([b"", b"", b"", b"\r\n", b"  \n"])
        if None in words or "" in words or self._rand.random() < 0.5:
            return empty + wire.request(*words)
        typed = " ".join(map(str, words)).encode()
        return empty + self._rand.choice([b"", b" "]) + typed + self._rand.choice([b"\n", b"\r\n"])

    # What is sent, and what the reply must be.

    def _wrong(self, line: bytes, reply: bytes) -> None:
        self._crowd.problems.append(f"order: {line[:60]!r} got the reply {reply[:80]!r}")

    def _ping(self) -> Request:
        text = f"ping {next(self._crowd.elements)}"
        line = self._line(("PING", text))

        def take(reply: bytes | None) -> None:
            if reply is not None and json.loads(reply) != {"status": "Ok", "result": text}:
                self._wrong(line, reply)

        return Request(line, take)

    def _refused(self, line: bytes, code: str) -> Request:
        def take(reply: bytes | None) -> None:
            if reply is not None and json.loads(reply).get("code") != code:
                self._wrong(line, reply)

        return Request(line, take)

    def _plain(self, number: int) -> Request:
        words, record, note = self._crowd.plain(number)

        def take(reply: bytes | None) -> None:
            if reply is None:
                self._crowd.history.end(record, UNKNOWN)
                return
            try:
                self._crowd.history.end(record, note(requests.result(reply)))
            except KvdError as error:
                self._crowd.failed(record, error, True)

        return Request(self._line(words), take)

    def _transaction(self, number: int) -> list[Request]:
        """A whole transaction, to be sent without waiting for any reply."""
        crowd, rand = self._crowd, self._rand
        record = crowd.history.begin(number)
        commits, aborted, changes = rand.random() < 0.85, rand.random() < 0.15, rand.random() < 0.6
        words = ("START",) if changes else ("START", "READONLY")
        batch = [Request(self._line(words), self._noting(lambda _: crowd.history.started(record)))]
        if not changes:
            batch += self._reads(record)
        elif self._own and rand.random() < 0.4:
            key, prefix = self._own.pop()
            record.operations.append(Operation("delete", key, prefix))
            batch.append(Request(self._line(("DEL", key)), self._noting(lambda _: None)))
        else:
            batch += self._inserts(record)
        if aborted:
            batch.append(Request(rand.choice(RUBBISH)[0], lambda reply: None))

        def take(reply: bytes | None) -> None:
            if reply is None:
                crowd.history.end(record, UNKNOWN if commits and not aborted else ROLLED_BACK)
                return
            try:
                requests.result(reply)
            except KvdError as error:
                crowd.failed(record, error, True)
            else:
                crowd.history.end(record, COMMITTED if commits else ROLLED_BACK)
                if commits and aborted:
                    crowd.problems.append(f"order: a aborted transaction was answered {reply!r}")

        return [*batch, Request(self._line(("COMMIT" if commits else "ROLLBACK",)), take)]

    def _reads(self, record: Transaction) -> list[Request]:
        crowd = self._crowd
        prefix = self._rand.choice(crowd.shifts)
        scan = tuple(wire.scan_words(prefix, None, None, 10_000, False, True))

        def note(page: Any) -> None:
            record.operations.append(Operation("scan", prefix, None, page["items"]))

        return [
            Request(self._line(("MGET", *ACCOUNTS)), self._noting(lambda values: crowd.note_balances(record, values))),
            Request(self._line(scan), self._noting(note)),
        ]

    def _inserts(self, record: Transaction) -> list[Request]:
        batch = []
        for prefix in self._crowd.shifts:
            key = f"{prefix}{next(self._crowd.elements)}"
            record.operations.append(Operation("insert", key, prefix))
            batch.append(Request(self._line(("PUT", key, "x")), self._noting(lambda _: None)))
            self._own.append((key, prefix))
        return batch

    def _noting(self, note: Callable[[Any], object]) -> Callable[[bytes | None], None]:
        """What a request inside a transaction does with its reply: an error only aborts it."""

        def take(reply: bytes | None) -> None:
            if reply is not None:
                try:
                    result = requests.result(reply)
                except KvdError:
                    return
                note(result)

        return take
