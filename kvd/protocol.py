"""The protocol: bytes in, replies in order, back-pressure.

What arrives is cut into lines and answered in turns, see :func:`kvd.commands.turn`; all replies of a
turn leave in one write. Nothing is read from the connection while a store's answer is outstanding, while
the client does not read its replies, and between the turns of a long batch. So replies keep the order of
their requests, and no client makes the server hold more than a bounded number of bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, inlineCallbacks
from twisted.internet.interfaces import IAddress, IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.commands import turn
from kvd.session import Session, Steps, TimedOut
from kvd.wire import HEAD, MAX_LINE, Refused, cut_lines, line_too_large

if TYPE_CHECKING:
    from kvd.service import StoreService


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
        self._lines: deque[str | Refused] = deque()
        self._partial = bytearray()  # a line whose end has not arrived; its head, if it is too long
        self._size = 0  # the length of that line
        self._reading = True
        self._full = False  # the client does not read fast enough
        self._between = False  # a turn is over, and the next one has not begun
        self._waiting: Deferred[None] | None = None  # the store has not answered
        self._ended = False  # the client sends no more
        self._closed = False  # we send no more

    def connectionMade(self) -> None:
        """A client has come."""
        self.session = self._service.open_session(self)
        self.transport.registerProducer(self, True)

    # Lines in. LineReceiver's own cutting takes time quadratic in the length of a batch.

    def dataReceived(self, data: bytes) -> None:
        """Cut what has arrived into lines, and answer them."""
        end = data.rfind(b"\n") + 1
        if end != len(data) or self._size:
            self._lines.extend(self._whole_lines(data, end))
        else:
            self._lines.extend(cut_lines(data))
        if not (self._waiting or self._between or self._full or self._closed):
            self._turn()

    def _whole_lines(self, data: bytes, end: int) -> list[str | Refused]:
        """The lines that ``data[:end]`` completes; the rest waits for its end."""
        lines: list[str | Refused] = []
        if end and self._size:
            if self._size > len(self._partial):
                start = data.index(b"\n") + 1
                size = self._size + start - (2 if data[:start].endswith(b"\r\n") else 1)
                lines.append(line_too_large(bytes(self._partial), size))
                lines += cut_lines(data[start:end])
            else:
                lines += cut_lines(bytes(self._partial) + data[:end])
            self._partial.clear()
            self._size = 0
        elif end:
            lines += cut_lines(data[:end])
        self._size += len(data) - end
        if self._size <= MAX_LINE + 1:  # the last byte may be the \r of the line's end
            self._partial += data[end:]
        else:
            self._partial += data[end : end + HEAD]
            del self._partial[HEAD:]
        return lines

    # Replies out.

    def _turn(self) -> None:
        """Answer what waits, until the turn is over or the store must be waited for."""
        replies, steps = turn(self.session, self._lines)
        if replies:
            self.transport.write("".join(replies).encode("ascii"))
        if steps is not None:
            self._waiting = self._finish(steps)
            self._waiting.addCallback(self._finished)
            self._set_reading()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """See to what comes behind the replies of a turn."""
        if self.session.closing or (self._ended and not self._lines):
            self.close()
        elif self._lines and not self._full and not self._between:
            self._between = True
            self._service.clock.callLater(0, self._next_turn)
        self._set_reading()

    def _next_turn(self) -> None:
        self._between = False
        if not self._full and not self._closed:
            self._turn()

    def _set_reading(self) -> None:
        wanted = not (self._lines or self._full or self._waiting or self._ended or self._closed)
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # Waiting for the store.

    @inlineCallbacks
    def _finish(self, steps: Steps) -> Generator[Deferred[Any], Any, None]:
        """Take the steps to a reply, and send it."""
        shared = self.session.shared
        try:
            later = next(steps)
            while True:
                try:
                    answer = yield later.deferred.addTimeout(shared.store_wait, self._service.clock)
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
                self.transport.write(stop.value.encode("ascii"))

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
        self._lines.clear()
        if self._waiting is not None and not self.session.committing:
            self._waiting.cancel()
        self.session.close()
        self._service.close_session(self)

    # The end, from our side.

    def close(self) -> None:
        """Send what was written, then close the connection."""
        if not self._closed:
            self._closed = True
            self._lines.clear()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def stop(self) -> None:
        """The server stops: close the connection, behind the reply that is under way."""
        self.session.closing = True
        if self._waiting is None:
            self.session.close()
            self.close()


class KvdFactory(ServerFactory):
    """Makes a protocol for each connection.

    :param service: the store service that all of them work on.
    """

    noisy = False

    def __init__(self, service: StoreService) -> None:
        self.service = service

    def buildProtocol(self, addr: IAddress | None) -> KvdProtocol:
        """A protocol for a new connection."""
        return KvdProtocol(self.service)
