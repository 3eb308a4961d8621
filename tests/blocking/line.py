"""What is between blocking clients and a daemon, and breaks."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress

from tests.support.daemon import LIMIT


class Line:
    """What is between clients and a daemon: passes requests on, one by one, and breaks as a test wants it to.

    :ivar faults: what becomes of the next COMMITs and OUTCOMEs: ``before`` loses the request, ``after`` the reply,
        ``away`` loses the request and makes the next connections fail, too.
    """

    def __init__(self, port: int) -> None:
        self.faults: list[str] = []
        self.port = self._listen(0)
        self._server = port
        self._refused = 0

    def _listen(self, port: int) -> int:
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()
        found: int = self._listener.getsockname()[1]
        return found

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refused:
                    self._refused -= 1
                    client.close()
                else:
                    threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._server), LIMIT) as server:
            client.settimeout(LIMIT)
            with closing(client.makefile("rb")) as requests, closing(server.makefile("rb")) as replies:
                while line := requests.readline():
                    named = line.startswith((b'["COMMIT"', b'["OUTCOME"'))
                    fault = self.faults.pop(0) if named and self.faults else "none"
                    if fault == "away":
                        self._refused = 3
                    if fault not in ("before", "away"):
                        server.sendall(line)
                        reply = replies.readline()
                    if fault != "none":
                        return
                    client.sendall(reply)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
