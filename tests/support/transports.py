"""A server and raw sockets that speak with it, under a reactor of their own: for tests of transports."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast

import pytest
import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.daemon.listen import server_endpoint

LIMIT = 20.0
"""Seconds after which a test fails, whatever it waits for."""

ours = pytest.mark.parametrize("world", ["asyncio", "uvloop"], indirect=True)
"""For a promise that Twisted's own transport does not keep, or keeps otherwise."""

P = ParamSpec("P")


class Server(Protocol):
    """Records what its transport tells it. A test replaces methods, or sets what happens in them, by `on`."""

    transport: Any

    def __init__(self) -> None:
        self.events: list[str] = []  # made, data, read lost, write lost, lost
        self.data = b""
        self.reason: Any = None  # of connectionLost
        self.on: dict[str, Callable[[], object]] = {}

    def _event(self, name: str) -> None:
        self.events.append(name)
        if name in self.on:
            self.on[name]()

    def connectionMade(self) -> None:
        """Recorded as "made"."""
        self._event("made")

    def dataReceived(self, data: bytes) -> None:
        """Recorded as "data"."""
        self.data += data
        self._event("data")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Recorded as "lost"."""
        self.reason = reason.value
        self._event("lost")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Server):
    """The same, and it knows that one direction alone may end."""

    def readConnectionLost(self) -> None:
        """Recorded as "read lost"."""
        self._event("read lost")

    def writeConnectionLost(self) -> None:
        """Recorded as "write lost"."""
        self._event("write lost")


class Client:
    """A socket that the test reads and writes itself, so that nothing happens behind its back."""

    def __init__(self, world: World, family: int, address: Any) -> None:
        self.socket = socket.socket(family)
        self.socket.connect(address)
        self.socket.setblocking(False)
        self._world = world
        self.received = b""
        self.end = ""  # how the server's direction ended: "closed" or "reset"

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                await self._world.turn()

    def read(self) -> None:
        """Read what is there, if anything."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.end = "reset"
            return
        self.received += data
        if not data:
            self.end = "closed"

    async def receive(self, length: int) -> bytes:
        """Read until that many bytes are there in all."""

        def there() -> bool:
            self.read()
            return len(self.received) >= length or bool(self.end)

        await self._world.until(there)
        return self.received

    async def rest(self) -> bytes:
        """Read until the server's direction has ended."""
        return await self.receive(1 << 60)

    def shut(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Be gone without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Builds(Factory):
    """Makes its protocols by calling a function, which may refuse."""

    def __init__(self, build: Callable[[], Server | None]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Server | None:
        """A protocol, or None."""
        return self._build()


class World:
    """A reactor, the ports that listen under it and the clients that a test connects to them.

    :param kind: what serves: "Twisted", "asyncio" or "uvloop".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.loop: asyncio.AbstractEventLoop | None = None
        self.reactor: Any
        if kind == "Twisted":
            self.reactor = SelectReactor()
        else:
            self.loop = uvloop.new_event_loop() if kind == "uvloop" else asyncio.SelectorEventLoop()
            self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
            self.reactor = AsyncioSelectorReactor(self.loop)
        self.complaints: list[dict[str, Any]] = []  # of the event loop
        self.logged: list[BaseException] = []
        self.ports: list[IListeningPort] = []
        self.servers: list[Server] = []
        self.clients: list[Client] = []

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test to its end."""
        outcome: list[object] = []

        async def whole_test() -> None:
            try:
                await test
            finally:
                await self._clean_up()

        def start() -> None:
            deferred = Deferred.fromCoroutine(whole_test()).addTimeout(LIMIT, self.reactor)
            deferred.addBoth(outcome.append).addBoth(lambda _: self.reactor.stop())

        observer = cast(ILogObserver, self._observe)
        globalLogPublisher.addObserver(observer)
        self.reactor.callWhenRunning(start)
        self.reactor.run(installSignalHandlers=False)
        globalLogPublisher.removeObserver(observer)
        for reader in list(self.reactor._internalReaders):  # the reactor's own pipes, as Twisted's tests close them
            self.reactor.removeReader(reader)
            reader.connectionLost(None)
        if self.loop is not None:
            self.loop.close()
        (result,) = outcome
        if isinstance(result, Failure):
            result.raiseException()
        assert self.complaints == []

    def _observe(self, event: LogEvent) -> None:
        failure = event.get("log_failure") or event.get("failure")  # the older log names it so
        if failure is not None:
            self.logged.append(failure.value)

    async def _clean_up(self) -> None:
        for client in self.clients:
            client.socket.close()
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        for server in self.servers:
            if "lost" not in server.events and "made" in server.events:
                server.transport.abortConnection()
        await self.until(lambda: all(("made" in s.events) == ("lost" in s.events) for s in self.servers))

    async def turn(self) -> None:
        """Let the reactor do what there is to do."""
        await deferLater(self.reactor, 0.001)

    async def turns(self) -> None:
        """Let the reactor run for as long as anything takes that could wrongly happen."""
        for _ in range(20):
            await self.turn()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition is true. The time limit of the test ends it, too."""
        while not condition():
            await self.turn()

    def listen(
        self, server: Callable[[], Server | None] = Server, description: str = "tcp:0:interface=127.0.0.1"
    ) -> IListeningPort:
        """Listen with protocols of a kind, which `servers` then holds."""

        def build() -> Server | None:
            protocol = server()
            if protocol is not None:
                self.servers.append(protocol)
            return protocol

        factory = Builds(build)
        make = serverFromString if self.kind == "Twisted" else server_endpoint
        ports: list[IListeningPort] = []
        failures: list[Failure] = []
        make(self.reactor, description).listen(factory).addCallbacks(ports.append, failures.append)
        for failure in failures:
            failure.raiseException()
        self.ports += ports
        return ports[0]

    def client(self, port: IListeningPort) -> Client:
        """Connect to a port; the server may not have noticed yet."""
        address: Any = port.getHost()
        if hasattr(address, "name"):
            client = Client(self, socket.AF_UNIX, address.name)
        else:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            client = Client(self, family, (address.host, address.port))
        self.clients.append(client)
        return client

    async def connect(
        self, server: Callable[[], Server] = Server, description: str = "tcp:0:interface=127.0.0.1"
    ) -> tuple[Any, Client]:
        """A protocol that is connected, and the client that it is connected to."""
        client = self.client(self.listen(server, description))
        await self.until(lambda: self.servers and "made" in self.servers[-1].events)
        return self.servers[-1], client


def in_world(
    test: Callable[Concatenate[World, P], Coroutine[Any, Any, None]],
) -> Callable[Concatenate[World, P], None]:
    """A test that runs in its world."""

    @wraps(test)
    def run(world: World, *args: P.args, **kwargs: P.kwargs) -> None:
        world.run(test(world, *args, **kwargs))

    return cast("Callable[Concatenate[World, P], None]", run)
