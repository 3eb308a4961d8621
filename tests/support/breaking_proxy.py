"""A proxy that breaks connections, as a process: ``python -m tests.support.breaking_proxy PORT SEED``.

It listens on a free port of loopback, prints the port, and passes everything on to PORT; but now and then it resets
both connections of a client in the middle of what is sent. It ends when its standard input does.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer

from tests.support.lying_server import Parent

CHANCE = 0.003
"""Of a reset, for each piece of data in either direction."""


dice = random.Random()


def passed_on(end: Any, data: bytes) -> bytes:
    """What is passed on of some data before the connection breaks; all of it if it holds."""
    if dice.random() >= CHANCE:
        return data
    end.transport.reactor.callLater(0, end.transport.abortConnection)
    end.transport.reactor.callLater(0, end.peer.transport.abortConnection)
    return data[: dice.randrange(len(data) + 1)]


class BreakingClient(ProxyClient):
    """The end that faces the server."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(passed_on(self, data))


class BreakingClientFactory(ProxyClientFactory):
    protocol = BreakingClient
    noisy = False


class BreakingServer(ProxyServer):
    """The end that faces the client."""

    clientProtocolFactory = BreakingClientFactory

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(passed_on(self, data))


class BreakingFactory(ProxyFactory):
    protocol = BreakingServer
    noisy = False


def serve(reactor: Any, port: str, seed: str) -> Deferred[None]:
    """Serve until standard input ends."""
    dice.seed(seed)
    listening = reactor.listenTCP(0, BreakingFactory("127.0.0.1", int(port)), interface="127.0.0.1")
    print(listening.getHost().port, flush=True)
    gone: Deferred[None] = Deferred()
    StandardIO(Parent(gone))
    return gone


if __name__ == "__main__":
    react(serve, sys.argv[1:])
