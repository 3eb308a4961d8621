"""The load engine of ``kvd bench``: connections that send prepared batches and count the lines that come back.

It must be faster than what it measures. So no request waits for an object of its own, replies are not parsed, and
connections are taken over by the event loop's own transports where that can be.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final, NamedTuple, cast

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint, ISystemHandle
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

GROUPS: Final = {"get": "text", "put": "text", "incr": "count", "transaction": "own"}
"""The kinds of requests, and which group of keys each of them works on."""
KINDS: Final = tuple(GROUPS)

ERROR: Final = b'{"status": "Error"'
"""How an Error reply begins. It can't stand inside a reply, for there the quotes would be escaped."""

PREPARED: Final = 100_000
"""Requests of a kind that are prepared, if that takes no more than as many bytes as the next figure says."""
PREPARED_BYTES: Final = 32 * 1024 * 1024

FILL: Final = 64 * 1024
"""Bytes of requests that go out at once while keys are stored, and removed."""


@dataclass
class Load:
    """What is to be done.

    :ivar clients: connections.
    :ivar pipeline: requests that a connection sends before it waits for the replies; a transaction is sent alone.
    :ivar requests: how many in all; a transaction counts as one.
    :ivar mix: kinds of requests, of :data:`KINDS`. Each connection sends one batch of each in turn.
    :ivar value_size: bytes of a value.
    :ivar keys: how many keys there are. INCR and transactions have as many of their own, and each client's
        transactions have a share of these for themselves, so that nothing conflicts.
    :ivar prefix: what all keys begin with.
    """

    clients: int = 50
    pipeline: int = 1
    requests: int = 100_000
    mix: tuple[str, ...] = KINDS
    value_size: int = 3
    keys: int = 10_000
    prefix: str = "kvd-bench:"


@dataclass
class Kind:
    """One kind of requests, and what was measured.

    :ivar latencies: how many batches took so many microseconds, from the first byte sent to the last one received.
    """

    name: str
    requests: int = 0
    latencies: dict[int, int] = field(default_factory=dict)

    def percentile(self, percent: float) -> float:
        """The latency in seconds that so many of the batches did not exceed; 0 if there were none."""
        left = sum(self.latencies.values()) * percent / 100
        for microseconds, count in sorted(self.latencies.items()):
            left -= count
            if left <= 0:
                return microseconds / 1e6
        return 0.0


@dataclass
class Result:
    """What was measured.

    :ivar seconds: wall time.
    :ivar cpu_seconds: processor time that the benchmark itself took in it.
    :ivar errors: how many replies were errors, by their code.
    :ivar examples: one reply of each of these.
    """

    kinds: list[Kind]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """How many were answered."""
        return sum(kind.requests for kind in self.kinds)

    def note_errors(self, replies: bytes) -> None:
        """Count those of some whole replies that are errors."""
        for line in replies.splitlines():
            if line.startswith(ERROR):
                code = str(json.loads(line).get("code"))
                self.errors[code] = self.errors.get(code, 0) + 1
                self.examples.setdefault(code, line.decode("ascii"))


class Batch(NamedTuple):
    """What goes out at once, and behind its replies at once again."""

    kind: Kind
    requests: int
    lines: bytes
    second: bytes = b""


