"""A server without sockets: the real protocol and service on in-memory transports, with a clock that stands still.

A conversation is written down as it would be typed, one line a request::

    1 START       -> ok
    1 GET a       -> "5"
    2 PUT a 6     -> ok
    1 PUT b 1     -> ok
    1 COMMIT      -> CONFLICT

The number is the client; behind the arrow stands ``ok`` (no result), the result as JSON, or the code of an error.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from kvd.core.limits import Limits
from kvd.daemon.service import StoreService
from kvd.daemon.stream import StreamProtocol
from kvd.interfaces import Store
from kvd.protocols.line import factory
from kvd.stores.memory.store import MemoryStore


class Connection:
    """A client's end, in bytes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.transport = StringTransportWithDisconnection()
        protocol = server.factory.buildProtocol(None)
        assert isinstance(protocol, StreamProtocol)
        self.protocol = protocol
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Let bytes arrive, and time pass until there is nothing left to do."""
        self.protocol.dataReceived(data)
        self._server.settle()

    def received(self) -> bytes:
        """Take what the server has sent, by the end of this turn of the event loop."""
        self._server.service.outbox.flush()
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def exchange(self, data: bytes) -> bytes:
        """Send, and take the replies."""
        self.send(data)
        return self.received()

    def ask(self, line: str) -> dict[str, Any]:
        """Send one line, and return its one reply."""
        (reply,) = self.exchange(line.encode() + b"\n").splitlines()
        answer: dict[str, Any] = json.loads(reply)
        return answer

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return not self.transport.connected


class Server:
    """A service on a store, with any number of clients, by number."""

    def __init__(self, store: Store | None = None, clock: Clock | None = None, limits: Limits | None = None) -> None:
        self.clock = clock or Clock()
        self.service = StoreService(store or MemoryStore(), self.clock, limits)
        self.service.startService()
        self.factory = factory(self.service)
        self._clients: dict[int, Connection] = {}

    def client(self, number: int = 1) -> Connection:
        """The client of that number, which comes when it is first asked for."""
        while len(self._clients) < number:
            self._clients[len(self._clients) + 1] = Connection(self)
        return self._clients[number]

    def fill(self, keys: str) -> None:
        """Store some keys, parted by spaces, each with its name in capitals as its value."""
        for key in keys.split():
            self.client().ask(f"PUT {key} {key.upper()}")

    def settle(self) -> None:
        """Let turns end and the store answer."""
        self.clock.advance(0)
        protocols = [client.protocol for client in self._clients.values()]
        for _ in range(100_000):
            if not any(map(is_busy, protocols)):
                return
            self.clock.advance(0.001)
        raise AssertionError("the server is still busy after 100 seconds")

    def play(self, conversation: str) -> None:
        """Hold a conversation, and check every reply."""
        for line in filter(None, map(str.strip, conversation.splitlines())):
            said, _, expected = line.partition("->")
            number, _, command = said.strip().partition(" ")
            reply = self.client(int(number)).ask(command.strip())
            assert short(reply) == expected.strip(), f"{line}\n  got {reply}"


def is_busy(protocol: StreamProtocol) -> bool:
    """Whether a request is under way, waits for the next turn, or has a reply that is not durable yet."""
    return protocol._waiting is not None or protocol._between or protocol._output.held > 0


def short(reply: dict[str, Any]) -> str:
    """A reply as a conversation writes it down."""
    if reply["status"] != "Ok":
        return str(reply["code"])
    return json.dumps(reply["result"]) if "result" in reply else "ok"
