"""What a simulated client records: bytes out, bytes in, and what stands in the history behind them."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure

from kvd.client.link import Link
from kvd.verify.check import check
from kvd.verify.client import RECONNECT_FOR, Client, Txn, Unreachable
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History, Operation, Transaction

OK = {"status": "Ok"}


def refused(code: str) -> dict[str, str]:
    return {"status": "Error", "mesg": "no", "code": code}


class Transport(StringTransportWithDisconnection):
    """A transport that can be aborted as well; the protocol would be told later."""

    def abortConnection(self) -> None:
        self.connected = False


class Server:
    """A client, and the other end of its connection, which a test plays."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.history = History(self.clock.seconds)
        self.refusing = False
        self.client = Client(self._connect, self.clock, count(1), "seed")
        Deferred.fromCoroutine(self.client.ready(self.history))

    def _connect(self) -> Deferred[Link]:
        if self.refusing:
            raise ConnectionError("nobody there")
        link = Link(self.clock)
        self.transport = Transport(peerAddress=UNIXAddress(None))
        self.transport.protocol = link
        link.makeConnection(self.transport)
        return succeed(link)

    def requests(self) -> list[list[Any]]:
        """What the client has sent since it was last asked."""
        lines = self.transport.value().splitlines()
        self.transport.clear()
        return [json.loads(line) for line in lines]

    def reply(self, *replies: Any) -> None:
        for reply in replies:
            line = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.transport.protocol.dataReceived(line + b"\n")

    def start(self, end: str) -> Transaction:
        """Begin a transaction that appends, and ends as it is told."""

        async def work() -> None:
            txn = Txn(self.client, self.history, False)
            txn.did("append", "x", 1)
            txn.tell("PUT", "x", "1")
            await txn._end(end)

        Deferred.fromCoroutine(work())
        assert self.requests() == [["PUT", "x", "1"], [end]]
        return self.history.transactions[0]


@pytest.mark.parametrize(
    ("end", "replies", "outcome", "code"),
    [
        ("COMMIT", [OK, OK], COMMITTED, None),
        ("COMMIT", [OK, refused("CONFLICT")], ROLLED_BACK, "CONFLICT"),
        ("COMMIT", [OK, refused("UNAVAILABLE")], ROLLED_BACK, "UNAVAILABLE"),
        ("COMMIT", [OK, refused("OUTCOME_UNKNOWN")], UNKNOWN, "OUTCOME_UNKNOWN"),
        ("COMMIT", [OK, refused("INTERNAL")], UNKNOWN, "INTERNAL"),
        ("COMMIT", [refused("OUT_OF_MEMORY"), refused("ABORTED")], ROLLED_BACK, "OUT_OF_MEMORY"),
        ("ROLLBACK", [OK, OK], ROLLED_BACK, None),
    ],
)
def test_a_transaction_is_recorded_with_its_outcome(end: str, replies: list[Any], outcome: str, code: str) -> None:
    server = Server()
    record = server.start(end)
    assert (record.outcome, record.completed) == (UNKNOWN, None)
    server.reply(*replies)
    assert (record.outcome, record.code) == (outcome, code)
    assert record.completed is not None
    assert record.operations == [Operation("append", "x", 1)]


@pytest.mark.parametrize(("end", "outcome"), [("COMMIT", UNKNOWN), ("ROLLBACK", ROLLED_BACK)])
def test_only_a_commit_that_was_sent_has_an_unknown_outcome_if_the_connection_breaks(end: str, outcome: str) -> None:
    server = Server()
    record = server.start(end)
    server.transport.loseConnection()
    assert record.outcome == outcome


def test_what_was_lost_before_its_commit_was_sent_was_surely_rolled_back() -> None:
    server = Server()
    txn = Txn(server.client, server.history, False)
    server.transport.loseConnection()
    Deferred.fromCoroutine(txn._end("COMMIT"))
    assert txn.record.outcome == ROLLED_BACK


