"""The Deferred client: time-outs, and connections that end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from kvd.client import Client, connect
from kvd.client.link import Link
from kvd.errors import (
    Busy,
    KvdError,
    OutcomeUnknown,
    Unavailable,
)
from kvd.testing import MemoryServer
from kvd.wire import MAX_REPLY
from tests.support.client import add_one, connections, outcome_of


def test_a_reply_that_is_late_fails_all_that_is_under_way_and_is_never_taken_for_another(server: MemoryServer) -> None:
    client = server.connect(timeout=10)
    server.run(client.put("a", "1"))
    server.store_delay = 25
    read, write = outcome_of(client.get("a")), outcome_of(client.incr("n"))
    server.advance(9.9)
    assert read == []
    server.advance(0.2)
    assert isinstance(read[0], Unavailable)
    assert "within 10 seconds" in str(read[0])
    assert isinstance(write[0], OutcomeUnknown)
    server.store_delay = 0
    assert server.run(client.get("b")) is None
    server.advance(60)
    assert server.run(client.get("a")) == "1"
    assert server.run(client.get("n")) is None  # it was behind the GET, and had not begun


def test_requests_that_get_their_replies_in_time_are_not_counted_together(server: MemoryServer) -> None:
    client = server.connect(timeout=10)
    server.store_delay = 4
    first, second = client.get("a"), client.get("a")
    assert server.run(gatherResults([first, second])) == [None, None]
    server.advance(9)
    assert server.run(client.get("a")) is None
    assert connections(server, client) == (1, 1)


def test_each_request_has_its_own_time(server: MemoryServer) -> None:
    client = server.connect(timeout=10)
    server.run(client.get("a"))
    server.advance(3)
    server.store_delay = 25
    found = outcome_of(client.get("a"))
    server.advance(9.9)
    assert found == []
    server.advance(0.2)
    assert type(found[0]) is Unavailable


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda client: client.get("a"), Unavailable),
        (lambda client: client.scan(), Unavailable),
        (lambda client: client.put("a", "1"), OutcomeUnknown),
        (lambda client: client.delete("a"), OutcomeUnknown),
        (lambda client: client.incr("a"), OutcomeUnknown),
        (lambda client: client.cas("a", None, "1"), OutcomeUnknown),
        (lambda client: client.call("put", "a", "1"), OutcomeUnknown),
    ],
)
def test_a_lost_connection_tells_apart_what_may_have_been_done(
    server: MemoryServer, client: Client, ask: Callable[[Client], Deferred[Any]], error: type[KvdError]
) -> None:
    found = outcome_of(ask(client))
    server.lose_links()
    assert type(found[0]) is error


def test_after_a_lost_connection_the_client_has_a_new_one(server: MemoryServer, client: Client) -> None:
    server.run(client.put("a", "1"))
    server.lose_links()
    assert server.run(client.get("a")) == "1"
    assert connections(server, client) == (1, 2)


def test_commands_wait_in_order_for_a_server_that_is_away_for_a_moment(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    commands: list[Deferred[Any]] = [client.put("a", "1"), client.get("a"), client.put("a", "2"), client.get("a")]
    server.advance(2)
    server.reachable = True
    assert server.run(gatherResults(commands)) == [None, "1", None, "2"]


def test_commands_fail_after_five_seconds_without_a_server_and_surely_were_not_done(
    server: MemoryServer, client: Client
) -> None:
    server.reachable = False
    server.lose_links()
    found = outcome_of(client.put("a", "1"))
    server.advance(4.9)
    assert found == []
    server.advance(0.2)
    assert type(found[0]) is Unavailable
    assert not client._shared._waiting
    server.reachable = True
    server.advance(5)
    assert server.run(client.get("a")) is None


def test_a_command_that_is_cancelled_while_it_waits_for_the_server_is_never_sent(
    server: MemoryServer, client: Client
) -> None:
    server.reachable = False
    server.lose_links()
    waiting = client.put("a", "1")
    found = outcome_of(waiting)
    waiting.cancel()
    assert isinstance(found[0], CancelledError)
    assert not client._shared._waiting
    server.reachable = True
    server.advance(5)
    assert server.run(client.get("a")) is None


def test_connecting_to_nothing_fails_when_the_wait_is_over_and_leaves_nothing_behind(server: MemoryServer) -> None:
    server.reachable = False
    before = len(server.clock.getDelayedCalls())
    with pytest.raises(Unavailable, match="refused"):
        server.connect(wait=3)
    assert 1 < server.clock.seconds() <= 3
    assert len(server.clock.getDelayedCalls()) == before


def test_connecting_waits_for_a_server_that_starts_later(server: MemoryServer) -> None:
    server.reachable = False
    connecting = connect(server.clock, server.endpoint, wait=60)
    server.advance(50)
    server.reachable = True
    client = server.run(connecting)
    assert server.clock.seconds() < 53
    assert server.run(client.ping()) == "PONG"


def test_connecting_to_what_is_no_endpoint_fails(server: MemoryServer) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        server.run(connect(server.clock, "nonsense:1"))


class Says(Protocol):
    """A server that says something to everyone who comes, and closes."""

    greeting = b'{"status": "Error", "mesg": "too many clients", "code": "BUSY"}\n'

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.greeting)
        self.transport.loseConnection()


def test_a_server_that_is_full_is_told_from_one_that_is_away(server: MemoryServer) -> None:
    server._factory = Factory.forProtocol(Says)
    with pytest.raises(Busy, match="too many clients"):
        server.connect()


class SpeaksSmtp(Says):
    greeting = b"220 mail.example ESMTP\r\n"


class SpeaksHttp(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>")
        self.transport.loseConnection()


class Parrot(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


@pytest.mark.parametrize("kind", [SpeaksSmtp, SpeaksHttp, Parrot])
def test_connecting_to_something_that_is_not_a_kvd_server_fails_at_once_and_says_so(
    server: MemoryServer, kind: type[Protocol]
) -> None:
    server._factory = Factory.forProtocol(kind)
    with pytest.raises(Unavailable, match="this is not a kvd server"):
        server.connect()
    assert server.clock.seconds() == 0


def test_replies_are_found_however_they_are_cut(server: MemoryServer, client: Client) -> None:
    long = "x" * 100_000
    server.run(client.put("long", long))
    (end,) = server._ends
    receive, cuts = end.protocol.dataReceived, [1, 2, 3, 50_000, 7]

    def in_pieces(data: bytes) -> None:
        for size in cuts:
            receive(data[:size])
            data = data[size:]
        receive(data)

    end.protocol.dataReceived = in_pieces
    requests: list[Deferred[Any]] = [client.ping(), client.get("long"), client.ping()]
    assert server.run(gatherResults(requests)) == ["PONG", long, "PONG"]


@pytest.fixture
def link() -> Link:
    link = Link()
    link.makeConnection(StringTransport(peerAddress=UNIXAddress(None)))
    return link


def test_a_reply_that_never_ends_is_not_kept(link: Link) -> None:
    found = outcome_of(link.send(b"PING\n"))
    for _ in range(MAX_REPLY // 2**20):
        link.dataReceived(b"x" * 2**20)
    assert found == []
    link.dataReceived(b"x")
    assert "too long" in str(found[0])
    assert isinstance(link.transport, StringTransport)
    assert link.transport.disconnecting


def test_long_replies_are_not_counted_together(link: Link) -> None:
    half = b"x" * (MAX_REPLY // 3 * 2)
    replies = [link.send(b"PING\n") for _ in range(3)]
    for _ in replies:
        link.dataReceived(half)
        link.dataReceived(b"\n")
    assert [len(outcome_of(reply)[0]) for reply in replies] == [len(half)] * 3
    assert link.lost is None


def test_a_disconnected_client_is_disconnected_for_good(server: MemoryServer, client: Client) -> None:
    server.run(client.transact(add_one, "a"))
    under_way = outcome_of(client.put("a", "5"))
    disconnecting = client.disconnect()
    too_late = outcome_of(client.put("b", "5"))
    assert type(too_late[0]) is Unavailable
    server.run(disconnecting)
    assert len(under_way) == 1
    for use in (client.get("a"), client.transact(add_one, "a")):
        with pytest.raises(Unavailable, match="disconnected"):
            server.run(use)
    server.advance(100)
    assert connections(server, server.connect()) == (1, 3)


def test_a_disconnected_client_leaves_nothing_behind(server: MemoryServer) -> None:
    before = len(server.clock.getDelayedCalls())
    client = server.connect()
    server.run(gatherResults([client.transact(add_one, key) for key in "abc"]))
    server.run(client.disconnect())
    assert len(server.clock.getDelayedCalls()) == before
    assert server._ends == []


def test_disconnecting_fails_the_commands_that_wait_for_a_server(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    found = outcome_of(client.put("a", "1"))
    server.run(client.disconnect())
    assert type(found[0]) is Unavailable
    assert "disconnected" in str(found[0])


@implementer(IStreamClientEndpoint)
class LateEndpoint:
    """Connects to a server once it is told to, but for the first connection, which it makes at once."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.late: list[Deferred[IProtocol]] = []
        self.factories: list[IProtocolFactory] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if not self.factories:
            self.factories.append(protocolFactory)
            return self.server.endpoint.connect(protocolFactory)
        self.factories.append(protocolFactory)
        self.late.append(Deferred())
        return self.late[-1]