class Connection(asyncio.Protocol):
    """One client. Only the time from here to the server and back counts, so this is short.

    :param note_errors: called with replies, when there is an error among them.
    """

    def __init__(self, note_errors: Callable[[bytes], None]) -> None:
        self._note_errors = note_errors
        self._pieces: list[bytes] = []  # of a line whose end has not come
        self._awaited = 0  # lines
        self._batch: Batch | None = None
        self._second = b""
        self._idle: Deferred[None] | None = None
        self.lost: Failure | None = None

    def connection_made(self, transport: Any) -> None:
        """The loop's transport is there; or Twisted's, for what we need is the same."""
        self._write: Callable[[bytes], None] = transport.write
        self.close: Callable[[], None] = getattr(transport, "loseConnection", None) or transport.close

    def work(self, batches: Iterator[Batch]) -> Deferred[None]:
        """Send batches, each when the one before it is answered.

        :return: a Deferred of the end; it fails if the connection is lost before.
        """
        idle = self._idle = Deferred()
        self._batches = batches
        if self.lost is None:
            self._next()
        else:
            self.connection_lost(None)
        return idle

    def _next(self) -> None:
        batch = self._batch = next(self._batches, None)
        if batch is None:
            if self._idle is not None:
                idle, self._idle = self._idle, None
                idle.callback(None)
            return
        self._second = batch.second
        self._awaited = batch.lines.count(b"\n")
        self._since = time.perf_counter()
        self._write(batch.lines)

    def data_received(self, data: bytes) -> None:
        """Replies, or pieces of them."""
        if self._pieces or data[-1] != 10:
            data = self._whole_lines(data)
        if ERROR in data:
            self._note_errors(data)
        self._awaited -= data.count(b"\n")
        if self._awaited or self._batch is None:
            return
        if self._second:
            lines, self._second = self._second, b""
            self._awaited = lines.count(b"\n")
            self._write(lines)
            return
        kind = self._batch.kind
        kind.requests += self._batch.requests
        microseconds = int((time.perf_counter() - self._since) * 1e6)
        kind.latencies[microseconds] = kind.latencies.get(microseconds, 0) + 1
        self._next()

    def _whole_lines(self, data: bytes) -> bytes:
        end = data.rfind(b"\n") + 1
        if not end:
            self._pieces.append(data)
            return b""
        whole = b"".join([*self._pieces, data[:end]])
        self._pieces = [data[end:]] if end < len(data) else []
        return whole

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.lost = self.lost or Failure(exc or ConnectionError("the server has closed a connection"))
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.errback(self.lost)


