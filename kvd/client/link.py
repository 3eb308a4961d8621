"""The client's end of a connection: requests out, and replies matched to them in order."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from kvd import requests, wire
from kvd.errors import Internal, KvdError, Unavailable

TIMEOUT = 60.0
"""Seconds that a reply may take; the server gives its store half of that."""


class Link(Protocol):
    """One connection to a server. Requests may be sent without waiting for the replies to earlier ones.

    :param clock: the reactor; without one, a reply may take for ever.
    :param timeout: seconds that a reply may take. The connection is given up when one takes longer, for
        that reply may still come.
    :ivar lost: what ended the connection; None while it is there.
    """

    transport: ITCPTransport

    def __init__(self, clock: IReactorTime | None = None, timeout: float = TIMEOUT) -> None:
        self.lost: Failure | None = None
        self._clock = clock
        self._timeout = timeout
        self._timer: IDelayedCall | None = None
        self._waiting: deque[tuple[Deferred[bytes], float]] = deque()  # each with the time when it is too late
        self._partial: list[bytes] = []  # the pieces of a line whose end has not come
        self._size = 0  # their length
        self._watchers: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """The connection is there."""
        # A small request must not wait until the server acknowledges the one before it.
        if isinstance(self.transport.getPeer(), IPv4Address | IPv6Address):
            self.transport.setTcpNoDelay(True)

    def send(self, line: bytes) -> Deferred[bytes]:
        """Send a request.

        :param line: exactly one line, not blank, with its end: each gets one reply.
        :return: a Deferred of the reply, without its end. It fails with what ended the connection, if that
            ends first. If it is cancelled the reply is dropped when it comes; no other request gets it.
        """
        if self.lost is not None:
            return fail(self.lost)
        reply: Deferred[bytes] = Deferred()
        too_late = 0.0
        if self._clock is not None:
            too_late = self._clock.seconds() + self._timeout
            if self._timer is None:
                self._timer = self._clock.callLater(self._timeout, self._check, self._clock)
        self._waiting.append((reply, too_late))
        self.transport.write(line)
        return reply

    def _check(self, clock: IReactorTime) -> None:
        """See whether the oldest request has waited for too long, and when to look again."""
        self._timer = None
        if self._waiting:
            left = self._waiting[0][1] - clock.seconds()
            if left > 0:
                self._timer = clock.callLater(left, self._check, clock)
            else:
                self.abort(TimeoutError(f"no reply within {self._timeout:g} seconds"))

    def dataReceived(self, data: bytes) -> None:
        """Cut what has come into replies."""
        # LineReceiver looks through a long line again with each piece that comes, and MAX_REPLY has 16 MiB.
        *lines, rest = data.split(b"\n")
        if lines and self._partial:
            lines[0] = b"".join([*self._partial, lines[0]])
            self._partial.clear()
            self._size = 0
        if rest:
            self._partial.append(rest)
            self._size += len(rest)
        for line in lines:
            self._received(line)
        if self._size > wire.MAX_REPLY:
            self.abort(ConnectionError("the reply is too long; this is no kvd server"))

    def _received(self, line: bytes) -> None:
        if self._waiting:
            # One that was cancelled is still in its place, and swallows what comes for it.
            self._waiting.popleft()[0].callback(line)
        elif self.lost is None:
            self.abort(_unasked(line))

    def when_lost(self) -> Deferred[None]:
        """A Deferred of the end of the connection, for this caller alone."""
        watcher: Deferred[None] = Deferred()
        if self.lost is not None:
            watcher.callback(None)
        else:
            self._watchers.append(watcher)
        return watcher

    def close(self) -> None:
        """Close the connection, once what was sent is out."""
        self.transport.loseConnection()

    def abort(self, reason: Exception) -> None:
        """Close the connection at once, and fail what is under way."""
        self.transport.abortConnection()
        self._end(Failure(reason))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended."""
        self._end(reason)

    def _end(self, reason: Failure) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Those who share the connection hear of it before what they sent fails, so they send nothing more on it.
        for watcher in self._watchers:
            watcher.callback(None)
        self._watchers.clear()
        while self._waiting:
            self._waiting.popleft()[0].errback(reason)


def _unasked(line: bytes) -> KvdError:
    """What a line means that answers no request: a server that turns the client away says why."""
    with suppress(Internal):  # it is no reply
        reply = requests.reply(line)
        if reply["status"] != "Ok":
            return wire.error_from(reply)
    return Unavailable(f"this is no kvd server: it says {line[:40]!r}")
