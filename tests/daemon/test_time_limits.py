"""Time limits: who is silent, or at one line, or does not read, and what a client is told before it is disconnected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from kvd.core.limits import Limits
from kvd.daemon.stream import Refusal, StreamProtocol
from kvd.testing.conversations import Connection, Server
from kvd.testing.stores import SlowStore, slow_sync_store
from tests.support.replies import OK, code


def server_with(**limits: Any) -> Server:
    return Server(limits=Limits(**limits))


# A line that has begun must arrive whole.


def test_a_line_that_does_not_end_is_told_so_and_nothing_of_it_is_run() -> None:
    server = server_with(line_time=60)
    client = server.client()
    client.send(b"PUT a 1\nPUT a 2")
    server.clock.pump([1] * 62)
    first, second = client.received().splitlines(keepends=True)
    assert (first, code(second)) == (OK, "IDLE")
    assert "60 seconds" in json.loads(second)["mesg"]
    assert client.closed
    server.play('2 GET a -> "1"')


def test_the_time_of_a_line_begins_with_its_first_byte() -> None:
    server = server_with(line_time=60)
    client = server.client()
    server.clock.pump([1] * 100)
    client.send(b"PI")
    server.clock.pump([1] * 59)
    client.send(b"NG\n")
    assert b"PONG" in client.received()
    server.clock.pump([1] * 100)
    assert not client.closed


def test_what_arrives_after_idle_is_not_run() -> None:
    server = server_with(idle_time=10)
    client = server.client()
    client.send(b"START\nPUT a 1\n")
    client.received()
    server.clock.pump([1] * 12)
    assert code(client.received()) == "IDLE"
    client.protocol.dataReceived(b"COMMIT\nPUT a 2\n")
    server.settle()
    assert client.received() == b""
    server.play("2 GET a -> null")


# Silence.


def test_silence_runs_from_the_last_reply() -> None:
    slow = SlowStore(Clock())
    server = Server(slow, slow.clock, Limits(idle_time=10, store_wait=300))
    slow.silent = True
    client = server.client()
    client.protocol.dataReceived(b"GET a\n")
    slow.clock.pump([1] * 299)
    assert not client.closed
    slow.clock.pump([1] * 2)
    assert code(client.received()) == "UNAVAILABLE"
    slow.clock.pump([1] * 8)
    assert not client.closed
    slow.clock.pump([1] * 3)
    assert code(client.received()) == "IDLE"
    assert client.closed


def test_a_client_whose_reply_is_held_until_it_is_durable_is_not_silent() -> None:
    clock = Clock()
    store, _ = slow_sync_store(clock, 100)
    server = Server(store, clock, Limits(idle_time=10))
    client = server.client()
    client.protocol.dataReceived(b"PUT a 1\n")
    clock.pump([1] * 101)
    assert client.received() == OK
    clock.pump([1] * 8)
    assert not client.closed
    clock.pump([1] * 4)
    assert code(client.received()) == "IDLE"


def test_without_an_idle_time_silence_has_no_end() -> None:
    server = server_with()
    client = server.client()
    client.send(b"PING\n")
    server.clock.pump([10] * 10_000)
    assert not client.closed


# Output that is not read.


class Unread(StringTransportWithDisconnection):
    """The transport of a client that does not read: it does not close before that."""

    aborted = False

    def loseConnection(self) -> None:
        pass

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


def unread(server: Server) -> tuple[StreamProtocol, Unread]:
    """A client that asks for something, and does not read the reply."""
    protocol = server.factory.buildProtocol(None)
    assert isinstance(protocol, StreamProtocol)
    transport = Unread()
    transport.protocol = protocol
    protocol.makeConnection(transport)
    protocol.dataReceived(b"PING\n")
    protocol.pauseProducing()
    return protocol, transport


def test_output_that_is_not_read_for_the_idle_time_ends_the_connection() -> None:
    server = server_with(idle_time=10)
    protocol, transport = unread(server)
    server.clock.pump([1] * 9)
    assert not transport.aborted
    protocol.resumeProducing()
    protocol.pauseProducing()
    server.clock.pump([1] * 9)
    assert not transport.aborted
    server.clock.pump([1] * 4)
    assert transport.aborted


def test_without_an_idle_time_output_may_stay_unread() -> None:
    server = server_with()
    _, transport = unread(server)
    server.clock.pump([1] * 1000)
    assert not transport.aborted


def test_while_a_connection_is_closing_its_output_must_be_read_within_60_seconds() -> None:
    server = server_with()
    protocol, transport = unread(server)
    protocol.resumeProducing()
    protocol.dataReceived(b"QUIT\n")
    server.clock.advance(0)
    protocol.pauseProducing()
    server.clock.pump([1] * 58)
    assert not transport.aborted
    server.clock.pump([1] * 5)
    assert transport.aborted


# A full server.


def refused(server: Server) -> dict[str, Any]:
    """What a client is told that is refused."""
    protocol = server.factory.buildProtocol(None)
    assert isinstance(protocol, Refusal)
    transport = StringTransportWithDisconnection()
    transport.protocol = protocol
    protocol.makeConnection(transport)
    told: dict[str, Any] = json.loads(transport.value())
    assert not transport.connected
    return told


def test_a_newcomer_takes_the_place_of_who_never_said_anything_for_60_seconds() -> None:
    server = server_with(clients=2)
    first, second = Connection(server), Connection(server)
    server.clock.pump([1] * 59)
    assert refused(server)["code"] == "BUSY"
    server.clock.pump([1] * 2)
    third = Connection(server)
    assert code(first.received()) == "IDLE"
    assert first.closed
    assert not second.closed
    assert b"PONG" in third.exchange(b"PING\n")
    fourth = Connection(server)
    assert code(second.received()) == "IDLE"
    assert b"PONG" in fourth.exchange(b"PING\n")
    server.clock.pump([1] * 100)
    assert refused(server)["code"] == "BUSY"


@pytest.mark.parametrize("said", [b"PING\n", b"\n", b"nonsense\n"])
def test_who_has_sent_a_whole_line_keeps_its_place(said: bytes) -> None:
    server = server_with(clients=1)
    client = Connection(server)
    client.send(said)
    client.received()
    server.clock.pump([1] * 1000)
    assert refused(server)["code"] == "BUSY"
    assert not client.closed


def test_who_has_sent_half_a_line_does_not_keep_its_place() -> None:
    server = server_with(clients=1, line_time=0)
    client = Connection(server)
    client.send(b"PI")
    server.clock.pump([1] * 61)
    other = Connection(server)
    assert code(client.received()) == "IDLE"
    assert b"PONG" in other.exchange(b"PING\n")


def test_connections_that_are_accepted_but_not_yet_made_count() -> None:
    server = server_with(clients=3)
    accepted = [server.factory.buildProtocol(None) for _ in range(5)]
    assert [type(protocol) for protocol in accepted] == [*[type(accepted[0])] * 3, Refusal, Refusal]
    assert isinstance(accepted[0], StreamProtocol)
    accepted[0].connectionAbandoned()
    assert isinstance(server.factory.buildProtocol(None), StreamProtocol)
    assert isinstance(server.factory.buildProtocol(None), Refusal)


def test_everybody_who_is_refused_is_told_and_counted() -> None:
    server = server_with(clients=1)
    Connection(server).send(b"PING\n")
    assert [refused(server)["code"] for _ in range(100)] == ["BUSY"] * 100
    assert server.service.core.refused == 100
    assert server.service.refusals == 0


def test_one_client_is_not_called_clients() -> None:
    server = server_with(clients=1)
    Connection(server).send(b"PING\n")
    assert "the server has 1 client, which is its limit" in refused(server)["mesg"]
