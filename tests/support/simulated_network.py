"""A network that exists in memory only: it delays, splits and merges what is sent, breaks links, and fills up.

Its ends are transports as Twisted's TCP has them, with half-close, back-pressure in both directions, and an end
of the connection that each side hears of at a time of its own. Chance decides everything, so one seed is one network.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IPushProducer, IStreamClientEndpoint, ITransport
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.core.connection import TURN_REQUESTS

FIN = b""
"""Travels behind the last byte of a direction."""


class BusyClock(Clock):
    """A clock that also moves when it is read: work takes time, as it does in life.

    :param cost: seconds for each reading.
    """

    def __init__(self, cost: float) -> None:
        super().__init__()
        self._cost = cost

    def seconds(self) -> float:
        self.rightNow += self._cost
        return self.rightNow


@implementer(IStreamClientEndpoint)
class Network:
    """Joins clients to a server; an endpoint for the clients.

    :param factory: the server's.
    :param tell: is told each thing that happens, as one line.
    :ivar reachable: whether clients can connect.
    :ivar links: the clients' ends of all connections that one side at least still holds.
    :ivar answered: how many replies the server has written.
    """

    def __init__(
        self, clock: Clock, rand: random.Random, factory: IProtocolFactory, tell: Callable[[str], None]
    ) -> None:
        self.clock = clock
        self.rand = rand
        self.tell = tell
        self.factory = factory
        self.reachable = True
        self.links: list[End] = []
        self.accepted = 0
        self.answered = 0
        self.most_at_once = 0  # replies in one write
        self.most_before = 0  # replies to one other client between a request's arrival and its own
        self._writes: deque[tuple[float, End, int]] = deque(maxlen=1000)
        # How this network is.
        self.latency = rand.choice([0.0001, 0.002, 0.05])
        self.tears = rand.choice([0.0, 0.1, 0.5])  # how likely a packet is split
        self.stalls = rand.choice([0.0, 0.0, 0.002])  # how likely a packet is held up for long
        self.blunt = rand.random() < 0.3  # an end that does not read hears of the other's FIN all the same, as with TLS
        self.room = rand.choice([300, 4000, 64 * 1024])  # bytes that an end buffers before its producer is paused

    def delay(self) -> float:
        """How long a packet is on its way, in seconds."""
        if self.rand.random() < self.stalls:
            return self.rand.uniform(1, 80)
        return self.rand.expovariate(1 / self.latency)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return deferLater(self.clock, self.delay(), self._connect, protocolFactory)

    def _connect(self, factory: IProtocolFactory) -> IProtocol:
        if not self.reachable:
            raise ConnectionRefusedError()
        self.accepted += 1
        here, there = End(self, f"c{self.accepted}", True), End(self, f"s{self.accepted}", False)
        here.peer, there.peer = there, here
        self.links.append(here)
        self.tell(f"{here.name} connects")
        there.begin(self.factory)
        return here.begin(factory)

    def cut(self) -> None:
        """Break some link in the middle of whatever is on its way; each side hears of it at a time of its own."""
        whole = [end for end in self.links if not end.deaf]
        if whole:
            end = self.rand.choice(whole)
            self.tell(f"{end.name} is cut")
            for each in (end, end.peer):
                each.deaf = True
                self.clock.callLater(self.rand.uniform(0, 3), each.lose, ConnectionLost())

    def crash(self) -> None:
        """The server is gone, and with it its ends of all links; each client hears of that at a time of its own."""
        for end in list(self.links):
            deaf, end.deaf, end.peer.deaf = end.deaf, True, True
            end.peer.lose(ConnectionLost())
            if not deaf:
                self.clock.callLater(self.rand.uniform(0, 3), end.lose, ConnectionLost())

    # How the server shares itself out among its clients.

    def reply_leaves(self, end: End, number: int) -> None:
        """The server has written so many replies."""
        self.answered += number
        self.most_at_once = max(self.most_at_once, number)
        if end.asked is not None:
            others: dict[End, int] = {}
            for when, other, replies in reversed(self._writes):
                if when < end.asked:
                    break
                others[other] = others.get(other, 0) + replies
            self.most_before = max(self.most_before, *others.values(), 0)
            end.asked = None
        self._writes.append((self.clock.rightNow, end, number))

    def unfair(self, at_once: bool) -> list[str]:
        """What some client got more than its share of.

        :param at_once: the store answers at once, so that nobody has to wait for anything but other clients.
        """
        found = []
        if self.most_at_once > TURN_REQUESTS:
            found.append(f"{self.most_at_once} replies in one turn")
        if at_once and self.most_before > 2 * TURN_REQUESTS:
            found.append(f"one client got {self.most_before} replies while another waited for one")
        return found


@implementer(ITransport, IPushProducer)
class End:
    """One end of a connection.

    :ivar deaf: nothing arrives here any more.
    :ivar asked: when a request reached the machine that has no reply yet, if it waits for nothing but its turn.
    """

    peer: End
    protocol: Any

    def __init__(self, network: Network, name: str, is_client: bool) -> None:
        self.name = name
        self.closed = self.deaf = self.disconnecting = False
        self.asked: float | None = None
        self._network = network
        self._is_client = is_client
        self._written = bytearray()  # and not on its way yet
        self._arrived = bytearray()  # and not read yet
        self._on_its_way = 0  # bytes that have left the peer
        self._queue: deque[tuple[Callable[[Any], None], object, float]] = deque()  # what will happen at the peer
        self._last = 0.0  # when the latest packet to the peer arrives; none overtakes it
        self._shut = False  # nothing may be written any more
        self._ended = False  # the FIN has arrived
        self._paused = self._departing = self._blocked = self._full = False
        self._producer: IPushProducer | None = None

    def begin(self, factory: IProtocolFactory) -> IProtocol:
        """Put a protocol on this end."""
        protocol = factory.buildProtocol(self.getPeer())
        assert protocol is not None
        self.protocol = protocol
        protocol.makeConnection(self)
        return protocol

    # Out.

    def write(self, data: bytes) -> None:
        if self._shut or self.closed or not data:
            return
        if not self._is_client:
            self._network.reply_leaves(self, data.count(b"\n"))
        self._written += data
        self._hurry()
        if self._producer is not None and not self._full and len(self._written) > self._network.room:
            self._full = True
            self.asked = None
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def _hurry(self) -> None:
        if not self._departing:
            self._departing = True
            self._network.clock.callLater(0, self._depart)

    def _depart(self) -> None:
        """Send a packet: all that was written, or as much as chance and the peer's buffer let through."""
        self._departing = False
        network, peer = self._network, self.peer
        if self.closed:
            return
        if self._written:
            space = network.room - len(peer._arrived) - peer._on_its_way
            if peer.closed:
                space = len(self._written)
            if space <= 0:
                self._blocked = True  # until the peer reads
                return
            size = min(len(self._written), space)
            if network.rand.random() < network.tears:
                size = network.rand.randint(1, size)
            packet = bytes(self._written[:size])
            del self._written[:size]
            peer._on_its_way += size
            self._after_all(peer._arrive, packet)
            if self._full and not self._written:
                self._full = False
                if self._producer is not None:
                    self._producer.resumeProducing()
        if self._written:
            self._hurry()
        elif self._shut:
            self._after_all(peer._arrive, FIN)
            if self.disconnecting:
                self.lose(ConnectionDone())

    def _after_all(self, act: Callable[[Any], None], argument: object) -> None:
        """Have something happen at the peer, behind all that is on its way there."""
        now = self._network.clock.seconds()
        self._last = max(self._last, now + self._network.delay())
        self._queue.append((act, argument, self._last))
        self._network.clock.callLater(self._last - now, self._next)

    def _next(self) -> None:
        act, argument, due = self._queue.popleft()
        if isinstance(argument, bytes) and argument[: argument.rfind(b"\n") + 1].strip():
            self.peer._asked_at(due)
        act(argument)

    # In.

    def _asked_at(self, time: float) -> None:
        if self.asked is None and not self._paused:
            self.asked = time

    def _arrive(self, packet: bytes) -> None:
        self._on_its_way -= len(packet)
        if self.deaf:
            return
        if self.closed:
            if packet and not self.peer.closed:  # as TCP's RST tells it
                self._after_all(self.peer.lose, ConnectionLost())
            return
        if packet is FIN:
            self._ended = True
        self._arrived += packet
        self._take()

    def _take(self) -> None:
        while self._arrived and not self._paused and not self.closed:
            data = bytes(self._arrived)
            self._arrived.clear()
            self._network.tell(f"{self._network.clock.rightNow:.6f} {self.name} gets {data!r}")
            self.protocol.dataReceived(data)
            if self.peer._blocked:
                self.peer._blocked = False
                self.peer._hurry()
        if self._ended and not self._arrived and not self.closed and (self._network.blunt or not self._paused):
            self._ended = False
            self._network.tell(f"{self._network.clock.rightNow:.6f} {self.name} gets the end")
            if hasattr(self.protocol, "readConnectionLost"):
                self.protocol.readConnectionLost()
            else:
                self.lose(ConnectionDone())

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._network.clock.callLater(0, self._take)

    # The end.

    def loseWriteConnection(self) -> None:
        """Send no more, but go on reading."""
        if not self._shut:
            self._shut = True
            self._hurry()

    def loseConnection(self) -> None:
        self.disconnecting = True
        if self._shut:
            self._network.clock.callLater(0, self.lose, ConnectionDone())
        self.loseWriteConnection()

    def abortConnection(self) -> None:
        self._shut = True
        self._network.clock.callLater(0, self.lose, ConnectionLost())
        self._after_all(self.peer.lose, ConnectionLost())

    def stopProducing(self) -> None:
        self.loseConnection()

    def lose(self, reason: Exception) -> None:
        """This end hears that the connection has ended."""
        if self.closed:
            return
        self.closed = self._shut = True
        self._written.clear()
        self._arrived.clear()
        self._network.tell(f"{self._network.clock.rightNow:.6f} {self.name} ends: {type(reason).__name__}")
        if self._producer is not None:
            self._producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))
        if self.peer._blocked:  # what it sends now is answered with an RST
            self.peer._blocked = False
            self.peer._hurry()
        if self.peer.closed:
            self._network.links.remove(self if self._is_client else self.peer)

    # What else a transport has.

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 49152 if self._is_client else 8765)

    def getPeer(self) -> IPv4Address:
        return self.peer.getHost()
