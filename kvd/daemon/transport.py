"""The fast stream transport: a Twisted protocol on the event loop's own transport.

Twisted's transports queue what is written for the reactor's next turn, and tell the poller twice a request
what they wait for. An asyncio transport writes at once; uvloop's does so in C.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

log = Logger()

BUFFER = 64 * 1024
"""Bytes that may wait to be sent before the producer is paused; it goes on when a quarter is left."""


class Accepted(NamedTuple):
    """What a port hands to :meth:`LoopTransport.makeConnection`.

    A :class:`twisted.internet.tcp.Port` calls its attribute ``transport`` to make a transport for what it has accepted;
    this stands in that place, and takes the same arguments.
    """

    socket: socket.socket
    protocol: LoopTransport
    client: object
    port: tcp.Port
    number: int
    reactor: object


@implementer(ITCPTransport, IConsumer, IPushProducer)
class LoopTransport(asyncio.Protocol):
    """A transport to its Twisted protocol, a protocol to its asyncio transport (here: the stream).

    It does what Twisted's own transport does, but for these: Nagle's algorithm is off at first, as with
    asyncio; a client that stops sending, to a protocol that knows no half-close, still gets what was written.

    :param protocol: what it carries.
    """

    disconnecting = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol
        self._connected = False
        self._readable = True  # until the client sends no more, or we want no more
        self._writable = False  # until we end, one way or another
        self._paused = False  # we don't read for now
        self._early = b""  # came though we were paused
        self._half_closing = False  # loseWriteConnection was called
        self._half_closed = False  # and nothing stands in its way any more
        self._reason: Failure | None = None  # why we abort
        self._producer: IPushProducer | IPullProducer | None = None
        self._streaming = False  # it is a push producer
        self._full = False  # more than BUFFER waits to be sent

    # From the port.

    def makeConnection(self, accepted: Accepted) -> None:
        """A connection has been accepted: have the loop make its stream."""
        self._socket = accepted.socket
        self._port = accepted.port
        self._host: IPv4Address | IPv6Address = _address(self._socket, self._socket.getsockname())
        self._peer: IPv4Address | IPv6Address = _address(self._socket, accepted.client)
        self._loop = asyncio.get_running_loop()
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self, self._socket)
        except Exception:
            log.failure("a connection could not be taken over from {port}", port=self._port)
            self._socket.close()
            self._abandon()

    def _abandon(self) -> None:
        """The protocol was made for a connection that it will never see; it may want to know."""
        abandoned = getattr(self._protocol, "connectionAbandoned", None)
        if abandoned is not None:
            abandoned()

    # From the loop.

    def connection_made(self, stream: asyncio.BaseTransport) -> None:
        """The stream is there."""
        self._stream = cast(asyncio.Transport, stream)
        if self._port.disconnecting or not self._port.connected:
            self._stream.abort()  # stopListening came in between, and its caller expects no more connections
            self._abandon()
            return
        self._connected = self._writable = True
        self._stream.set_write_buffer_limits(BUFFER, BUFFER // 4)
        self.setTcpNoDelay(True)
        try:
            self._protocol.makeConnection(self)
        except Exception:
            self.fail()

    def hand_over(self, receiver: Any) -> None:
        """Have what arrives go to another asyncio protocol, which leaves to this one what it does not do itself."""
        self._stream.set_protocol(receiver)

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self._paused:  # uvloop begins to read after connection_made, whatever was asked for there
            self._stream.pause_reading()
            self._early = data
            return
        try:
            self._protocol.dataReceived(data)
        except Exception:
            self.fail()

    def _deliver_early(self) -> None:
        if self._early and not self._stream.is_closing():
            data, self._early = self._early, b""
            self._stream.resume_reading()
            self.data_received(data)

    def eof_received(self) -> bool:
        """The client sends no more.

        :return: whether the stream stays open; if not, it is closed after what was written.
        """
        if self._paused:  # as in data_received; it is told again once we resume
            return True
        self._readable = False
        half_closeable = IHalfCloseableProtocol(self._protocol, None)
        if half_closeable is None:
            self._writable = False
            return False
        try:
            half_closeable.readConnectionLost()
        except Exception:
            self.fail()
        return True

    def pause_writing(self) -> None:
        """More than BUFFER waits to be sent."""
        self._full = True
        if self._producer is not None and self._streaming:
            cast(IPushProducer, self._producer).pauseProducing()

    def resume_writing(self) -> None:
        """Most of what waited is sent."""
        self._full = False
        # Not now: asyncio's transport does not expect to be closed while it calls us.
        self._loop.call_soon(self._write_connection_lost if self._half_closed else self._feed)

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is closed."""
        if not self._connected:
            return
        self._connected = self._writable = False
        if self._reason is None:
            self._reason = Failure(ConnectionDone() if exc is None else ConnectionLost())
        producer, self._producer = self._producer, None
        protocol = self._protocol
        del self._protocol
        try:
            if producer is not None:
                producer.stopProducing()
        except Exception:
            log.failure("a producer could not be stopped")
        try:
            protocol.connectionLost(self._reason)
        except Exception:
            log.failure("a protocol failed at the end of its connection")

    # Writing.

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent. Nothing happens once the connection is closing."""
        if self._writable:
            self._stream.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send all of these."""
        self.write(b"".join(data))

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Have a producer paused and resumed (streaming), or asked for more while there is room (not streaming).

        :raise RuntimeError: if there is one already.
        """
        if self._producer is not None:
            raise RuntimeError(f"there is a producer already, {self._producer!r}; {producer!r} can't be one too")
        if not self._writable:
            producer.stopProducing()
            return
        self._producer = cast(IPushProducer | IPullProducer, producer)
        self._streaming = streaming
        if not streaming:
            self._loop.call_soon(self._feed)
        elif self._full:
            self.pause_writing()

    def _feed(self) -> None:
        """Let the producer go on."""
        if self._producer is None or self._full or not self._writable:
            return
        try:
            self._producer.resumeProducing()
        except Exception:
            self.fail()
        if not self._streaming:
            self._loop.call_soon(self._feed)

    def unregisterProducer(self) -> None:
        """The producer is done; what was to happen after it happens now."""
        self._producer = None
        if not self._writable:
            return
        if self.disconnecting:
            self._close()
        elif self._half_closing:
            self._close_writing()

    # Reading.

    def pauseProducing(self) -> None:
        """Read no more for now."""
        self._paused = True
        self._stream.pause_reading()

    def resumeProducing(self) -> None:
        """Read on."""
        if self._readable:
            self._paused = False
            if self._early:
                self._loop.call_soon(self._deliver_early)
            else:
                self._stream.resume_reading()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    # Closing.

    def loseConnection(self) -> None:
        """Close the connection, after what was written and what a producer still writes."""
        self.disconnecting = True
        self._readable = False
        self.pauseProducing()
        if self._producer is None:
            self._close()

    def _close(self) -> None:
        self._writable = False
        self._stream.close()

    def loseWriteConnection(self) -> None:
        """Close our direction alone, after what was written and what a producer still writes."""
        if self._writable:
            self._half_closing = True
            if self._producer is None:
                self._close_writing()

    def _close_writing(self) -> None:
        self._writable = False
        self._half_closed = True
        with suppress(OSError):  # as in Twisted; a client that is gone is noticed when we read
            self._stream.write_eof()
        self._stream.set_write_buffer_limits(0)  # so resume_writing comes when everything is sent
        if not self._full:
            self._loop.call_soon(self._write_connection_lost)

    def _write_connection_lost(self) -> None:
        half_closeable = IHalfCloseableProtocol(self._protocol, None) if self._connected else None
        if half_closeable is not None:
            try:
                half_closeable.writeConnectionLost()
            except Exception:
                self.fail()

    def abortConnection(self) -> None:
        """Close the connection at once, with a reset, and drop what waits to be sent."""
        if self._reason is None:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._abort(Failure(ConnectionAborted()))

    def fail(self) -> None:
        """The protocol has raised an exception: log it, and close the connection because of it."""
        failure = Failure()
        log.failure("a connection ends because its protocol has failed", failure)
        self._abort(failure)

    def _abort(self, reason: Failure) -> None:
        self._reason = reason
        self._writable = False
        self._stream.abort()

    # About the connection.

    def getHandle(self) -> socket.socket:
        """The socket."""
        return self._socket

    def unsent(self) -> int:
        """How many bytes of what was written wait to be sent."""
        return self._stream.get_write_buffer_size() if self._connected else 0

    def getHost(self) -> IPv4Address | IPv6Address:
        """Our address."""
        return self._host

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The client's address; a UNIX client mostly has none."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """Whether Nagle's algorithm is off."""
        if self._socket.family == socket.AF_UNIX:
            return False
        return bool(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Switch Nagle's algorithm off or on. UNIX sockets have none."""
        with suppress(OSError):  # macOS refuses it on a connection that was reset, too
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether a silent connection is probed."""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Have the system probe a silent connection, or not."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


def _address(skt: socket.socket, name: Any) -> Any:
    """The address that a socket's name stands for. ITCPTransport does not know that a UNIXAddress may be one."""
    if skt.family == socket.AF_UNIX:
        return UNIXAddress(name or None)
    if skt.family == socket.AF_INET6:
        host, _ = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)  # with its scope
        return IPv6Address("TCP", host, *name[1:])
    return IPv4Address("TCP", *name)