def test_a_connection_that_is_not_made_in_time_is_given_up(server: MemoryServer) -> None:
    endpoint = LateEndpoint(server)
    client = server.run(connect(server.clock, endpoint, retry_for=0))
    found = outcome_of(client.transact(add_one, "a"))
    server.advance(4.9)
    assert found == []
    server.advance(0.2)
    assert type(found[0]) is Unavailable
    assert endpoint.late[0].called  # it was cancelled


def test_a_connection_that_is_made_when_the_client_is_disconnected_already_is_closed(server: MemoryServer) -> None:
    endpoint = LateEndpoint(server)
    client = server.run(connect(server.clock, endpoint))
    found = outcome_of(client.transact(add_one, "a"))
    server.flush()
    server.run(client.disconnect())
    server.endpoint.connect(endpoint.factories[1]).chainDeferred(endpoint.late[0])
    server.flush()
    assert server._ends == []
    assert type(found[0]) is Unavailable


def test_disconnecting_turns_away_who_waits_for_a_connection(server: MemoryServer) -> None:
    client = server.connect(pool=1)

    async def hold() -> None:
        async with client.transaction():
            await Deferred()

    holding, waiting = outcome_of(Deferred.fromCoroutine(hold())), outcome_of(client.transact(add_one, "a"))
    server.flush()
    assert (holding, waiting) == ([], [])
    server.run(client.disconnect())
    assert type(waiting[0]) is Unavailable
    assert holding == []
