"""A stream of requests: bytes in, replies in order, back-pressure; the same for every protocol that has a codec.

What arrives is cut into requests and answered in turns, see :mod:`kvd.core.connection`; all replies of a turn leave
together, see :mod:`kvd.daemon.output`. Nothing is read from the connection while a store's answer is outstanding, while
the client does not read its replies, while too much waits to be durable, and between the turns of a long batch. So
replies keep the order of their requests, and no client makes the server hold more than a bounded number of bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.core.codec import Codec
from kvd.core.connection import Connection
from kvd.core.lane import Lane
from kvd.core.output import Output
from kvd.core.session import Session
from kvd.daemon.addresses import shown_address
from kvd.daemon.service import StoreService
from kvd.daemon.transport import LoopTransport
from kvd.errors import Busy

MOST_HELD = 64 * 1024
"""Bytes of replies that may wait to be durable before nothing more is read."""


class IStreamTransport(ITCPTransport, IConsumer, IPushProducer):
    """What a stream needs of a transport; every stream transport of Twisted has it."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class StreamProtocol(Protocol):
    """One connection. It is the producer of its transport, which pauses it while the client reads too slowly.

    :param service: the store service that it works on.
    :param codec: cuts requests and prints replies.
    """

    transport: IStreamTransport
    session: Session

    def __init__(self, service: StoreService, codec: Codec) -> None:
        self._service = service
        self._codec = codec
        self._full = False  # the client does not read fast enough
        self._between = False  # a turn is over, and the next one has not begun
        self._waiting: Deferred[tuple[None, int]] | None = None  # the store has not answered
        self._ended = False  # the client sends no more
        self._closed = False  # we answer no more
        self._read = 0  # bytes of replies that had been written before the client fell behind

    def connectionMade(self) -> None:
        """A client has come."""
        self.session = self._service.open_session(self, shown_address(self.transport.getPeer()))
        self._output = Output(self._service.outbox, self.transport, self._moved)
        self._connection = Connection(self.session, self._codec, self._output)
        self.transport.registerProducer(self, True)
        if isinstance(self.transport, LoopTransport):
            self.transport.hand_over(Lane(self._connection, self._see_to, self.transport))

    # Requests in.

    def dataReceived(self, data: bytes) -> None:
        """Answer the requests that have arrived whole."""
        if self._connection.take(data):
            self._see_to()

    def _see_to(self) -> None:
        """Something has arrived, and there is more to do than to send the replies of one turn."""
        connection = self._connection
        if not connection.reading:  # the transport had more to give than was asked for
            self._hold()
        elif connection.late:
            connection.late = False
            self._wait_for_turn()  # to read on, if no request is whole yet
            self._set_reading()
        else:
            self._after_turn()

    @property
    def _blocked(self) -> bool:
        """Whether nothing more can be answered until the client has read, or the store has synced."""
        return self._full or self._output.held > MOST_HELD

    # Replies out.

    def _turn(self) -> None:
        """Answer what waits, until the turn is over or the store must be waited for."""
        self._connection.waiting = self._connection.turn()
        self._after_turn()

    def _after_turn(self) -> None:
        waiting, self._connection.waiting = self._connection.waiting, None
        if waiting is not None:
            self._waiting = self._service.walker.take(waiting, lambda: self._closed)
            self._waiting.addCallback(self._answered)
            self._set_reading()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """See to what comes after the replies of a turn."""
        if self.session.closing or (self._ended and not self._codec.ready()):
            self.close()
        elif self._codec.ready() and not self._blocked and not self._between:
            self._wait_for_turn()
        self._set_reading()

    def _wait_for_turn(self) -> None:
        self._between = True
        self._service.turns.add(self._next_turn)

    def _next_turn(self) -> None:
        self._between = False
        if not self._blocked and not self._closed:
            self._turn()

    def _set_reading(self) -> None:
        wanted = not (
            self._codec.ready() or self._between or self._blocked or self._waiting or self._ended or self._closed
        )
        if wanted != self._connection.reading:
            self._connection.reading = wanted
            if wanted:
                self._connection.reads_again()
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()
        self._hold()

    # Limits.

    def _hold(self) -> None:
        """Account for the bytes that the buffers of this connection take now."""
        buffers = self.session.buffers
        before = buffers.held
        unread = self._output.written - self._read if self._full else 0
        buffers.set(self._codec.bytes_held() + unread + self._output.held)
        if buffers.held > before:
            self._service.core.budget.relieve()

    def overdue(self, now: float) -> str | None:
        """Why the client is to be disconnected, if it has been silent, or at one request, for too long."""
        limits = self._service.core.limits
        since = self._connection.line_since
        if since is not None and self._connection.reading and now - since > limits.line_time > 0:
            return f"no whole line came within {limits.line_time:g} seconds"
        if self._connection.reading and now - self._connection.active > limits.idle_time > 0:
            return f"it was silent for more than {limits.idle_time:g} seconds"
        return None

    # Waiting for the store.

    def _answered(self, answer: tuple[None, int]) -> None:
        """What was waited for is there."""
        self._waiting = None
        if not self._closed:
            self._output.send(self._codec.take(), answer[1])
            self._go_on()

    # What the transport and the outbox tell.

    def pauseProducing(self) -> None:
        """The client does not read its replies: answer nothing more, and read nothing more."""
        self._full = True
        self._read = self._output.before
        self._set_reading()

    def resumeProducing(self) -> None:
        """The client has read."""
        self._full = False
        self._moved()

    def _moved(self) -> None:
        """Replies have left."""
        if self._closed:
            self._close_when_empty()
        elif not self._waiting and not self._between:
            self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost follows."""

    def readConnectionLost(self) -> None:
        """The client sends no more; it still gets every reply, then the close."""
        self._ended = True
        if not self._waiting and not self._between:
            self._go_on()

    def writeConnectionLost(self) -> None:
        """We never close one direction alone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended, one way or another: roll back, but let an accepted COMMIT finish."""
        self._drop_everything()
        if self._waiting is not None and not self.session.committing:
            self._waiting.cancel()
        self._service.close_session(self.session)

    # The end, from our side.

    def close(self) -> None:
        """Send what was answered, then close the connection."""
        if not self._closed:
            self._closed = True
            self._connection.reading = False
            self._codec.clear()
            self._output.flush()
            self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self._output.empty():
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once. What it holds is given up now; the transport may take its time."""
        self._drop_everything()
        self.transport.abortConnection()

    def _drop_everything(self) -> None:
        self._closed = True
        self._connection.reading = False
        self._codec.clear()
        self._output.close()
        self.session.buffers.set(0)

    def stop(self) -> None:
        """The server stops: close the connection, after the reply that is under way."""
        self.session.closing = True
        if self._waiting is None:
            self.session.close()
            self.close()

    def lose(self) -> None:
        """What the client would be told of next will never be durable: close without a word."""
        if self._output.held:
            self.abort()


class Refusal(Protocol):
    """Tells a client that there are too many, and closes.

    :param codec: prints it.
    :param limit: how many clients there may be.
    """

    transport: IStreamTransport

    def __init__(self, codec: Codec, limit: int) -> None:
        self._codec = codec
        self._limit = limit

    def connectionMade(self) -> None:
        """A client has come."""
        self._codec.print_error(Busy(f"the server has {self._limit} clients, its limit; try again later"))
        self.transport.write(self._codec.take())
        self.transport.loseConnection()


class StreamFactory(ServerFactory):
    """Makes a protocol for each connection, unless there are too many.

    :param service: the store service that all of them work on.
    :param codec: makes the codec of a connection.
    :param protocol: makes its protocol.
    """

    noisy = False

    def __init__(
        self,
        service: StoreService,
        codec: Callable[[], Codec],
        protocol: Callable[[StoreService, Codec], StreamProtocol] = StreamProtocol,
    ) -> None:
        self.service = service
        self._codec = codec
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> StreamProtocol | Refusal:
        """A protocol for a new connection."""
        if self.service.core.full():
            return Refusal(self._codec(), self.service.core.limits.clients)
        return self._protocol(self.service, self._codec())
