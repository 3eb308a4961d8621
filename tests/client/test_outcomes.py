"""The Deferred client: a COMMIT whose reply is lost is never applied twice, and never given up if it happened."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from kvd.client import Client, Outcome, Transaction
from kvd.client.asking import Asker
from kvd.client.steady import SteadyClock
from kvd.errors import BadArguments, KvdError, OutcomeUnknown, TooLarge, Unavailable
from kvd.receipts import uptime
from kvd.testing import MemoryServer
from tests.client.test_greeting import OK, PONG, Script, told
from tests.support.client import add_one, connections, outcome_of


def answered(found: str, kept: float) -> bytes:
    """The reply to an OUTCOME."""
    return json.dumps({"status": "Ok", "result": found, "kept": kept}).encode() + b"\n"


class Told(Script):
    """A server that has an Ok for everything, but no reply, or a chosen one, for COMMIT and for OUTCOME.

    :ivar commit: answers a COMMIT; None: the connection breaks.
    :ivar outcome: answers an OUTCOME; None: the connection breaks.
    """

    def __init__(self, server: MemoryServer, outcome: bytes | None = None, commit: bytes | None = None) -> None:
        super().__init__(server, self.reply)
        self.server = server
        self.outcome = outcome
        self.commit = commit

    def reply(self, line: bytes) -> bytes:
        name = json.loads(line)[0]
        found = {"PING": PONG, "COMMIT": self.commit, "OUTCOME": self.outcome}.get(name, OK)
        if found is None:
            self.server.clock.callLater(0, self.break_off)
        return found or b""

    def break_off(self) -> None:
        transport = self.connections[-1].transport
        assert transport is not None
        transport.loseConnection()

    def asked(self, name: str) -> list[list[Any]]:
        """The requests for a command, word by word."""
        return [words for words in map(json.loads, self.lines) if words[0] == name]


async def put_once(client: Client) -> None:
    async with client.transaction() as txn:
        await txn.put("a", "1")


class Runs:
    """Adds one to a key, and counts how often it was run."""

    def __init__(self) -> None:
        self.number = 0

    async def add(self, txn: Transaction) -> int:
        self.number += 1
        return await add_one(txn, "a")


# Receipts.


def test_each_transaction_that_wrote_something_has_a_receipt_of_its_own_and_the_others_have_none(
    server: MemoryServer,
) -> None:
    script = Told(server, commit=OK)
    client = server.connect(rand=lambda: 0.5)
    for work in (
        lambda txn: txn.put("a", "1"),
        lambda txn: txn.get("a"),
        lambda txn: txn.delete("a"),
        lambda txn: txn.savepoint("s"),
        lambda txn: txn.call("NEWER", "a"),
    ):
        server.run(client.transact(work))
    words = [sent[1:] for sent in script.asked("COMMIT")]
    assert [len(each) for each in words] == [1, 0, 1, 0, 1]
    receipts = [each[0] for each in words if each]
    assert len(set(receipts)) == 3
    assert all(1 <= len(receipt.encode()) <= 64 for receipt in receipts)
    assert script.asked("OUTCOME") == []


def test_what_one_transaction_wrote_is_no_receipt_for_the_next(server: MemoryServer) -> None:
    script = Told(server, commit=OK)
    client = server.connect()

    async def twice() -> None:
        txn = client.transaction()
        async with txn:
            await txn.put("a", "1")
        async with txn:
            await txn.get("a")

    server.run(twice())
    assert [len(words) for words in script.asked("COMMIT")] == [2, 1]


# Settled.


def test_a_commit_that_has_happened_succeeds_though_its_reply_is_lost(server: MemoryServer, client: Client) -> None:
    server.lose_link_after_next_commit()
    server.run(put_once(client))
    assert server.run(client.get("a")) == "1"


def test_transact_returns_what_was_stored_once_though_the_reply_is_lost(server: MemoryServer, client: Client) -> None:
    runs = Runs()
    server.lose_link_after_next_commit()
    assert server.run(client.transact(runs.add)) == 1
    assert (runs.number, server.run(client.get("a"))) == (1, "1")


def test_a_commit_that_never_arrived_has_stored_nothing_and_says_so(server: MemoryServer, client: Client) -> None:
    server.lose_link_before_next_commit()
    with pytest.raises(Unavailable, match="nothing was stored"):
        server.run(put_once(client))
    assert server.run(client.get("a")) is None


def test_transact_runs_again_when_its_commit_never_arrived(server: MemoryServer, client: Client) -> None:
    runs = Runs()
    server.lose_link_before_next_commit()
    assert server.run(client.transact(runs.add)) == 1
    assert (runs.number, server.run(client.get("a"))) == (2, "1")


@pytest.mark.parametrize(("lose", "runs_needed"), [("before", 2), ("after", 1)])
def test_transact_settles_it_when_the_server_is_back(server: MemoryServer, lose: str, runs_needed: int) -> None:
    client = server.connect()
    runs = Runs()
    getattr(server, f"lose_link_{lose}_next_commit")()
    server.network_delay = lambda from_client: 0.1
    found = outcome_of(client.transact(runs.add))
    server.advance(0.85)  # the COMMIT is on its way
    server.reachable = False
    server.advance(20)
    assert found == []
    server.reachable = True
    server.advance(6)
    assert found == [1]
    assert (runs.number, server.run(client.get("a"))) == (runs_needed, "1")


@pytest.mark.parametrize("lose", ["before", "after"])
def test_a_server_that_goes_away_with_the_commit_is_asked_when_it_is_back(server: MemoryServer, lose: str) -> None:
    client = server.connect()
    getattr(server, f"lose_link_{lose}_next_commit")()
    server.tells_outcomes = False
    found = outcome_of(Deferred.fromCoroutine(put_once(client)))
    server.advance(50)
    assert found == []
    server.tells_outcomes = True
    server.advance(9)
    stored = server.run(client.get("a"))
    assert stored == ("1" if lose == "after" else None)
    assert (found == [None]) if stored else isinstance(found[0], Unavailable)


@pytest.mark.parametrize("code", ["OUTCOME_UNKNOWN", "INTERNAL"])
@pytest.mark.parametrize("found", ["committed", "never"])
def test_an_error_that_leaves_the_outcome_open_is_settled_too(server: MemoryServer, code: str, found: str) -> None:
    script = Told(server, answered(found, 1000), told(code))
    client = server.connect()
    put = outcome_of(Deferred.fromCoroutine(put_once(client)))
    server.advance(1)
    assert put == [None] if found == "committed" else type(put[0]) is Unavailable
    (outcome,) = script.asked("OUTCOME")
    assert script.asked("COMMIT") == [["COMMIT", outcome[1]]]


def test_garbage_in_place_of_the_reply_to_a_commit_is_settled_too(server: MemoryServer) -> None:
    Told(server, answered("committed", 1000), b"garbage\n")
    server.run(put_once(server.connect()))


def test_a_reply_to_a_commit_that_takes_too_long_is_settled_after_it(server: MemoryServer) -> None:
    script = Told(server, answered("committed", 1000), b"")
    server.run(server.connect(timeout=60, retry_for=30).transact(add_one_to_a_script))
    assert len(script.asked("OUTCOME")) == 1
    assert server.clock.seconds() >= 60


async def add_one_to_a_script(txn: Transaction) -> None:
    await txn.put("a", "1")


@pytest.mark.parametrize("code", ["UNAVAILABLE", "OUT_OF_MEMORY", "BUSY", "IDLE", "INTERNAL", "OUTCOME_UNKNOWN"])
def test_a_server_that_can_not_tell_at_the_moment_is_asked_again(server: MemoryServer, code: str) -> None:
    script = Told(server, told(code))
    client = server.connect()
    found = outcome_of(Deferred.fromCoroutine(put_once(client)))
    server.advance(20)
    assert found == []
    assert 5 < len(script.asked("OUTCOME")) < 500
    assert len({words[1] for words in script.asked("OUTCOME")}) == 1
    script.outcome = answered("committed", 1000)
    server.advance(5)
    assert found == [None]


@pytest.mark.parametrize("code", ["CONFLICT", "ABORTED", "TXN_EXPIRED", "UNAVAILABLE", "RECEIPT_USED", "OUT_OF_MEMORY"])
def test_an_error_by_which_nothing_was_stored_needs_no_asking(server: MemoryServer, code: str) -> None:
    script = Told(server, answered("committed", 1000), told(code))
    with pytest.raises(KvdError) as caught:
        server.run(put_once(server.connect()))
    assert caught.value.code == code
    assert script.asked("OUTCOME") == []


def test_asking_leaves_no_connection_behind_and_disturbs_nobody(server: MemoryServer) -> None:
    client = server.connect(pool=1)
    waiting = client.transact(add_one, "b")
    server.lose_link_after_next_commit()
    server.run(client.transact(add_one, "a"))
    assert server.run(waiting) == 1
    server.flush()
    assert connections(server, client)[0] == 2


# Not settled.


def test_a_server_that_stays_away_leaves_the_outcome_unknown(server: MemoryServer) -> None:
    for timeout, retry_for, ask in (
        (20, 50, put_once),
        (50, 20, lambda client: client.transact(Runs().add)),
    ):
        client = server.connect(timeout=timeout, retry_for=retry_for)
        server.tells_outcomes = False
        server.lose_link_after_next_commit()
        began = server.clock.seconds()
        with pytest.raises(OutcomeUnknown, match="may or may not have been stored") as caught:
            server.run(ask(client))
        assert 17 < server.clock.seconds() - began <= 20
        assert "nothing was stored" not in str(caught.value)
        server.tells_outcomes = True
        assert server.run(client.outcome(caught.value.fields["receipt"])).committed


def test_transact_does_not_run_again_while_the_outcome_is_unknown(server: MemoryServer, client: Client) -> None:
    runs = Runs()
    server.tells_outcomes = False
    server.lose_link_before_next_commit()
    with pytest.raises(OutcomeUnknown):
        server.run(client.transact(runs.add))
    assert runs.number == 1


@pytest.mark.parametrize(("kept", "error"), [(29.9, OutcomeUnknown), (30.1, Unavailable)])
def test_never_counts_only_if_the_server_remembers_as_far_back_as_the_start(
    server: MemoryServer, kept: float, error: type[KvdError]
) -> None:
    script = Told(server, answered("never", kept), b"")
    client = server.connect()

    async def for_long() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            server.advance(20)

    found = outcome_of(Deferred.fromCoroutine(for_long()))
    server.flush()
    server.advance(10)
    script.break_off()
    server.advance(0)
    server.flush()
    assert [type(each) for each in found] == [error]


def test_the_age_of_a_transaction_counts_from_before_its_start_was_sent(server: MemoryServer) -> None:
    Told(server, answered("never", 9))
    client = server.connect()
    server.network_delay = lambda from_client: 2 if from_client else 0
    with pytest.raises(OutcomeUnknown, match="remembers receipts for 9 seconds"):
        server.run(put_once(client))


def test_with_a_real_reactor_the_age_of_a_transaction_is_that_of_the_machine(client: Client) -> None:
    asker = Asker(SteadyClock(Clock()), client._dialer, 5, client._lifetime)
    assert asker.seconds is uptime


@pytest.mark.parametrize(
    "reply",
    [
        OK,
        PONG,
        b'{"status": "Ok", "result": "never"}\n',
        b'{"status": "Ok", "result": "never", "kept": "9999"}\n',
        b'{"status": "Ok", "result": "never", "kept": true}\n',
        b'{"status": "Ok", "result": "never", "kept": NaN}\n',
        b'{"status": "Ok", "result": "never", "kept": -1}\n',
        b'{"status": "Ok", "result": "never", "kept": 1' + b"0" * 400 + b"}\n",
        b'{"status": "Ok", "result": ["never"], "kept": 9999}\n',
        b'{"status": "Ok", "result": "maybe", "kept": 9999}\n',
        b"garbage\n",
        told("AUTH_REQUIRED"),
        told("BAD_ARGUMENTS"),
        told("NEW"),
    ],
)
def test_what_is_no_answer_to_the_question_settles_nothing(server: MemoryServer, reply: bytes) -> None:
    script = Told(server, reply)
    runs: list[None] = []

    async def put(txn: Transaction) -> None:
        runs.append(None)
        await txn.put("a", "1")

    with pytest.raises(OutcomeUnknown):
        server.run(server.connect(retry_for=3).transact(put))
    assert len(runs) == 1
    assert script.asked("OUTCOME")


# Given up.


def test_what_is_cancelled_while_it_asks_is_cancelled_and_not_done_again(server: MemoryServer, client: Client) -> None:
    runs = Runs()
    server.tells_outcomes = False
    server.lose_link_before_next_commit()
    adding = client.transact(runs.add)
    found = outcome_of(adding)
    server.advance(3)
    adding.cancel()
    assert [type(each) for each in found] == [CancelledError]
    server.tells_outcomes = True
    server.advance(60)
    assert (runs.number, server.run(client.get("a"))) == (1, None)
    assert connections(server, client)[0] == 1


@pytest.mark.parametrize("seconds", [0, 3])
def test_a_client_that_is_disconnected_while_it_asks_does_not_know_the_outcome(
    server: MemoryServer, client: Client, seconds: float
) -> None:
    server.tells_outcomes = False
    server.lose_link_after_next_commit()
    server.network_delay = lambda from_client: 0.01
    found = outcome_of(client.transact(Runs().add))
    server.advance(0.1 + seconds)
    server.run(client.disconnect())
    server.flush()
    assert [type(each) for each in found] == [OutcomeUnknown]
    assert "nothing was stored" not in str(found[0])
    assert server._ends == []


# By hand.


def test_an_outcome_can_be_asked_for_and_is_settled_by_that(server: MemoryServer, client: Client) -> None:
    found = server.run(client.outcome("a receipt"))
    assert found == Outcome(False, found.kept)
    assert found.kept >= 0
    server.lose_links()
    assert not server.run(client.outcome("a receipt")).committed


def test_asking_waits_for_a_server_that_is_away_for_the_time_that_a_reply_may_take(server: MemoryServer) -> None:
    client = server.connect(timeout=20)
    server.reachable = False
    server.lose_links()
    found = outcome_of(client.outcome("r"))
    server.advance(16)
    assert found == []
    server.advance(4)
    assert type(found[0]) is Unavailable
    assert "ask again" in str(found[0])
    server.reachable = True
    assert not server.run(client.outcome("r")).committed


@pytest.mark.parametrize(("receipt", "error"), [("", BadArguments), ("x" * 65, TooLarge), (5, BadArguments)])
def test_what_can_not_be_a_receipt_is_refused_at_once(
    server: MemoryServer, client: Client, receipt: Any, error: type[KvdError]
) -> None:
    with pytest.raises(error):
        server.run(client.outcome(receipt))
    assert server.clock.seconds() == 0
