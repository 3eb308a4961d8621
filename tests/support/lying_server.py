"""A real server that lies, as a process: ``python -m tests.support.lying_server 'torn commit'``.

It listens on a free port of loopback, prints the port, and ends when its standard input does.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure

from kvd.daemon.service import StoreService
from kvd.protocols.line import factory as line_factory
from kvd.stores.memory.store import MemoryStore
from tests.support.lying_stores import STORES, swapping_factory

RIGHT = "right"
"""The name of the server that does not lie."""
SWAPPED = "replies swapped"
NAMES = (RIGHT, SWAPPED, *STORES)


class Parent(Protocol):
    """Notices that whoever started the server is gone, or done."""

    def __init__(self, gone: Deferred[None]) -> None:
        self._gone = gone

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone.callback(None)


def serve(reactor: Any, name: str) -> Deferred[None]:
    """Serve until standard input ends."""
    service = StoreService(STORES.get(name, MemoryStore)(), reactor)
    service.startService()
    factory = swapping_factory(service) if name == SWAPPED else line_factory(service)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    gone: Deferred[None] = Deferred()
    StandardIO(Parent(gone))
    return gone


if __name__ == "__main__":
    react(serve, [sys.argv[1]])
