"""Listening: which reactor runs, and what serves the connections.

Where the asyncio reactor runs, TCP, UNIX and inherited sockets are served by the event loop's transports, see
:mod:`kvd.daemon.transport`. Twisted's own port still binds, listens and accepts, so a taken port, a stale UNIX
socket or too many open files are handled as everywhere in Twisted; only what it has accepted goes another way.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from kvd.daemon.transport import Accepted, LoopTransport

STREAM_TYPES = frozenset(("tcp", "tcp6", "unix", "systemd"))
"""Endpoint types whose connections are plain stream sockets that a :class:`twisted.internet.tcp.Port` accepts."""


def server_endpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """The endpoint that a string describes, served by the loop's transports where that can be.

    :param description: as :func:`twisted.internet.endpoints.serverFromString` takes it.
    :raise ValueError: if it describes none; a plugin for an endpoint may raise anything else.
    """
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    on_loop = isinstance(reactor, asyncioreactor.AsyncioSelectorReactor)
    if on_loop and description.partition(":")[0] in STREAM_TYPES:
        return LoopEndpoint(endpoint)
    return endpoint


@implementer(IStreamServerEndpoint)
class LoopEndpoint:
    """Listens on an endpoint of Twisted, and serves what connects there on the event loop's transports.

    :param endpoint: its port must be a :class:`twisted.internet.tcp.Port` of the asyncio reactor.
    """

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Bind at once, and accept connections as soon as the reactor runs."""

        def listening(port: IListeningPort) -> IListeningPort:
            accepting = cast(Any, port)
            accepting.factory = _LoopFactory(protocolFactory)
            accepting.transport = Accepted
            return port

        return self._endpoint.listen(protocolFactory).addCallback(listening)


@implementer(IProtocolFactory)
class _LoopFactory:
    """Makes a transport of ours around each protocol of a factory, for the port to connect."""

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory
        self.doStart = factory.doStart
        self.doStop = factory.doStop

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        protocol = self._factory.buildProtocol(addr)
        return None if protocol is None else cast(IProtocol, LoopTransport(protocol))
