"""Batches of requests, and the connections of ``kvd bench``, which send them and count the lines that come back.

It must be faster than what it measures. So no request waits for an object of its own, replies are not parsed, and
connections are taken over by the event loop's own transports where that is possible.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint, ISystemHandle
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from kvd import requests
from kvd.errors import Internal

ERROR: Final = b'{"status": "Error"'
"""How an Error reply begins. It can't be part of another reply, because there its quotes would be escaped."""


@dataclass
class Kind:
    """One kind of requests, and what was measured.

    :ivar latencies: by microseconds, how many batches took that long, from the first byte sent to the last received.
    """

    name: str
    requests: int = 0
    latencies: dict[int, int] = field(default_factory=dict)

    def percentile(self, percent: float) -> float:
        """The latency in seconds that this percentage of the batches did not exceed; 0 if there were none."""
        left = sum(self.latencies.values()) * percent / 100
        for microseconds, count in sorted(self.latencies.items()):
            left -= count
            if left <= 0:
                return microseconds / 1e6
        return 0.0


class Batch(NamedTuple):
    """What goes out at once.

    :ivar requests: how many requests it counts as.
    :ivar second: what goes out at once after the replies to ``lines``.
    """

    kind: Kind
    requests: int
    lines: bytes
    second: bytes = b""


class Connection(asyncio.Protocol):
    """One client. What it does itself counts as the server's time, so it does little.

    :param note_errors: called with replies when there is an error among them.
    :ivar lost: what ended the connection; None while it is there.
    """

    def __init__(self, note_errors: Callable[[bytes], None]) -> None:
        self._note_errors = note_errors
        self._pieces: list[bytes] = []  # of a line whose end has not come
        self._awaited = 0  # lines
        self._batch: Batch | None = None
        self._second = b""
        self._since = 0.0
        self._idle: Deferred[None] | None = None
        self._said = b""  # the last replies with an error among them
        self.lost: Failure | None = None

    @property
    def progress(self) -> tuple[float, bytes, int] | None:
        """Changes with each line that comes; None while no reply is outstanding."""
        return None if self._idle is None else (self._since, self._second, self._awaited)

    def connection_made(self, transport: Any) -> None:
        """Take a transport: the loop's, or one of Twisted's, which does the same here."""
        self._write: Callable[[bytes], None] = transport.write
        self.close: Callable[[], None] = getattr(transport, "loseConnection", None) or transport.close

    def work(self, batches: Iterator[Batch]) -> Deferred[None]:
        """Send batches, each after the replies to the one before it.

        :return: a Deferred that fires at the end, and fails if the connection is lost before that.
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
        """Count replies, or pieces of them."""
        if self._pieces or data[-1] != 10:
            data = self._whole_lines(data)
        if ERROR in data:
            self._said = data
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
        """Note that the connection has ended, and why."""
        self.lost = self.lost or Failure(_turned_away(self._said) or exc or ConnectionError(CLOSED))
        self._batch = None
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.errback(self.lost)


CLOSED: Final = "the server closed a connection"


def _turned_away(said: bytes) -> Exception | None:
    """The error for a connection that a server closes and says why."""
    try:
        reply = requests.reply(said.splitlines()[-1])
    except (Internal, IndexError):
        return None
    return ConnectionError(reply["mesg"]) if reply.get("code") in requests.TURNED_AWAY else None


class _Carrier(Protocol):
    """Connects through Twisted's endpoint, and carries what can't be handed to the loop, such as TLS."""

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