def test_a_commit_that_succeeds_behind_an_error_is_a_violation() -> None:
    server = Server()
    server.start("COMMIT")
    server.reply(refused("BAD_ARGUMENTS"), OK)
    (violation,) = check(server.history).violations
    assert violation.anomaly == "odd-reply"
    assert "COMMIT after BAD_ARGUMENTS" in violation.what


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("GET", "a"), OK),
        (("GET", "a"), {"status": "Ok", "result": 5}),
        (("MGET", "a", "b"), {"status": "Ok", "result": ["1"]}),
        (("MGET", "a"), {"status": "Ok", "result": [1]}),
        (("EXISTS", "a"), {"status": "Ok", "result": 1}),
        (("INCR", "a"), {"status": "Ok", "result": True}),
        (("PUT", "a", "1"), {"status": "Ok", "result": "1"}),
        (("PUT", "a", "1"), {"status": "Ok", "result": None}),
        (("SCAN", "KEYS"), {"status": "Ok", "result": {"items": [["a", "1"]], "next": None}}),
        (("SCAN",), {"status": "Ok", "result": {"items": ["a"], "next": None}}),
        (("SCAN",), {"status": "Ok", "result": {"items": []}}),
        (("COUNT",), {"status": "Maybe"}),
        (("COUNT",), {"status": "Error"}),
        (("COUNT",), b"no JSON"),
        (("COUNT",), b"[]"),
    ],
)
def test_a_reply_that_the_protocol_does_not_have_is_a_violation_and_ends_the_connection(
    words: tuple[str, ...], reply: Any
) -> None:
    server = Server()
    server.client.read(server.history, lambda result: [], *words)
    server.reply(reply)
    assert [violation.anomaly for violation in check(server.history).violations] == ["odd-reply"]
    assert not server.client.connected
    assert server.client.met_odd


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (("GET", "a"), None),
        (("MGET", "a", "b"), ["1", None]),
        (("EXISTS", "a"), False),
        (("INCR", "a"), -1),
        (("SCAN", "KEYS"), {"items": ["a"], "next": "b"}),
        (("SCAN",), {"items": [["a", "1"]], "next": None}),
    ],
)
def test_a_reply_that_the_protocol_has_is_none(words: tuple[str, ...], result: Any) -> None:
    server = Server()
    server.client.read(server.history, lambda result: [Operation("read", "x", None, [str(result)])], *words)
    server.reply({"status": "Ok", "result": result})
    assert server.history.transactions[0].operations[0].result == [str(result)]
    assert server.history.transactions[0].outcome == COMMITTED
    assert not server.client.met_odd


@pytest.mark.parametrize("is_waiting", [False, True])
def test_a_line_too_many_is_a_violation(is_waiting: bool) -> None:
    server = Server()
    server.client.read(server.history, lambda result: [], "COUNT")
    server.reply({"status": "Ok", "result": 1}, {"status": "Ok", "result": 1})
    assert not server.client.connected
    if is_waiting:
        server.client.read(server.history, lambda result: [], "COUNT")
    Deferred.fromCoroutine(server.client.ready(server.history))
    assert check(server.history).times == {"odd-reply": 1}
    assert server.client.connected


def test_a_server_that_has_too_many_clients_may_say_so() -> None:
    server = Server()
    server.reply(refused("BUSY"))
    Deferred.fromCoroutine(server.client.ready(server.history))
    assert check(server.history).violations == []


@pytest.mark.parametrize(
    ("verb", "reply", "outcome", "result"),
    [
        ("PUT", OK, COMMITTED, None),
        ("PUT", refused("UNAVAILABLE"), ROLLED_BACK, None),
        ("PUT", refused("OUTCOME_UNKNOWN"), UNKNOWN, None),
        ("INCR", {"status": "Ok", "result": 3}, COMMITTED, 3),
        ("INCR", refused("NOT_A_NUMBER"), COMMITTED, None),
        ("PUT", None, UNKNOWN, None),
    ],
)
def test_a_plain_command_is_recorded_with_its_answer(verb: str, reply: Any, outcome: str, result: Any) -> None:
    server = Server()
    server.client.command(server.history, Operation(verb, "a", "1"), verb, "a", "1")
    if reply is None:
        server.transport.loseConnection()
    else:
        server.reply(reply)
    (record,) = server.history.transactions
    assert record.outcome == outcome
    assert record.operations == [Operation(verb, "a", "1", result)]


def test_a_client_that_comes_back_has_a_new_number() -> None:
    server = Server()
    assert server.client.number == 1
    server.transport.loseConnection()
    Deferred.fromCoroutine(server.client.ready(server.history))
    assert server.client.connected
    assert server.client.number == 2


def coming_back(server: Server) -> list[BaseException | None]:
    """Let the client come back; what becomes of that."""
    failures = []

    def failed(failure: Failure) -> None:
        failures.append(failure.value)

    Deferred.fromCoroutine(server.client.ready(server.history)).addErrback(failed)
    return failures


def test_it_tries_to_come_back_for_some_time() -> None:
    server = Server()
    server.transport.loseConnection()
    server.refusing = True
    failures = coming_back(server)
    server.clock.pump([0.1] * int(RECONNECT_FOR * 10 - 10))
    assert failures == []
    server.clock.pump([0.1] * 20)
    assert [type(failure) for failure in failures] == [Unreachable]


def test_it_does_not_try_when_there_is_no_point() -> None:
    server = Server()
    server.transport.loseConnection()
    server.refusing = server.client.over = True
    assert [str(failure) for failure in coming_back(server)] == ["the server can no longer be reached: nobody there"]
