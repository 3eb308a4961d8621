"""The client's end of a connection: requests out, and replies matched to them in order."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from kvd.wire import MAX_REPLY


class Link(LineReceiver):
    """One connection to a server. Requests may be sent without waiting for the replies to earlier ones."""

    delimiter = b"\n"
    MAX_LENGTH = MAX_REPLY

    transport: ITCPTransport

    def __init__(self) -> None:
        self._waiting: deque[Deferred[bytes]] = deque()
        self._lost: Failure | None = None
        self._watchers: list[Deferred[None]] = []

    def send(self, line: bytes) -> Deferred[bytes]:
        """Send a request.

        :param line: exactly one line, not blank, with its end: each gets one reply.
        :return: a Deferred of the reply, without its end. It fails with what ended the connection, if that
            ends first. If it is cancelled the reply is dropped when it comes; no other request gets it.
        """
        if self._lost is not None:
            return fail(self._lost)
        reply: Deferred[bytes] = Deferred()
        self._waiting.append(reply)
        self.transport.write(line)
        return reply

    def lineReceived(self, line: bytes) -> None:
        """A reply has come."""
        # One that was cancelled is still in its place, and swallows what comes for it.
        self._waiting.popleft().callback(line)

    def when_lost(self) -> Deferred[None]:
        """A Deferred of the end of the connection, for this caller alone."""
        watcher: Deferred[None] = Deferred()
        if self._lost is not None:
            watcher.callback(None)
        else:
            self._watchers.append(watcher)
        return watcher

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what is under way."""
        self._lost = reason
        while self._waiting:
            self._waiting.popleft().errback(reason)
        for watcher in self._watchers:
            watcher.callback(None)
        self._watchers.clear()
