"""Bytes out and lines in, on one socket, within a time limit. Knows nothing of requests."""

from __future__ import annotations

import selectors
import socket
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from kvd import wire

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
SELECTOR = selectors.SelectSelector if sys.platform == "win32" else selectors.PollSelector

PIECE = 256 * 1024
"""Bytes that are received at a time."""


class Talk(NamedTuple):
    """What came of an exchange.

    :ivar lines: those that were received, without their ends; no more than were wanted.
    :ivar sent: how many bytes were sent, or at least handed to the operating system.
    :ivar problem: why there are fewer lines than were wanted; None if there are not.
    :ivar rest: what was received after the last line that was wanted.
    """

    lines: list[bytes]
    sent: int
    problem: str | None
    rest: bytes


class Lines:
    """The client's end of a connection.

    :param sock: is connected, and belongs to this object from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._selector = SELECTOR()
        self._selector.register(sock, READ)
        self._sending = False  # the selector looks also for when it can be written to
        self._partial = bytearray()  # a line whose end has not come

    def exchange(self, data: bytes, wanted: int, timeout: float) -> Talk:
        """Send bytes, and receive lines meanwhile: a server stops reading from a client that does not read.

        :param timeout: seconds within which each line must come whole, from the one before it on.
        """
        lines: list[bytes] = []
        sent = 0
        problem = None
        too_late = time.monotonic() + timeout
        try:
            sending = len(data) > 0
            writable, readable = sending, False
            while True:
                if writable and sending:
                    try:
                        sent += self._socket.send(memoryview(data)[sent:])
                        sending = sent < len(data)
                    except BlockingIOError:
                        pass
                    except OSError:  # what was sent before may be answered, or the server has said why it closes
                        sending = False
                if readable and (found := self._receive()):
                    lines += found
                    too_late = time.monotonic() + timeout
                if len(lines) >= wanted:
                    break
                left = too_late - time.monotonic()
                if not left > 0:
                    raise TimeoutError(f"no reply within {timeout:g} seconds")
                writable, readable = self._wait(sending, left)
        except OSError as error:
            problem = said(error)
        rest = b"\n".join([*lines[wanted:], bytes(self._partial)])
        return Talk(lines[:wanted], sent, problem, rest)

    def _wait(self, sending: bool, seconds: float) -> tuple[bool, bool]:
        """Wait until the socket can be written to, if there is more to send, or read from; return which it can."""
        if sending or self._sending:
            self._sending = sending
            self._selector.modify(self._socket, READ | WRITE if sending else READ)
        events = 0
        for _, ready in self._selector.select(seconds):
            events |= ready
        return bool(events & WRITE), bool(events & READ)

    def _receive(self) -> list[bytes]:
        """The lines whose ends have come."""
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionError("the server closed the connection")
        *lines, rest = data.split(b"\n")
        if lines and self._partial:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        self._partial += rest
        if len(self._partial) > wire.MAX_REPLY:
            raise ConnectionError("the reply is too long for one of a kvd server")
        return lines

    def unasked(self) -> tuple[bytes, str] | None:
        """What has come while nothing was wanted, if anything has: bytes, or none and why the connection ended."""
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return None
        except OSError as error:
            return b"", said(error)
        return data, "the server closed the connection"

    def close(self, ends: bool) -> None:
        """Close the socket.

        :param ends: whether the connection ends, also for other processes that have inherited it.
        """
        if ends:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def said(error: OSError) -> str:
    """What an error of the operating system says."""
    return error.strerror or str(error) or type(error).__name__
