"""Bytes in, bytes out: turns, back-pressure, time limits, and how a connection ends."""

from __future__ import annotations

import gc
import weakref

import pytest
from twisted.internet.testing import StringTransport

from kvd.testing.conversations import Connection, Server
from tests.support.replies import result

MIB = 1024 * 1024


# The end of the client's side


def test_a_client_that_sends_no_more_still_gets_every_reply(client: Connection) -> None:
    client.protocol.dataReceived(b"PING x\n" * 1000 + b"PUT a b")
    client.protocol.readConnectionLost()
    client._server.settle()
    assert client.received() == result("x") * 1000
    assert client.closed


def test_a_line_without_its_end_is_never_run(server: Server, client: Connection) -> None:
    client.protocol.dataReceived(b"PUT a b")
    client.protocol.readConnectionLost()
    assert client.received() == b""
    assert client.closed
    server.play("2 GET a -> null")


# Turns and back-pressure


def test_a_turn_ends_after_256_requests_and_others_get_theirs(server: Server) -> None:
    greedy, polite = server.client(1), server.client(2)
    greedy.protocol.dataReceived(b"PING\n" * 1000)
    assert greedy.received() == result("PONG") * 256
    assert greedy.transport.producerState == "paused"
    polite.protocol.dataReceived(b"PING\n")
    assert polite.received() == result("PONG")
    server.settle()
    assert greedy.received() == result("PONG") * 744
    assert greedy.transport.producerState == "producing"


def test_a_turn_ends_after_64_kib_of_replies(server: Server) -> None:
    client = server.client()
    client.exchange(b"PUT k " + b"x" * MIB + b"\n")
    client.protocol.dataReceived(b"GET k\n" * 10)
    assert client.received().count(b"\n") == 1
    server.settle()
    assert client.received().count(b"\n") == 9


def test_who_does_not_read_is_not_answered_and_not_read_from(server: Server) -> None:
    client = server.client()
    client.protocol.pauseProducing()  # so the transport says that its buffer is full
    client.protocol.dataReceived(b"PING\n" * 3)
    server.settle()
    assert client.received() == b""
    assert client.transport.producerState == "paused"
    client.protocol.resumeProducing()
    server.settle()
    assert client.received() == result("PONG") * 3
    assert client.transport.producerState == "producing"


def test_a_client_that_fills_its_buffer_in_the_middle_of_a_batch_gets_the_rest_later(server: Server) -> None:
    client = server.client()
    client.protocol.dataReceived(b"PING\n" * 600)
    client.protocol.pauseProducing()
    server.settle()
    assert client.received() == result("PONG") * 256
    client.protocol.resumeProducing()
    server.settle()
    assert client.received() == result("PONG") * 344


# Time limits of transactions


def test_an_idle_transaction_expires_after_60_seconds(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
    """)
    server.clock.advance(59)
    server.play("1 PUT b 1 -> ok")
    server.clock.pump([1] * 62)
    assert server.service.store.info()["old_values"] == 0
    server.play("""
        1 GET a         -> TXN_EXPIRED
        1 NOSUCH        -> TXN_EXPIRED
        1 START         -> TXN_EXPIRED
        1 CHECK         -> TXN_EXPIRED
        1 SAVEPOINT s   -> TXN_EXPIRED
        1 ROLLBACK TO s -> TXN_EXPIRED
        1 PING          -> "PONG"
        1 COMMIT        -> TXN_EXPIRED
        1 MGET a b      -> [null, null]
    """)


def test_rollback_ends_what_is_left_of_an_expired_transaction(server: Server) -> None:
    server.play("1 START -> ok")
    server.clock.pump([1] * 62)
    reply = server.client(1).ask("GET a")
    assert "idle for more than 60 seconds" in reply["mesg"]
    server.play("""
        1 ROLLBACK -> ok
        1 ROLLBACK -> NO_TRANSACTION
    """)


@pytest.mark.parametrize(("start", "outcome"), [("START", "TXN_EXPIRED"), ("START READONLY", "null")])
def test_a_busy_transaction_expires_after_10_minutes_unless_it_only_reads(
    server: Server, start: str, outcome: str
) -> None:
    server.play(f"1 {start} -> ok")
    for _ in range(14):
        server.play("1 GET a -> null")
        server.clock.pump([1] * 43)
    server.play(f"1 GET a -> {outcome}")


def test_an_expired_snapshot_pins_nothing(server: Server) -> None:
    server.play("""
        1 PUT a 1 -> ok
        1 START   -> ok
        2 PUT a 2 -> ok
    """)
    assert server.service.store.info()["old_values"] == 1
    server.clock.pump([1] * 62)
    assert server.service.store.info()["old_values"] == 0


# What a connection leaves behind


def test_a_closed_connection_is_freed_without_the_garbage_collector() -> None:
    server = Server()
    transport = StringTransport()
    protocol = server.factory.buildProtocol(None)
    protocol.makeConnection(transport)
    gc.collect()
    gc.disable()
    try:
        protocol.dataReceived(b"START\nGET a\nPUT a 1\nNOSUCH\nROLLBACK\nSTART\nPUT a")
        transport.unregisterProducer()  # every transport lets go of its protocol in the end
        protocol.connectionLost()
        freed = weakref.ref(protocol)
        del protocol
        assert freed() is None
    finally:
        gc.enable()


# A fault in a handler


def test_a_fault_of_the_server_is_logged_and_the_connection_lives_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[int] = []
    server.service.core.fault = lambda: faults.append(1)
    monkeypatch.setattr(server.service.core, "about", lambda: 1 / 0)
    server.play("""
        1 INFO  -> INTERNAL
        1 PING  -> "PONG"
        1 START -> ok
        1 INFO  -> INTERNAL
        1 GET a -> ABORTED
    """)
    assert faults == [1, 1]