class _Carrier(Protocol):
    """Connects through Twisted's endpoint, and carries what can't be handed to the loop, as TLS."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def dataReceived(self, data: bytes) -> None:
        self._connection.data_received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connection.connection_lost(cast(Exception, reason.value))


async def connect(reactor: Any, endpoint: IStreamClientEndpoint, connection: Connection) -> Connection:
    """Connect, and hand the socket to the event loop if it is a plain one.

    :raise Exception: whatever the endpoint fails with.
    """
    carrier: Any = await endpoint.connect(Factory.forProtocol(lambda: _Carrier(connection)))
    transport = carrier.transport
    handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
    if isinstance(reactor, AsyncioSelectorReactor) and isinstance(handle, socket.socket):
        cast(IPushProducer, transport).pauseProducing()  # from now on Twisted does nothing with it
        loop = asyncio.get_running_loop()
        await Deferred.fromFuture(loop.create_task(loop.connect_accepted_socket(lambda: connection, handle)))
        if handle.family != socket.AF_UNIX:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    else:
        connection.connection_made(transport)
    return connection


class Bench:
    """A benchmark: connections, and the phases that they go through.

    :param reactor: the asyncio reactor, if it is to be fast.
    :ivar connections: those that are open, and those that were lost.
    :ivar result: what was measured so far.
    """

    def __init__(self, reactor: Any, endpoint: IStreamClientEndpoint, load: Load) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._load = load
        self._left = load.requests
        self._groups = {GROUPS[name] for name in load.mix}
        self.connections: list[Connection] = []
        self.result = Result([Kind(name) for name in dict.fromkeys(load.mix)])

    async def connect(self) -> None:
        """Open all connections.

        :raise Exception: whatever the endpoint fails with.
        """
        for _ in range(self._load.clients):
            self.connections.append(await connect(self._reactor, self._endpoint, Connection(self.result.note_errors)))

    async def fill(self) -> None:
        """Store every key that is going to be read.

        :raise Exception: if a connection is lost.
        """
        value = "x" * self._load.value_size
        await self._everywhere(f"PUT {key} {value}\n" for key in self._keys(self._groups - {"count"}))

    async def run(self) -> Result:
        """Do what is to be measured.

        :raise Exception: if a connection is lost.
        """
        prepared: dict[str, Iterator[Batch]] = {}
        for kind in self.result.kinds:
            if kind.name != "transaction":
                prepared[kind.name] = cycle(self._prepared(kind))
        works = [(connection, self._work(number, prepared)) for number, connection in enumerate(self.connections)]
        gc.collect()
        gc.disable()  # nothing of this makes cycles, and a pause of ours is not one of the server
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        try:
            await self._all(works)
        finally:
            gc.enable()
            self.result.seconds = time.perf_counter() - seconds
            self.result.cpu_seconds = time.process_time() - cpu_seconds
        return self.result

    def stop(self) -> None:
        """Send nothing more that is to be measured."""
        self._left = 0

    async def remove(self) -> None:
        """Remove every key that was stored.

        :raise Exception: if a connection is lost on the way.
        """
        await self._everywhere(f"DEL {key}\n" for key in self._keys(self._groups))

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()

    async def _all(self, works: Iterable[tuple[Connection, Iterator[Batch]]]) -> None:
        """Have connections do their work, and wait for all of them, also if one is lost."""

        def lost(failure: Failure) -> Failure:
            self.stop()
            return failure

        ended = [connection.work(batches).addErrback(lost) for connection, batches in works]
        for _, failure in await DeferredList(ended, consumeErrors=True):
            if failure is not None:
                failure.raiseException()

    async def _everywhere(self, requests: Iterator[str]) -> None:
        batches = _batches(requests)
        await self._all((connection, batches) for connection in self.connections if connection.lost is None)

    # What is sent.

    def _key(self, group: str, number: int) -> str:
        return f"{self._load.prefix}{group}:{number:06}"

    def _keys(self, groups: set[str]) -> Iterator[str]:
        for group in sorted(groups):
            for number in range(self._load.keys):
                yield self._key(group, number)

    def _work(self, number: int, prepared: dict[str, Iterator[Batch]]) -> Iterator[Batch]:
        """The batches of one connection, until all connections together have sent enough."""
        kinds = {kind.name: kind for kind in self.result.kinds}
        sources = [prepared.get(name) or self._transactions(number, kinds[name]) for name in self._load.mix]
        turn = number % len(sources)
        for source in cycle(sources[turn:] + sources[:turn]):
            if self._left <= 0:
                return
            batch = next(source)
            self._left -= batch.requests
            yield batch

    def _prepared(self, kind: Kind) -> list[Batch]:
        """Batches of one kind, for all connections: keys at random."""
        load = self._load
        make: dict[str, Callable[[int], str]] = {
            "get": lambda number: f"GET {self._key('text', number)}\n",
            "put": lambda number: f"PUT {self._key('text', number)} {'x' * load.value_size}\n",
            "incr": lambda number: f"INCR {self._key('count', number)}\n",
        }
        request = make[kind.name]
        requests = min(PREPARED, PREPARED_BYTES // len(request(0)), load.requests)
        return [
            Batch(
                kind,
                load.pipeline,
                "".join(request(random.randrange(load.keys)) for _ in range(load.pipeline)).encode(),
            )
            for _ in range(max(2, requests // load.pipeline))
        ]

    def _transactions(self, number: int, kind: Kind) -> Iterator[Batch]:
        """Read two, write two, in two round trips; a client has keys of its own, so nothing conflicts."""
        load = self._load
        value = "x" * load.value_size
        first = number * load.keys // load.clients
        behind = max((number + 1) * load.keys // load.clients, first + 1)
        while True:
            one = self._key("own", random.randrange(first, behind))
            other = self._key("own", random.randrange(first, behind))
            reads = f"START\nGET {one}\nGET {other}\n".encode()
            yield Batch(kind, 1, reads, f"PUT {one} {value}\nPUT {other} {value}\nCOMMIT\n".encode())


def _batches(requests: Iterator[str]) -> Iterator[Batch]:
    """Requests of which nothing is measured, as many in a batch as :data:`FILL` allows."""
    kind = Kind("")
    lines: list[str] = []
    size = 0
    for line in requests:
        lines.append(line)
        size += len(line)
        if size >= FILL:
            yield Batch(kind, len(lines), "".join(lines).encode())
            lines, size = [], 0
    if lines:
        yield Batch(kind, len(lines), "".join(lines).encode())
