"""Client and server joined in memory, for unit tests: no sockets, virtual time, faults on demand.

::

    from kvd.testing import MemoryServer

    def test_that_a_visit_is_counted():
        server = MemoryServer()
        client = server.connect()
        server.run(count_visit(client, "alice"))      # your code: it returns a coroutine or a Deferred
        assert server.run(client.get("visits:alice")) == "1"

All of it is real but the network and the time. Nothing happens by itself: bytes move, and time passes, only in
:meth:`MemoryServer.run`, :meth:`MemoryServer.flush` and :meth:`MemoryServer.advance`, or inside a block of
:meth:`MemoryServer.ticking`, and always in the same order. Each test makes a server of its own; there is nothing to
close.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPushProducer, IStreamClientEndpoint, ITransport
from twisted.internet.task import Clock, LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd import wire
from kvd.client import Client, connect
from kvd.daemon.service import StoreService
from kvd.errors import KvdError
from kvd.protocols.line import factory
from kvd.stores.memory.store import MemoryStore
from kvd.testing.faulty_store import FaultyStore

T = TypeVar("T")

log = Logger()


class MemoryServer:
    """A server, and everything between it and its clients.

    :param store: what it serves; an empty memory store if none is given.
    :ivar clock: the time, for the server, the network and the clients.
    :ivar endpoint: for code that connects by itself: ``connect(server.clock, server.endpoint)``.
    :ivar store_delay: seconds that the store takes for each answer.
    :ivar network_delay: called for each batch of bytes that is sent, with True if a client sends it; how many
        seconds it is on its way. None can overtake an earlier one of the same connection.
    :ivar reachable: whether clients can connect.
    :ivar tells_outcomes: whether clients can learn what became of a COMMIT whose reply was lost. If not, the
        connection on which they ask breaks, and in the end they raise OutcomeUnknown.
    """

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.clock = Clock()
        self.store_delay = 0.0
        self.network_delay: Callable[[bool], float] = lambda from_client: 0.0
        self.reachable = True
        self.tells_outcomes = True
        self.endpoint: IStreamClientEndpoint = _Endpoint(self)
        self._conflict = False
        self._lose: str | None = None
        self._ends: list[_End] = []  # the clients' ends of the open connections
        faulty = FaultyStore(store or MemoryStore(), self.clock, lambda: self.store_delay, self._take_conflict)
        self._service = StoreService(faulty, self.clock)
        self._factory: IProtocolFactory = factory(self._service)
        self._service.startService()

    def connect(self, **options: Any) -> Client:
        """A client that is connected.

        :param options: as for :func:`kvd.client.connect`.
        """
        options.setdefault("rand", random.Random(0).random)
        return self.run(connect(self.clock, self.endpoint, **options))

    # Time.

    def run(self, awaitable: Awaitable[T], limit: float = 600.0) -> T:
        """Let bytes move and time pass until a Deferred has fired or a coroutine is done.

        :param limit: seconds of virtual time that this may take.
        :return: what it came to, or raises what it failed with.
        """
        results: list[T | Failure] = []
        Deferred.fromCoroutine(_wait(awaitable)).addBoth(results.append)
        too_late = self.clock.seconds() + limit
        self.flush()
        while not results:
            due = self._next()
            if due is None or due > too_late:
                raise AssertionError(f"no result within {limit:g} seconds of virtual time")
            self._go_to(due)
        result = results[0]
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def flush(self) -> None:
        """Let everything happen that is due now."""
        self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due in it, each at its own instant."""
        end = self.clock.seconds() + seconds
        while (due := self._next()) is not None and due <= end:
            self._go_to(due)
        self._go_to(end)

    @contextmanager
    def ticking(self, reactor: Any = None) -> Iterator[None]:
        """Let time move by itself inside a ``with`` block: for tests that are coroutines and run on a reactor.

        With each turn of the reactor, time goes on to the next instant at which something happens. So an hour passes
        at once, and nothing should be waited for that takes real time, such as a thread.

        :param reactor: the global reactor if it is not given.
        """
        if reactor is None:
            from twisted.internet import reactor
        ticks = LoopingCall(self._tick)
        ticks.clock = reactor
        ticks.start(0, now=False)
        try:
            yield
        finally:
            ticks.stop()

    def _tick(self) -> None:
        due = self._next()
        if due is not None:
            try:
                self._go_to(due)
            except Exception:
                log.failure("what was due at an instant failed")

    def _next(self) -> float | None:
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)

    def _go_to(self, time: float) -> None:
        self.clock.rightNow = max(time, self.clock.rightNow)  # a sum of floats might not quite get there
        self.clock.advance(0)

    # Faults.

    def conflict_at_next_commit(self) -> None:
        """The next COMMIT that would store something meets a conflict."""
        self._conflict = True

    def lose_link_before_next_commit(self) -> None:
        """The connection that sends the next COMMIT breaks before that reaches the server.

        The client asks what became of it, and learns that nothing was stored; unless ``tells_outcomes`` is False.
        """
        self._lose = "before"

    def lose_link_after_next_commit(self) -> None:
        """The connection that sends the next COMMIT breaks when that has reached the server, and before its reply.

        The client asks what became of it, and learns that it was stored; unless ``tells_outcomes`` is False.
        """
        self._lose = "after"

    def lose_links(self) -> None:
        """Break all connections, as if the network had gone."""
        for end in list(self._ends):
            end.lose(ConnectionLost())

    # What the network and the store ask.

    def _take_conflict(self) -> bool:
        wanted, self._conflict = self._conflict, False
        return wanted

    def _breaks_at(self, data: bytes) -> int | None:
        """After how many bytes of what a client sends its connection breaks."""
        if self._lose and (commit := _line_of("COMMIT", data)) is not None:
            wanted, self._lose = self._lose, None
            return commit[wanted == "after"]
        if not self.tells_outcomes and (outcome := _line_of("OUTCOME", data)) is not None:
            return outcome[0]
        return None


