"""The blocking client: a COMMIT whose reply is lost is never applied twice, and never given up if it happened."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kvd.blocking import Client, Outcome, Transaction
from kvd.errors import BadArguments, Conflict, KvdError, OutcomeUnknown, TooLarge, Unavailable
from tests.blocking.line import Line
from tests.blocking.peer import OK, PONG, Peer, client_of, serving
from tests.support.daemon import LIMIT, Daemon


def answered(found: str, kept: float = 1000) -> bytes:
    """The reply to an OUTCOME."""
    return json.dumps({"status": "Ok", "result": found, "kept": kept}).encode() + b"\n"


def told(code: str) -> bytes:
    return json.dumps({"status": "Error", "mesg": f"this is {code}", "code": code}).encode() + b"\n"


class Fake:
    """Connections of a server that has an Ok for everything but what a test has chosen, and notes what it is sent.

    :ivar words: the requests, word by word, of all connections.
    """

    def __init__(self, **replies: bytes | None) -> None:
        self.words: list[list[Any]] = []
        self.replies = {"PING": PONG, **replies}

    def live(self, peer: Peer) -> None:
        """Answer until there is nothing to say, or the client closes."""
        while line := peer.line():
            self.words.append(json.loads(line))
            reply = self.replies.get(self.words[-1][0], OK)
            if reply is None:
                return
            peer.send(reply)

    def asked(self, name: str) -> list[list[Any]]:
        """The requests for a command."""
        return [words for words in self.words if words[0] == name]


def put(txn: Transaction) -> None:
    txn.put("a", "1")


def put_once(client: Client) -> None:
    with client.transaction() as txn:
        txn.put("a", "1")


def put_by_hand(client: Client) -> None:
    client.start()
    client.put("a", "1")
    client.commit()


WAYS: list[Callable[[Client], None]] = [put_once, put_by_hand, lambda client: client.transact(put)]


# Receipts.


def test_each_transaction_that_wrote_something_has_a_receipt_of_its_own_and_the_others_have_none() -> None:
    fake = Fake(GET=b'{"status": "Ok", "result": null}\n')
    with serving(fake.live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        for way in WAYS:
            way(client)
        client.transact(lambda txn: txn.get("a"))
        client.transact(lambda txn: txn.savepoint("s"))
        client.transact(lambda txn: txn.call("NEWER", "a"))
        client.start()
        client.commit()
        with client.transaction() as txn, txn.pipeline() as pipe:
            pipe.get("a")
            pipe.put("a", "1")
    words = [sent[1:] for sent in fake.asked("COMMIT")]
    assert [len(each) for each in words] == [1, 1, 1, 0, 0, 1, 0, 1]
    receipts = [each[0] for each in words if each]
    assert len(set(receipts)) == 5
    assert all(1 <= len(receipt.encode()) <= 64 for receipt in receipts)
    assert fake.asked("OUTCOME") == []


def test_processes_that_were_forked_from_one_have_receipts_of_their_own() -> None:
    first, second = Fake(), Fake()
    with serving(first.live, second.live) as port:
        client = Client("127.0.0.1", port, timeout=LIMIT)
        client.connect()
        put_once(client)
        child = os.fork()
        if not child:
            with suppress(BaseException):
                client.disconnect()
                client.connect()
                put_once(client)
                client.disconnect()
            os._exit(0)
        put_once(client)
        client.disconnect()
        os.waitpid(child, 0)
    receipts = [words[1] for words in first.asked("COMMIT") + second.asked("COMMIT")]
    assert len(set(receipts)) == len(receipts) == 3


# Settled.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reply", [None, told("OUTCOME_UNKNOWN"), told("INTERNAL"), b"garbage\n"])
def test_a_commit_that_has_happened_succeeds_though_its_reply_is_lost(
    way: Callable[[Client], None], reply: bytes | None
) -> None:
    fake = Fake(COMMIT=reply, OUTCOME=answered("committed"))
    with serving(fake.live, fake.live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        way(client)
        client.put("b", "2")  # it is connected
    (commit,) = fake.asked("COMMIT")
    assert fake.asked("OUTCOME") == [["OUTCOME", commit[1]]]


@pytest.mark.parametrize("way", [put_once, put_by_hand])
@pytest.mark.parametrize("reply", [None, told("OUTCOME_UNKNOWN"), told("INTERNAL"), b"garbage\n"])
def test_a_commit_that_never_happens_has_stored_nothing_and_says_so(
    way: Callable[[Client], None], reply: bytes | None
) -> None:
    fake = Fake(COMMIT=reply, OUTCOME=answered("never"))
    with serving(fake.live, fake.live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        with pytest.raises(Unavailable, match="nothing was stored"):
            way(client)
        client.put("b", "2")


@pytest.mark.parametrize("code", ["CONFLICT", "ABORTED", "TXN_EXPIRED", "UNAVAILABLE", "RECEIPT_USED", "OUT_OF_MEMORY"])
def test_an_error_by_which_nothing_was_stored_needs_no_asking(code: str) -> None:
    fake = Fake(COMMIT=told(code), OUTCOME=answered("committed"))
    with serving(fake.live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        with pytest.raises(KvdError) as caught:
            put_once(client)
        assert caught.value.code == code
    assert fake.asked("OUTCOME") == []


@pytest.mark.parametrize("code", ["UNAVAILABLE", "OUT_OF_MEMORY", "BUSY", "IDLE", "INTERNAL", "OUTCOME_UNKNOWN"])
def test_a_server_that_can_not_tell_at_the_moment_is_asked_again(code: str) -> None:
    fake, later = Fake(COMMIT=None, OUTCOME=told(code)), Fake(OUTCOME=answered("committed"))
    lives = [fake.live, fake.live, lambda peer: None, fake.live, later.live]
    with serving(*lives) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        put_once(client)
        client.get("a")
    assert len(fake.asked("OUTCOME")) == 2
    assert fake.asked("OUTCOME")[:1] == later.asked("OUTCOME")


# Not settled.


@pytest.mark.parametrize(("way", "seconds"), list(zip(WAYS, ["0.4", "0.4", "0.5"], strict=True)))
def test_a_server_that_stays_away_leaves_the_outcome_unknown(way: Callable[[Client], None], seconds: str) -> None:
    fake = Fake(COMMIT=None)
    with serving(fake.live) as port:
        client = Client("127.0.0.1", port, timeout=LIMIT, retry_for=0.5)
        client.connect()
        client.timeout = 0.4
        with pytest.raises(OutcomeUnknown, match="may or may not have been stored") as caught:
            way(client)
        assert f"could not tell the outcome for {seconds} seconds" in str(caught.value)
        assert "nothing was stored" not in str(caught.value)
        assert caught.value.fields["receipt"] == fake.asked("COMMIT")[0][1]
        with pytest.raises(Unavailable, match="not connected"):
            client.get("a")
    assert len(fake.asked("COMMIT")) == 1


@pytest.mark.parametrize("way", WAYS)
def test_never_counts_only_if_the_server_remembers_as_far_back_as_the_start(way: Callable[[Client], None]) -> None:
    fake = Fake(COMMIT=None, OUTCOME=answered("never", 0.0))
    with serving(fake.live, fake.live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        with pytest.raises(OutcomeUnknown, match="remembers receipts for 0 seconds"):
            way(client)
        client.put("b", "2")
    assert len(fake.asked("COMMIT")) == 1


@pytest.mark.parametrize(("kept", "error"), [(99.9, OutcomeUnknown), (109, Unavailable)])
@pytest.mark.parametrize("way", WAYS[:2])
def test_the_age_of_a_transaction_counts_from_before_its_start_was_sent(
    monkeypatch: pytest.MonkeyPatch, kept: float, error: type[KvdError], way: Callable[[Client], None]
) -> None:
    now = [0.0]
    monkeypatch.setattr("kvd.receipts.uptime", lambda: now[0])
    monkeypatch.setattr("kvd.blocking.transaction.uptime", lambda: now[0])
    fake = Fake(COMMIT=None, OUTCOME=answered("never", kept))

    def live(peer: Peer) -> None:
        peer.greet()
        assert peer.line() == b'["START"]\n'
        now[0] = 100.0
        peer.send(OK)
        fake.live(peer)

    with serving(live, fake.live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client, pytest.raises(error):
        way(client)


@pytest.mark.parametrize(
    "reply",
    [
        OK,
        b'{"status": "Ok", "result": "never"}\n',
        b'{"status": "Ok", "result": "never", "kept": "9999"}\n',
        b'{"status": "Ok", "result": "maybe", "kept": 9999}\n',
        b"garbage\n",
        told("AUTH_REQUIRED"),
        told("NEW"),
    ],
)
def test_what_is_no_answer_to_the_question_settles_nothing(reply: bytes) -> None:
    fake = Fake(COMMIT=None, OUTCOME=reply)
    with serving(fake.live, fake.live) as port:
        client = Client("127.0.0.1", port, timeout=LIMIT, retry_for=0.2)
        client.connect()
        with pytest.raises(OutcomeUnknown):
            client.transact(put)
    assert len(fake.asked("COMMIT")) == 1


def test_a_client_that_another_thread_disconnects_is_not_connected_again() -> None:
    committing, disconnected = threading.Event(), threading.Event()
    fake = Fake()

    def live(peer: Peer) -> None:
        peer.greet()
        for _ in range(2):
            peer.line()
            peer.send(OK)
        peer.line()
        committing.set()
        disconnected.wait(LIMIT)

    with serving(live) as port:
        client = Client("127.0.0.1", port, timeout=LIMIT)
        client.connect()

        def disconnect() -> None:
            committing.wait(LIMIT)
            client.disconnect()
            disconnected.set()

        with ThreadPoolExecutor() as threads:
            threads.submit(disconnect)
            with pytest.raises(OutcomeUnknown, match="was disconnected"):
                put_once(client)
        with pytest.raises(Unavailable):
            client.get("a")
    assert fake.words == []


# By hand.


def test_an_outcome_can_be_asked_for_and_is_settled_by_that(client: Client, daemon: Daemon) -> None:
    client.start()
    client.put("a", "1")
    client.send_command("COMMIT mine")
    assert client.outcome("mine").committed
    found = client.outcome("nobody's")
    assert found == Outcome(False, found.kept)
    assert 0 <= found.kept <= 3600
    other = Client("127.0.0.1", daemon.port, timeout=LIMIT)
    assert other.outcome("mine").committed
    client.start()
    client.put("a", "2")
    assert client.send_command("COMMIT nobody's")["code"] == "RECEIPT_USED"
    assert client.get("a") == "1"


@pytest.mark.parametrize(("receipt", "error"), [("", BadArguments), ("x" * 65, TooLarge), (5, BadArguments)])
def test_what_can_not_be_a_receipt_is_refused(client: Client, receipt: Any, error: type[KvdError]) -> None:
    with pytest.raises(error):
        client.outcome(receipt)
    assert client.ping() == "PONG"


def test_an_outcome_that_nobody_tells_is_unavailable() -> None:
    with client_of() as client:
        client.disconnect()
        client.timeout = 0.3
        with pytest.raises(Unavailable, match="ask again"):
            client.outcome("r")


# A real server, behind a line that breaks.


@pytest.fixture
def line(daemon: Daemon) -> Iterator[Line]:
    with closing(Line(daemon.port)) as line:
        yield line


def add_one(txn: Transaction, key: str, runs: list[None]) -> int:
    runs.append(None)
    return txn.incr(key)


FAULTS = st.lists(st.sampled_from(["before", "after", "away", "none"]), max_size=4)


@given(FAULTS)
@example(["after"])
@example(["before"])
@example(["after", "after", "before", "after"])
@example(["before", "after", "away"])
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_transact_applies_once_however_the_line_breaks(line: Line, other: Client, faults: list[str]) -> None:
    runs: list[None] = []
    other.delete("n")
    with Client("127.0.0.1", line.port, timeout=LIMIT) as client:
        line.faults = list(faults)
        assert client.transact(add_one, "n", runs) == 1
        assert client.get("n") == other.get("n") == "1"
    assert len(runs) <= 1 + len(faults)
    if faults[:1] in ([], ["none"], ["after"]):
        assert len(runs) == 1


@given(FAULTS)
@example(["after", "before"])
@example(["before", "away"])
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_block_says_truly_whether_it_was_stored_however_the_line_breaks(
    line: Line, other: Client, faults: list[str]
) -> None:
    other.delete("n")
    with Client("127.0.0.1", line.port, timeout=LIMIT) as client:
        line.faults = list(faults)
        stored = "1"
        try:
            with client.transaction() as txn:
                txn.incr("n")
        except Unavailable:
            stored = ""
        assert (other.get("n") or "") == stored


def test_a_conflict_after_a_lost_commit_is_met_as_any_other(line: Line, other: Client) -> None:
    runs: list[None] = []

    def add(txn: Transaction) -> int:
        runs.append(None)
        sum_ = txn.incr("n")
        if len(runs) == 2:
            other.put("n", "10")
        return sum_

    with Client("127.0.0.1", line.port, timeout=LIMIT) as client:
        line.faults = ["before"]
        assert client.transact(add) == 11
        assert len(runs) == 3
        client.retry_for = 0
        with pytest.raises(Conflict):
            client.transact(lambda txn: (txn.incr("n"), other.incr("n")))
