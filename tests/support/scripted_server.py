"""A server in a thread that says what a test wants it to say: not a kvd server, or one in trouble."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

from tests.support.daemon import LIMIT

Answer = Callable[[bytes], bytes | None]
"""What to send for the bytes that came last; None: nothing, and nothing will ever come. ``b""`` closes."""


class ScriptedServer:
    """Listens on a free port of loopback until its ``with`` block ends.

    :param answer: is asked for each packet that arrives.
    :param greeting: is sent to each client as it connects.
    :ivar clients: their connections.
    :ivar received: everything that all clients have sent.
    """

    def __init__(self, answer: Answer = lambda data: None, greeting: bytes = b"") -> None:
        self._answer = answer
        self._greeting = greeting
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.clients: list[socket.socket] = []
        self.received = b""
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(LIMIT)
        try:
            client.sendall(self._greeting)
            while data := client.recv(1024):
                self.received += data
                reply = self._answer(data)
                if reply == b"":
                    break
                client.sendall(reply or b"")
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client has gone

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self.clients:
            client.close()
