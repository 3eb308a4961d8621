"""Bytes in, bytes out: waiting for a store that answers later, and a server that stops."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock

from kvd.core.limits import Limits
from kvd.errors import Unavailable
from kvd.testing.conversations import Server
from kvd.testing.stores import SlowStore
from tests.support.replies import OK, code, result

# Waiting for a store that answers later


@pytest.fixture
def slow() -> SlowStore:
    return SlowStore(Clock())


def test_a_reply_never_overtakes_another(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    numbers = [1, 2, 3]
    for number in numbers:
        lines = [f"PUT k{number} {turn}\nGET k{number}\nPING {turn}\n" for turn in range(50)]
        server.client(number).protocol.dataReceived("".join(lines).encode())
    server.settle()
    for number in numbers:
        expected = b"".join(OK + result(str(turn)) + result(str(turn)) for turn in range(50))
        assert server.client(number).received() == expected


def test_nothing_is_read_while_the_store_is_waited_for(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    client = server.client()
    client.protocol.dataReceived(b"GET a\n")
    assert client.transport.producerState == "paused"
    server.settle()
    assert client.transport.producerState == "producing"


def test_concurrent_increments_all_count(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    for number in range(1, 6):
        server.client(number).protocol.dataReceived(b"INCR n\n" * 20)
    server.settle()
    answered = [reply for number in range(1, 6) for reply in server.client(number).received().splitlines()]
    assert sorted(json.loads(reply)["result"] for reply in answered) == list(range(1, 101))
    server.play('1 GET n -> "100"')


def test_a_store_that_fails_is_unavailable_and_the_connection_lives_on(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    slow.failures = [Unavailable("the cluster is away")]
    server.play("""
        1 GET a -> UNAVAILABLE
        1 GET a -> null
    """)
    slow.failures = [Unavailable("the cluster is away")]
    server.play("""
        1 START   -> UNAVAILABLE
        1 PUT a 1 -> ABORTED
        1 COMMIT  -> ABORTED
        1 GET a   -> null
    """)


def test_a_fault_of_the_store_is_internal_and_the_connection_lives_on(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    faults: list[int] = []
    server.service.core.fault = lambda: faults.append(1)
    slow.lost_answers = [ZeroDivisionError()]
    reply = server.client().ask("PUT a 1")
    assert reply["code"] == "INTERNAL"
    assert "may or may not" in reply["mesg"]
    slow.failures = [ZeroDivisionError()]
    assert "nothing was changed" in server.client().ask("GET a")["mesg"]
    assert faults == [1, 1]
    server.play('1 GET a -> "1"')


def test_a_read_that_gets_no_answer_in_time_is_unavailable(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    slow.silent = True
    server.play("1 GET a -> UNAVAILABLE")
    assert 29 < slow.clock.seconds() < 31
    slow.silent = False
    server.play("1 GET a -> null")


def test_a_write_that_gets_no_answer_in_time_is_of_unknown_outcome(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
    """)
    slow.silent = True
    server.play("""
        1 COMMIT  -> OUTCOME_UNKNOWN
        1 COMMIT  -> NO_TRANSACTION
        1 PUT a 1 -> OUTCOME_UNKNOWN
    """)


def test_a_client_that_leaves_while_it_waits_is_rolled_back(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
    """)
    server.client(1).protocol.dataReceived(b"GET b\nCOMMIT\n")
    server.client(1).transport.loseConnection()
    server.settle()
    server.play("2 GET a -> null")
    assert slow.memory.data.history.newest is None


def test_an_accepted_commit_happens_even_if_its_client_leaves(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
    """)
    server.client(1).protocol.dataReceived(b"COMMIT\n")
    server.client(1).transport.loseConnection()
    slow.clock.advance(1)
    server.play('2 GET a -> "1"')
    assert slow.memory.data.history.newest is None


def test_a_transaction_does_not_expire_while_its_request_is_under_way(slow: SlowStore) -> None:
    server = Server(slow, slow.clock, Limits(store_wait=300))
    server.play("1 START -> ok")
    slow.silent = True
    server.client(1).protocol.dataReceived(b"GET a\n")
    slow.clock.pump([1] * 100)
    assert server.client(1).received() == b""
    slow.clock.pump([1] * 201)
    assert code(server.client(1).received()) == "UNAVAILABLE"


# The server stops


def test_a_server_that_stops_rolls_back_and_closes(server: Server) -> None:
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
        2 PING    -> "PONG"
    """)
    stopped = server.service.stopService()
    assert stopped.called
    assert server.client(1).closed
    assert server.client(2).closed
    assert server.service.store.latest().read(["a"]) == [None]


def test_a_server_that_stops_delivers_the_reply_that_is_under_way(slow: SlowStore) -> None:
    server = Server(slow, slow.clock)
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
    """)
    server.client(1).protocol.dataReceived(b"COMMIT\nPUT b 1\n")
    stopped = server.service.stopService()
    assert not stopped.called
    slow.clock.advance(1)
    assert stopped.called
    assert server.client(1).received() == OK
    assert server.client(1).closed
    assert slow.memory.latest().read(["a", "b"]) == ["1", None]
