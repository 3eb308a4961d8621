"""How a connection ends from our side, so that nothing that was answered is lost on its way.

A socket that is closed while input waits to be read is reset, and with the reset the client loses replies that it has
not received yet. So the sending side is shut first, what arrives from then on is dropped, and the connection is closed
when the client has closed it too, or when its system has acknowledged everything.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport, ITCPTransport

SIOCOUTQ = 0x5411
"""Linux: how many bytes of a socket's output were not acknowledged."""

LOOK = 0.02
"""Seconds between two looks whether everything is acknowledged."""

PATIENCE = 2.0
"""Seconds after which the connection is closed where nobody can tell what is acknowledged."""


class Ending:
    """The end of one connection.

    :param transport: what is closed.
    :param clock: the reactor, or a Clock.
    """

    def __init__(self, transport: Any, clock: IReactorTime) -> None:
        self._transport = transport
        self._clock = clock
        self._call: IDelayedCall | None = None
        self._looks = 0

    def begin(self) -> None:
        """Everything was written: shut the sending side, and let what still arrives come and go."""
        if ITCPTransport.providedBy(self._transport) and not ISSLTransport.providedBy(self._transport):
            self._shut()
        else:
            self._transport.loseConnection()

    def _shut(self) -> None:
        self._transport.loseWriteConnection()
        self._transport.resumeProducing()

    def sent(self) -> None:
        """The sending side is shut, after everything was sent."""
        self._call = None
        self._looks += 1
        unknown_for = self._looks * LOOK
        left = unacknowledged(self._transport)
        if left == 0 or (left is None and unknown_for > PATIENCE):
            self._transport.loseConnection()
        else:
            self._call = self._clock.callLater(LOOK, self.sent)

    def over(self) -> None:
        """The connection is closed."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


def unacknowledged(transport: Any) -> int | None:
    """How many bytes the client's system has not acknowledged; None if that can't be told."""
    try:
        handle: socket.socket = transport.getHandle()
        if handle.family == socket.AF_UNIX:
            return 0  # what was sent is in the client's queue already
        found: int = struct.unpack("i", fcntl.ioctl(handle.fileno(), SIOCOUTQ, b"\0" * 4))[0]
    except (AttributeError, OSError, ValueError):
        return None
    return found
