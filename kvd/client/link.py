"""The client's end of a connection: requests out, and replies matched to them in order."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from kvd import requests, wire
from kvd.client.steady import steady
from kvd.errors import Busy, Idle, Internal, KvdError

TIMEOUT = 60.0
"""Seconds that a reply may take; the server gives its store half of that."""

CLOSING_TIME = 5.0
"""Seconds that what was sent may take to leave when the connection is closed."""


class NotKvd(ConnectionError):
    """Whatever is at the other end, it is not a kvd server."""


class Link(Protocol):
    """One connection to a server. Requests may be sent without waiting for the replies to earlier ones.

    :param clock: the reactor; without one, a reply may take for ever.
    :param timeout: seconds from a request to the end of its reply. The connection is given up when one takes longer,
        because that reply may still come.
    :ivar lost: what ended the connection; None while it is there.
    """

    transport: ITCPTransport

    def __init__(self, clock: IReactorTime | None = None, timeout: float = TIMEOUT) -> None:
        self.lost: Failure | None = None
        self._clock = None if clock is None else steady(clock)
        self._timeout = timeout
        self._timer: IDelayedCall | None = None
        self._waiting: deque[tuple[Deferred[bytes], float]] = deque()  # each with the time when it is too late
        self._partial: list[bytes] = []  # the pieces of a line whose end has not come
        self._size = 0  # their length
        self._unasked = False  # that line began when no request waited for it
        self._closing = False
        self._watchers: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """The connection is there."""
        if self.lost is not None:  # nobody wants it any more
            self.transport.abortConnection()
        elif isinstance(self.transport.getPeer(), IPv4Address | IPv6Address):
            # A small request must not wait until the server acknowledges the one before it.
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)

    # Requests.

    def ask(self, line: bytes, may_store: bool) -> Deferred[Any]:
        """Send a request; a Deferred of the ``result`` of its reply.

        :param line: as :func:`kvd.requests.encode` makes it.
        :param may_store: whether it may have stored something if its reply never comes.
        :return: fails with a :class:`kvd.errors.KvdError`, or CancelledError.
        """
        lost = self._look()
        if lost is not None:
            return fail(_no_reply(lost, False))
        return self._send(line).addCallbacks(self._result, _no_reply, errbackArgs=(may_store,))

    def _result(self, line: bytes) -> Any:
        return requests.result_of(self._reply(line))

    def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            return requests.reply(line)
        except Internal as error:
            self.abort(ConnectionError(error.mesg))  # nobody knows what the next lines would answer
            raise

    def send(self, line: bytes) -> Deferred[bytes]:
        """Send a request.

        :param line: exactly one line, not blank, with its end: each gets one reply.
        :return: a Deferred of the reply, without its end. It fails with what ended the connection, if that
            ends first. If it is cancelled the reply is dropped when it comes; no other request gets it.
        """
        lost = self._look()
        return self._send(line) if lost is None else fail(lost)

    def _send(self, line: bytes) -> Deferred[bytes]:
        too_late = 0.0
        if self._clock is not None:
            too_late = self._clock.seconds() + self._timeout
            if self._timer is None:
                self._timer = self._clock.callLater(self._timeout, self._ring)
        reply: Deferred[bytes] = Deferred()
        self._waiting.append((reply, too_late))
        self.transport.write(line)
        return reply

    def _look(self) -> Failure | None:
        """See whether the oldest request has waited for too long; what ended the connection, if it has ended."""
        # Not left to the timer alone: it may be late, see SteadyClock.
        if self._waiting and self._clock is not None and self._waiting[0][1] <= self._clock.seconds():
            self.abort(TimeoutError(f"no reply within {self._timeout:g} seconds"))
        return self.lost

    def _ring(self) -> None:
        self._timer = None
        if self._look() is None and self._waiting and self._clock is not None:
            self._timer = self._clock.callLater(self._waiting[0][1] - self._clock.seconds(), self._ring)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Replies.

    def dataReceived(self, data: bytes) -> None:
        """Cut what has come into replies."""
        if self.lost is not None:
            return
        # LineReceiver looks through a long line again with each piece that comes, and MAX_REPLY has 16 MiB.
        *lines, rest = data.split(b"\n")
        # What is sent while we look at these lines can't be answered by them.
        wanted = 0 if self._unasked else len(self._waiting)
        if lines:
            self._unasked = False
            if self._partial:
                lines[0] = b"".join([*self._partial, lines[0]])
                self._partial.clear()
                self._size = 0
        if rest:
            if not self._partial:
                self._unasked = wanted <= len(lines)
            self._partial.append(rest)
            self._size += len(rest)
        for place, line in enumerate(lines):
            self._received(line, place < wanted)
        if self._size > wire.MAX_REPLY:
            self.abort(NotKvd("the reply is too long; this is not a kvd server"))

    def _received(self, line: bytes, wanted: bool) -> None:
        if self.lost is not None:
            return
        turned_away = _turned_away(line)
        if wanted:
            # One that was cancelled is still in its place, and swallows what comes for it.
            reply, _ = self._waiting.popleft()
            if reply.called:
                with suppress(Internal):
                    self._reply(line)
            else:
                reply.callback(line)
        if turned_away is not None:
            self.abort(turned_away)
        elif not wanted:
            self.abort(NotKvd(f"this is not a kvd server: it says {line[:40]!r} unasked"))

    # The end.

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
        if self.lost is None and not self._closing:
            self._closing = True
            if self._clock is not None:
                self._stop_timer()
                self._timer = self._clock.callLater(CLOSING_TIME, self._close_now)
            self.transport.loseConnection()

    def _close_now(self) -> None:
        self._timer = None
        self.abort(TimeoutError(f"what was sent did not leave within {CLOSING_TIME:g} seconds"))

    def abort(self, reason: Exception) -> None:
        """Close the connection at once, and fail what is under way. A connection that is being made is given up."""
        if self.lost is None:
            if self.transport is not None:
                self.transport.abortConnection()
            self._end(Failure(reason))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended."""
        self._end(reason)

    def _end(self, reason: Failure) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        self._stop_timer()
        # Those who share the connection hear of it before what they sent fails, so they send nothing more on it.
        for watcher in self._watchers:
            watcher.callback(None)
        self._watchers.clear()
        while self._waiting:
            self._waiting.popleft()[0].errback(reason)


def _no_reply(failure: Failure, may_store: bool) -> Failure:
    """The failure of a request whose reply will never come."""
    # A server that turns a client away has not run what was under way, and says why.
    if failure.check(CancelledError, Busy, Idle):
        return failure
    return Failure(requests.lost(f"the connection broke: {said(failure.value)}", may_store))


def said(error: BaseException | None) -> str:
    """What an error says, to be quoted inside a sentence."""
    return str(error).rstrip(".") or type(error).__name__


def _turned_away(line: bytes) -> KvdError | None:
    """The error with which a server turns a client away, if a line is that; it answers no request."""
    if b'"Error"' in line[:64]:
        with suppress(Internal):  # it is not a reply
            error = wire.error_from(requests.reply(line))
            if isinstance(error, Busy | Idle):
                return error
    return None
