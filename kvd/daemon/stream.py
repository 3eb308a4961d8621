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
from kvd.core.output import MOST_HELD, Output
from kvd.core.session import Session
from kvd.daemon.addresses import shown_address
from kvd.daemon.ending import Ending
from kvd.daemon.service import StoreService
from kvd.daemon.transport import LoopTransport
from kvd.errors import Busy, Idle, KvdError

NEWCOMER_TIME = 60.0
"""Seconds for which a client that has sent no whole request keeps its place when the server is full."""

CLOSING_TIME = 60.0
"""Seconds that a client has to go on reading what was sent to it while its connection is closing."""


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
        self._taken = 0  # bytes of replies that the client had taken at the last look
        self._taken_at = 0.0  # when it last took some
        service.core.expected += 1

    def connectionMade(self) -> None:
        """A client has come."""
        self._service.core.expected -= 1
        self.session = self._service.open_session(self, shown_address(self.transport.getPeer()))
        self._ending = Ending(self.transport, self._service.clock)
        self._output = Output(self._service.outbox, self.transport, self._moved)
        self._connection = Connection(self.session, self._codec, self._output)
        self.transport.registerProducer(self, True)
        if isinstance(self.transport, LoopTransport):
            self.transport.hand_over(Lane(self._connection, self._see_to, self.transport))
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpKeepAlive(True)  # or a client that vanishes stays for ever

    def connectionAbandoned(self) -> None:
        """The client was gone before it was there."""
        self._service.core.expected -= 1

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

    def is_silent_newcomer(self, now: float) -> bool | None:
        """Whether the client has been silent for long without ever having sent a whole request; None: it sent one."""
        if self._connection.spoken or self._closed:
            return None
        return now - self._connection.active > NEWCOMER_TIME

    def look_after(self, now: float) -> None:
        """End the connection if the client has been silent, at one request, or without reading for too long."""
        limits = self._service.core.limits
        if self._unread_for(now) > (limits.idle_time or (CLOSING_TIME if self._closed else float("inf"))):
            self._service.drop(self, "what was sent to it was not read")
            return
        connection = self._connection
        if not connection.reading or self._output.held:
            return
        since = connection.line_since
        if since is not None and now - since > limits.line_time > 0:
            self.dismiss(Idle(f"no whole line came within {limits.line_time:g} seconds"))
        elif now - connection.active > limits.idle_time > 0:
            self.dismiss(Idle(f"the connection was silent for more than {limits.idle_time:g} seconds"))

    def _unread_for(self, now: float) -> float:
        """Seconds for which the client has taken nothing of what was sent to it."""
        if isinstance(self.transport, LoopTransport):
            unsent = self.transport.unsent()
        else:
            unsent = self._output.written - self._read if self._full else 0
        taken = self._output.written - unsent
        if not unsent or taken > self._taken:
            self._taken = taken
            self._taken_at = now
        return now - self._taken_at

    def dismiss(self, error: KvdError) -> None:
        """Tell the client why the server ends the connection, and end it; nothing more is run."""
        self._service.dismissed(self, error)
        self.session.close()
        self._codec.clear()
        self._codec.print_error(error)
        self._output.send(self._codec.take(), 0)
        self.close()

    # Waiting for the store.

    def _answered(self, answer: tuple[None, int]) -> None:
        """What was waited for is there."""
        self._waiting = None
        self._connection.active = self._service.seconds()
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
        self._taken, self._taken_at = self._output.written, self._service.seconds()
        self._moved()

    def _moved(self) -> None:
        """Replies have left."""
        self._connection.active = self._service.seconds()
        if self._closed:
            self._close_when_empty()
        elif not self._waiting and not self._between:
            self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost; connectionLost follows."""

    def readConnectionLost(self) -> None:
        """The client sends no more; it still gets every reply, then the close."""
        self._ended = True
        if self._closed:
            self._close_when_empty()
        elif not self._waiting and not self._between:
            self._go_on()

    def writeConnectionLost(self) -> None:
        """Our side is shut, and everything was sent."""
        self._ending.sent()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended, one way or another: roll back, but let an accepted COMMIT finish."""
        self._ending.over()
        self._drop_everything()
        if self._waiting is not None and not self.session.committing:
            self._waiting.cancel()
        self._service.close_session(self.session)

    # The end, from our side.

    def close(self) -> None:
        """Send what was answered, then close the connection."""
        if not self._closed:
            self._closed = self._connection.closed = True
            self._connection.reading = False
            self._codec.clear()
            self._taken_at = self._service.seconds()
            self._output.flush()
            self._close_when_empty()

    def _close_when_empty(self) -> None:
        if self._output.empty():
            self.transport.unregisterProducer()
            if self._ended:
                self.transport.loseConnection()
            else:
                self._ending.begin()

    def abort(self) -> None:
        """Close the connection at once. What it holds is given up now; the transport may take its time."""
        self._drop_everything()
        self.transport.abortConnection()

    def _drop_everything(self) -> None:
        self._closed = self._connection.closed = True
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


@implementer(IHalfCloseableProtocol)
class Refusal(Protocol):
    """Tells a client that there are too many, and closes.

    :param service: the store service.
    :param codec: prints it.
    """

    transport: IStreamTransport

    def __init__(self, service: StoreService, codec: Codec) -> None:
        self._service = service
        self._codec = codec
        self._patient = service.may_refuse()  # to see that it arrives takes a file for a while

    def connectionMade(self) -> None:
        """A client has come."""
        limit = self._service.core.limits.clients
        number = f"{limit} client{'s' * (limit != 1)}"
        self._codec.print_error(Busy(f"the server has {number}, which is its limit; try again later"))
        self._ending = Ending(self.transport, self._service.clock)
        self.transport.write(self._codec.take())
        if self._patient:
            self._ending.begin()
        else:
            self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        """The client sends no more."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Everything was sent."""
        self._ending.sent()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        self._ending.over()
        self.connectionAbandoned()

    def connectionAbandoned(self) -> None:
        """The client was gone before it was there."""
        self._service.refusals -= self._patient


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
        service = self.service
        if not service.core.full() or service.make_place():
            return self._protocol(service, self._codec())
        return Refusal(service, self._codec())