async def _wait(awaitable: Awaitable[T]) -> T:
    return await awaitable


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects to the server of a test."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if not self._server.reachable:
            return fail(ConnectionRefusedError())
        here, there = _End(self._server, True), _End(self._server, False)
        here.peer, there.peer = there, here
        self._server._ends.append(here)
        there.begin(self._server._factory)
        return succeed(here.begin(protocolFactory))


_END = b""
"""Behind all that was sent: the connection was closed."""


@implementer(ITransport, IPushProducer)
class _End:
    """One end of a connection in memory. What is written in one turn travels as one batch."""

    protocol: Any
    peer: _End

    def __init__(self, server: MemoryServer, is_client: bool) -> None:
        self._server = server
        self._is_client = is_client
        self._sent: list[bytes] = []  # on its way to the peer
        self._held: list[bytes] = []  # has arrived, and is not read yet
        self._paused = False
        self._closing = False
        self._closed = False
        self.disconnecting = False

    def begin(self, factory: IProtocolFactory) -> IProtocol:
        """Put a protocol on this end."""
        protocol = factory.buildProtocol(self.getPeer())
        assert protocol is not None
        self.protocol = protocol
        protocol.makeConnection(self)
        return protocol

    def write(self, data: bytes) -> None:
        if self._closing or not data:
            return
        if not self._sent:
            self._schedule()
        self._sent.append(data)

    def _schedule(self) -> None:
        self._server.clock.callLater(self._server.network_delay(self._is_client), self._arrive)

    def _arrive(self) -> None:
        """What was sent comes to the peer."""
        if self._closed:
            return
        data, self._sent = b"".join(self._sent), []
        end = self._server._breaks_at(data) if self._is_client else None
        data = data[:end]
        self.peer._held += [data] * bool(data) + [_END] * self._closing
        self.peer._take()
        if end is not None:
            self.lose(ConnectionLost())

    def _take(self) -> None:
        while self._held and not self._paused and not self._closed:
            data = self._held.pop(0)
            if data is _END:
                self.lose(ConnectionDone())
            else:
                self.protocol.dataReceived(data)

    def lose(self, reason: Exception) -> None:
        """Both ends hear that the connection has ended."""
        for end in (self, self.peer):
            if not end._closed:
                end._closed = end._closing = True
                end.protocol.connectionLost(Failure(reason))
        ends = self._server._ends
        ends[:] = [end for end in ends if not end._closed]

    def loseConnection(self) -> None:
        self.disconnecting = True
        if not self._closing:
            self._closing = True
            if not self._sent:
                self._schedule()

    def abortConnection(self) -> None:
        self._closing = True
        self._server.clock.callLater(0, self.lose, ConnectionLost())

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._server.clock.callLater(0, self._take)

    def stopProducing(self) -> None:
        self.loseConnection()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    # A test has room for every reply, so the protocol is never asked to pause.

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 49152 if self._is_client else 8765)

    def getPeer(self) -> IPv4Address:
        return self.peer.getHost()


def _line_of(command: str, data: bytes) -> tuple[int, int] | None:
    """Where the first line of a batch begins and ends that asks for a command."""
    start = 0
    for line in data.splitlines(keepends=True):
        try:
            name, _ = wire.parse(line.decode().rstrip("\r\n"))
            if name == command:
                return start, start + len(line)
        except (KvdError, UnicodeDecodeError):
            pass
        start += len(line)
    return None
