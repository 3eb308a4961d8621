"""The protocol: bytes in, replies in order, back-pressure.

What arrives is cut into lines and answered in turns, see :mod:`kvd.core.connection`; all replies of a
turn leave in one write. Nothing is read from the connection while a store's answer is outstanding, while
the client does not read its replies, and between the turns of a long batch. So replies keep the order of
their requests, and no client makes the server hold more than a bounded number of bytes.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, inlineCallbacks
from twisted.internet.interfaces import IAddress, IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.core.connection import Connection
from kvd.core.session import Session, Steps, TimedOut
from kvd.errors import Busy
from kvd.wire import MAX_LINE, error

if TYPE_CHECKING:
    from kvd.daemon.service import StoreService


class IKvdTransport(ITCPTransport, IConsumer, IPushProducer):
    """What the protocol needs of a transport; every stream transport of Twisted has it."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class KvdProtocol(LineReceiver):
    """One connection. It is the producer of its transport, which pauses it while the client reads too slowly.

    :param service: the store service that it works on.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE

    transport: IKvdTransport
    session: Session

    def __init__(self, service: StoreService) -> None:
        self._service = service
        self._reading = True
        self._full = False  # the client does not read fast enough
        self._between = False  # a turn is over, and the next one has not begun
        self._waiting: Deferred[None] | None = None  # the store has not answered
        self._ended = False  # the client sends no more
        self._closed = False  # we send no more
        self._unread = 0  # bytes of replies that wait in the transport, if it is full
        self.held = 0  # bytes of memory that the server's budget holds for this connection's buffers

    def connectionMade(self) -> None:
        """A client has come."""
        self.session = self._service.open_session(self)
        self._connection = Connection(self.session)
        self._input = self._connection.input
        self.transport.registerProducer(self, True)

    # Lines in. LineReceiver's own cutting takes time quadratic in the length of a batch.

    def dataReceived(self, data: bytes) -> None:
        """Answer the lines that have arrived whole."""
        at_once = self._connection.receive(data)
        if self._waiting or self._between or self._full or self._closed:
            self._hold()
        elif at_once:
            self._turn()
        else:
            self._wait_for_turn()  # to read on, if no line is whole yet
            self._set_reading()

    # Replies out.

    def _turn(self) -> None:
        """Answer what waits, until the turn is over or the store must be waited for."""
        replies, steps = self._connection.turn()
        if replies:
            self._send(replies)
        if steps is not None:
            self._waiting = self._finish(steps)
            self._waiting.addCallback(self._finished)
            self._set_reading()
        elif self._input.holds or self._ended or not self._reading or self.held or self.session.closing:
            self._go_on()  # most often there is nothing to see to

    def _send(self, replies: bytes) -> None:
        self.transport.write(replies)
        if self._full:
            self._unread += len(replies)

    def _go_on(self) -> None:
        """See to what comes behind the replies of a turn."""
        if self.session.closing or (self._ended and not self._input):
            self.close()
        elif self._input and not self._full and not self._between:
            self._wait_for_turn()
        self._set_reading()

    def _wait_for_turn(self) -> None:
        self._between = True
        self._service.turns.add(self._next_turn)

    def _next_turn(self) -> None:
        self._between = False
        if not self._full and not self._closed:
            self._turn()

    def _set_reading(self) -> None:
        wanted = not (self._input or self._between or self._full or self._waiting or self._ended or self._closed)
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._connection.reads_again()
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()
        self._hold()

    # Limits.

    def _hold(self) -> None:
        """Let the server's budget hold the bytes that the buffers of this connection take now."""
        number = self._input.bytes_held() + self._unread
        budget = self.session.shared.budget
        grown = number - self.held
        budget.used += grown
        budget.buffers += grown
        self.held = number
        if grown > 0 and budget.strained():
            self.session.shared.relieve()

    def overdue(self, now: float) -> str | None:
        """Why the client is to be disconnected, if it has been silent, or at one line, for too long."""
        limits = self.session.shared.limits
        since = self._connection.line_since
        if since is not None and self._reading and now - since > limits.line_time > 0:
            return f"no whole line came within {limits.line_time:g} seconds"
        if self._reading and now - self._connection.active > limits.idle_time > 0:
            return f"it was silent for more than {limits.idle_time:g} seconds"
        return None

    # Waiting for the store.

    @inlineCallbacks
    def _finish(self, steps: Steps) -> Generator[Deferred[Any], Any, None]:
        """Take the steps to a reply, and send it."""
        shared = self.session.shared
        try:
            later = next(steps)
            while True:
                try:
                    if later is None:
                        answer = yield self._service.turns.wait()
                    else:
                        answer = yield later.deferred.addTimeout(shared.limits.store_wait, self._service.clock)
                except TimeoutError:
                    later = steps.throw(TimedOut())
                except Exception as error:
                    if isinstance(error, CancelledError) and self._closed:
                        steps.close()
                        return
                    later = steps.throw(error)
                else:
                    later = steps.send(answer)
        except StopIteration as stop:
            if not self._closed:
                self._send(stop.value.encode("ascii"))

    def _finished(self, _: None) -> None:
        self._waiting = None
        if not self._closed:
            self._go_on()

    # What the transport tells.

    def pauseProducing(self) -> None:
        """The client does not read its replies: answer nothing more, and read nothing more."""
        self._full = True
        self._set_reading()

    def resumeProducing(self) -> None:
        """The client has read."""
        self._full = False
        self._unread = 0
        if not self._waiting and not self._between and not self._closed:
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
        """The connection has ended, one way or other: roll back, but let an accepted COMMIT finish."""
        self._closed = True
        self._input.clear()
        self._unread = 0
        self._hold()
        if self._waiting is not None and not self.session.committing:
            self._waiting.cancel()
        self.session.close()
        self._service.close_session(self)

    # The end, from our side.

    def close(self) -> None:
        """Send what was written, then close the connection."""
        if not self._closed:
            self._closed = True
            self._input.clear()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once. What it holds is given up now; the transport may take its time."""
        self._closed = True
        self._input.clear()
        self._unread = 0
        self._hold()
        self.transport.abortConnection()

    def stop(self) -> None:
        """The server stops: close the connection, behind the reply that is under way."""
        self.session.closing = True
        if self._waiting is None:
            self.session.close()
            self.close()


class Refusal(Protocol):
    """Tells a client that there are too many, and closes.

    :param most: how many there may be.
    """

    transport: IKvdTransport

    def __init__(self, most: int) -> None:
        self._most = most

    def connectionMade(self) -> None:
        """A client has come."""
        assert self.transport is not None
        self.transport.write(
            error(Busy(f"the server has {self._most} clients, as many as it may; try again later")).encode()
        )
        self.transport.loseConnection()


class KvdFactory(ServerFactory):
    """Makes a protocol for each connection, unless there are too many.

    :param service: the store service that all of them work on.
    """

    noisy = False

    def __init__(self, service: StoreService) -> None:
        self.service = service

    def buildProtocol(self, addr: IAddress | None) -> KvdProtocol | Refusal:
        """A protocol for a new connection."""
        if self.service.full():
            return Refusal(self.service.shared.limits.clients)
        return KvdProtocol(self.service)
