"""Where a server is, and how to connect to it; every wait with its limit."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, NamedTuple

from kvd.errors import BadArguments

LONGEST = 1_000_000
"""Seconds of the longest wait that can be asked for: nothing waits for ever."""

PATH_BYTES = 107
"""What the path of a UNIX socket may have on Linux."""

FULL_PAUSE = 0.01
"""Seconds after which a UNIX socket that takes no more connections is tried again."""


class Tcp(NamedTuple):
    """A TCP port of a host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def dial(self, limit: float) -> socket.socket:
        """A connected socket.

        :param limit: seconds that it may take, not counting the time to resolve the host's name.
        :raise OSError: the host has no address, or none of them can be connected to.
        """
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        too_late = time.monotonic() + limit
        problem = OSError("the host has no address")
        for number, (family, kind, protocol, _, address) in enumerate(found):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:
                problem = error
                continue
            try:
                share = (too_late - time.monotonic()) / (len(found) - number)
                sock.settimeout(max(share, 0.001))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                return sock
            except OSError as error:
                problem = error
                sock.close()
        raise problem


class Unix(NamedTuple):
    """A UNIX socket."""

    path: str

    def __str__(self) -> str:
        return self.path

    def dial(self, limit: float) -> socket.socket:
        """A connected socket.

        :param limit: seconds that it may take.
        :raise OSError: the socket can't be connected to.
        """
        too_late = time.monotonic() + limit
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.settimeout(limit)
                sock.connect(self.path)
                return sock
            except BlockingIOError:  # too many wait to be accepted
                sock.close()
                if time.monotonic() >= too_late:
                    raise
            except OSError:
                sock.close()
                raise
            time.sleep(FULL_PAUSE)


def address(host: str, port: int, path: str | os.PathLike[str] | None) -> Tcp | Unix:
    """Where the server is: at a path if there is one, else at host and port.

    :raise kvd.errors.BadArguments: that can't be an address.
    """
    if path is not None:
        return Unix(_checked_path(path))
    if not isinstance(host, str) or not host or "\0" in host:
        raise BadArguments("the host must be a str, and not empty")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise BadArguments(f"{host[:80]!a} can't be the name of a host: {error}") from None
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise BadArguments("the port must be an int from 1 to 65535")
    return Tcp(host, port)


def _checked_path(path: Any) -> str:
    if not hasattr(socket, "AF_UNIX"):
        raise BadArguments("this platform has no UNIX sockets for Python")
    try:
        size = len(os.fsencode(path))
    except (TypeError, UnicodeError):
        raise BadArguments("the path of a UNIX socket must be a str or a path object") from None
    name = os.fsdecode(path)
    if not 1 <= size <= PATH_BYTES or "\0" in name:
        raise BadArguments(
            f"the path of a UNIX socket has 1 to {PATH_BYTES} bytes, none of them NUL, and this has {size}"
        )
    return name


def seconds(what: str, value: Any, *, may_be_zero: bool = True) -> float:
    """An argument that must be a number of seconds.

    :param what: its name, for the message.
    :raise kvd.errors.BadArguments: it is not one, or is negative or too large.
    """
    if not isinstance(value, int | float) or not 0 <= value <= LONGEST or not (value or may_be_zero):
        least = "0" if may_be_zero else "more than 0"
        raise BadArguments(f"{what} must be a number of seconds, from {least} to {LONGEST:,}")
    return float(value)
