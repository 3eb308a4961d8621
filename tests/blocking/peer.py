"""The other end of a blocking client's connection, led by a test: what it says is what the test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from kvd.blocking import Client
from tests.support.daemon import LIMIT

OK = b'{"status": "Ok"}\n'
PONG = b'{"status": "Ok", "result": "PONG"}\n'
BUSY = b'{"status": "Error", "mesg": "the server is full", "code": "BUSY"}\n'
IDLE = b'{"status": "Error", "mesg": "you were silent", "code": "IDLE"}\n'


def result(value: str) -> bytes:
    """A reply with a text for its result."""
    return f'{{"status": "Ok", "result": "{value}"}}\n'.encode()


class Peer:
    """What a server has of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(LIMIT)
        self.socket = connection
        self._lines = connection.makefile("rb")

    def line(self) -> bytes:
        """The next request, with its end; nothing if the client has closed."""
        try:
            return self._lines.readline()
        except ConnectionError:
            return b""

    def send(self, data: bytes) -> None:
        """Send bytes, if there is still somebody to read them."""
        with suppress(OSError):
            self.socket.sendall(data)

    def greet(self) -> None:
        """Answer the PING with which a client begins."""
        assert self.line() == b'["PING"]\n'
        self.send(PONG)

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self.socket.close()


@contextmanager
def serving(*lives: Callable[[Peer], None]) -> Iterator[int]:
    """A server on a free port that lives through one connection after the other; its port.

    :param lives: what it does on each, after which it closes that.
    """
    faults: list[BaseException] = []

    def serve() -> None:
        try:
            for live in lives:
                peer = Peer(listening.accept()[0])
                try:
                    live(peer)
                finally:
                    peer.close()
        except BaseException as fault:
            faults.append(fault)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(LIMIT)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(LIMIT)
    assert not thread.is_alive()
    assert faults == []


@contextmanager
def client_of(*replies: bytes, timeout: float = LIMIT) -> Iterator[Client]:
    """A client that is connected to a server which says these, one for each request, and closes at the next request."""

    def live(peer: Peer) -> None:
        peer.greet()
        for reply in replies:
            if not peer.line():
                return
            peer.send(reply)
        peer.line()

    with serving(live) as port, Client("127.0.0.1", port, timeout=timeout) as client:
        yield client
