"""What a server may say, or not say: every error is ours, nothing is taken for another's reply, and nothing hangs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvd import errors
from kvd.blocking import Client, Pipeline, Transaction
from kvd.errors import KvdError
from tests.blocking.peer import BUSY, IDLE, OK, PONG, Peer, client_of, result, serving
from tests.support.daemon import LIMIT

ASKS: list[Callable[[Client], Any]] = [
    lambda client: client.get("a"),
    lambda client: client.put("a", "1"),
    lambda client: client.mget("a", "b"),
    lambda client: client.exists("a"),
    lambda client: client.incr("a"),
    lambda client: client.cas("a", "1", "2"),
    lambda client: client.scan(),
    lambda client: client.scan(keys_only=True),
    lambda client: client.count(),
    lambda client: client.ping(),
    lambda client: client.info(),
    lambda client: client.check(),
    lambda client: client.start(),
]


# The time that a reply may take.


@pytest.mark.parametrize("piece", [b"{", b" ", b'{"status": "Ok", "result": "'])
def test_a_reply_that_drips_takes_no_longer_than_the_timeout(piece: bytes) -> None:
    stopped = threading.Event()

    def drip(peer: Peer) -> None:
        peer.greet()
        peer.line()
        peer.send(piece)
        while not stopped.wait(0.02):
            peer.send(b" ")

    with serving(drip) as port, Client("127.0.0.1", port, timeout=1) as client:
        began = time.monotonic()
        with pytest.raises(errors.OutcomeUnknown, match="no reply within 1 seconds"):
            client.put("a", "1")
        assert time.monotonic() - began < 10
        stopped.set()
        with pytest.raises(errors.Unavailable, match="not connected"):
            client.get("a")


def test_a_server_that_reads_nothing_takes_no_longer_than_the_timeout() -> None:
    stopped = threading.Event()

    def wait(peer: Peer) -> None:
        peer.greet()
        stopped.wait(LIMIT)

    with serving(wait) as port, Client("127.0.0.1", port, timeout=1) as client:
        # Five bytes short of the limit of a line, which no socket's buffer holds.
        with pytest.raises(errors.OutcomeUnknown, match="no reply within"):
            client.put("a", "1" * 6_000_000)
        stopped.set()


# What nobody asked for.


@pytest.mark.parametrize("extra", [result("another's"), b"\n", b"x", OK, b'{"status": ', PONG * 2])
def test_what_nobody_asked_for_is_not_the_reply_to_the_next_request(extra: bytes) -> None:
    with client_of(result("mine") + extra, result("next")) as client:
        assert client.get("a") == "mine"
        with pytest.raises(errors.Unavailable, match="nothing was run"):
            client.put("b", "1")


def test_what_comes_between_two_requests_is_not_the_reply_to_the_second() -> None:
    said = threading.Event()

    def live(peer: Peer) -> None:
        peer.greet()
        peer.send(result("another's"))
        said.set()
        peer.line()

    with serving(live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        assert said.wait(LIMIT)
        with pytest.raises(errors.Unavailable, match="nothing was run"):
            client.get("a")


@pytest.mark.parametrize(("word", "error"), [(BUSY, errors.Busy), (IDLE, errors.Idle)])
def test_a_server_that_turns_the_client_away_between_requests_has_run_nothing(
    word: bytes, error: type[KvdError]
) -> None:
    with client_of(OK + word) as client:
        client.put("a", "1")
        for _ in range(2):
            with pytest.raises(error, match="nothing was run"):
                client.put("a", "2")
        with pytest.raises(error, match="nothing was run"), client.transaction():
            pass


@pytest.mark.parametrize(("word", "error"), [(BUSY, errors.Busy), (IDLE, errors.Idle)])
def test_a_server_that_turned_the_client_away_before_a_request_reached_it_has_run_nothing(
    word: bytes, error: type[KvdError]
) -> None:
    with client_of(word) as client:
        with pytest.raises(error, match="nothing was run"):
            client.put("a", "1")
        with pytest.raises(error, match="nothing was run"):
            client.send_command("PUT a 2")


def test_a_server_that_turns_the_client_away_inside_a_transaction_has_stored_nothing() -> None:
    with client_of(OK, OK, IDLE) as client, pytest.raises(errors.Idle, match="nothing was run"):
        client.transact(Transaction.put, "a", "1")


def test_a_server_that_is_full_says_so_when_the_client_connects() -> None:
    def full(peer: Peer) -> None:
        peer.send(BUSY)

    with serving(full) as port:
        client = Client("127.0.0.1", port, timeout=LIMIT)
        with pytest.raises(errors.Busy, match="the server is full"):
            client.connect()
        with pytest.raises(errors.Unavailable, match="not connected"):
            client.get("a")


# What is not a reply.

GARBAGE = [
    b"",
    b"\r",
    b"HTTP/1.1 400 Bad Request\r",
    b"5",
    b"null",
    b"[]",
    b'"x"',
    b"{}",
    b'{"status": 5}',
    b'{"status": "Error"}',
    b'{"status": "Error", "mesg": 5, "code": "CONFLICT"}',
    b'{"status": "Error", "mesg": "m", "code": ["CONFLICT"]}',
    b'{"status": "Ok"',
    b"\xff\xfe{}",
    b"\x00",
    b"[" * 100_000,
    b'{"status": "Ok", "result": ' + b"[" * 100_000,
    b'{"status": "Ok", "result": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_after_what_is_not_a_reply_the_connection_is_closed(line: bytes) -> None:
    with client_of(line + b"\n", result("x")) as client:
        with pytest.raises(errors.Internal, match="not a reply of a kvd server"):
            client.get("a")
        with pytest.raises(errors.Unavailable, match="not connected"):
            client.get("a")
    with client_of(OK, line + b"\n", OK) as client, pytest.raises(errors.Internal), client.transaction() as txn:
        txn.get("a")
    with client_of(line + b"\n", result("x")) as client, pytest.raises(errors.Internal):
        client.send_command("GET a")


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("value", [{"a": [5]}, [["a", 5]], 1.5, {"items": [["a"]], "next": None}, [None], ""])
def test_after_a_result_that_can_not_be_the_answer_the_connection_is_closed(
    ask: Callable[[Client], Any], value: Any
) -> None:
    with client_of(json.dumps({"status": "Ok", "result": value}).encode() + b"\n", OK) as client:
        try:
            ask(client)
        except errors.Internal:
            with pytest.raises(errors.Unavailable, match="not connected"):
                client.get("a")


def test_a_reply_that_is_cut_off_is_none() -> None:
    whole = result("value")
    for length in range(len(whole)):

        def live(peer: Peer, part: bytes = whole[:length]) -> None:
            peer.greet()
            peer.line()
            peer.send(part)

        with serving(live) as port, Client("127.0.0.1", port) as client:
            found = outcome(partial(client.get, "a"))
            assert isinstance(found, errors.Unavailable)
            assert "closed the connection" in found.mesg


def test_a_reply_without_end_is_given_up() -> None:
    def live(peer: Peer) -> None:
        peer.greet()
        peer.line()
        for _ in range(20):
            peer.send(b" " * 2**20)

    with serving(live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        found = outcome(partial(client.put, "a", "1"))
        assert isinstance(found, errors.OutcomeUnknown)
        assert "too long" in found.mesg


def test_a_scan_whose_pages_lead_nowhere_ends() -> None:
    page = b'{"status": "Ok", "result": {"items": [["a", "1"]], "next": "a"}}\n'
    with client_of(page, page) as client, pytest.raises(errors.Internal, match="lead nowhere"):
        list(client.scan_all("a"))
    with client_of(page, page) as client, pytest.raises(errors.Internal, match="lead nowhere"):
        list(client.scan_all(reverse=True))


# Anything at all.

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["Ok", "Error", "ok"]) | VALUES,
        "result": VALUES,
        "mesg": st.text(max_size=5) | VALUES,
        "code": st.sampled_from(["CONFLICT", "BUSY", "IDLE", "NEW"]) | VALUES,
    },
)
LINES = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")) | (VALUES | NEARLY).map(
    lambda value: json.dumps(value).encode()
)


class Turn(NamedTuple):
    """What a server does when it has read a request.

    :ivar says: a line without its end; None: the right reply to this request.
    :ivar after: what it sends in the same breath.
    :ivar pieces: the lengths of the pieces in which the line is sent; the rest of it is the last piece.
    :ivar then: what it does next; "" to wait for a request.
    """

    says: bytes | None
    after: bytes
    pieces: list[int]
    then: str

    def take(self, peer: Peer, line: bytes) -> bool:
        """Take the turn; whether the server goes on."""
        word = result(json.loads(line)[1]) if self.says is None else self.says + b"\n"
        for piece in self.pieces:
            if piece < len(word):
                peer.send(word[:piece])
                word = word[piece:]
        if self.then == "is silent":
            peer.line()
        elif self.then != "cuts it off":
            peer.send(word + self.after)
        return not self.then


def turns(after: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Turn]]:
    """Turns of a server that mostly does what is right."""
    says = st.none() | st.none() | LINES
    then = st.sampled_from([*[""] * 40, "closes", "cuts it off", "is silent"])
    return st.lists(st.builds(Turn, says, after, st.lists(st.integers(1, 20), max_size=4), then), max_size=6)


@contextmanager
def client_among(turns: list[Turn]) -> Iterator[Client]:
    """A client of a server that takes these turns, and then closes."""

    def live(peer: Peer) -> None:
        peer.greet()
        for turn in turns:
            line = peer.line()
            if not line or not turn.take(peer, line):
                return

    with serving(live) as port:
        client = Client("127.0.0.1", port, timeout=0.5)
        client.connect(wait=LIMIT)
        yield client
        client.disconnect()


def outcome(ask: Callable[[], Any]) -> Any:
    """What a call returns, or the error of ours that it raises; any other comes through."""
    try:
        return ask()
    except KvdError as error:
        return error if isinstance(error.mesg, str) and isinstance(error.code, str) else repr(error)


def belongs(found: Any, number: int, turns: list[Turn]) -> bool:
    """Whether what a request came to may be that, by what the server did when it had read it."""
    if isinstance(found, KvdError):
        return True
    says = turns[number].says
    return bool(found == (f"key{number}" if says is None else json.loads(says).get("result")))


@settings(deadline=None)
@given(turns(st.just(b"") | LINES.map(lambda line: line + b"\n") | st.sampled_from([BUSY, IDLE, OK, result("x")])))
@example([Turn(None, result("key1"), [], ""), Turn(None, b"", [], "")])
@example([Turn(None, b"", [1, 1, 1], ""), Turn(None, b"", [], "cuts it off")])
def test_no_request_gets_what_belongs_to_another_whatever_a_server_says(turns: list[Turn]) -> None:
    began = time.monotonic()
    with client_among(turns) as client:
        for number in range(len(turns) + 1):
            assert belongs(outcome(partial(client.get, f"key{number}")), number, turns)
    assert time.monotonic() - began < LIMIT


@settings(deadline=None)
@given(turns(st.just(b"")))
@example([Turn(None, b"", [], ""), Turn(b"[" * 5000, b"", [], ""), Turn(None, b"", [], "")])
@example([Turn(None, b"", [], ""), Turn(IDLE[:-1], b"", [], ""), Turn(None, b"", [], "")])
def test_no_request_of_a_pipeline_gets_what_belongs_to_another_whatever_a_server_says(turns: list[Turn]) -> None:
    with client_among(turns) as client:
        pipe = client.pipeline()
        outcome(partial(send_gets, pipe, len(turns) + 1))
        assert len(pipe.results) == len(turns) + 1
        for number, found in enumerate(pipe.results):
            assert belongs(found, number, turns)


def send_gets(pipe: Pipeline, number: int) -> None:
    with pipe:
        for each in range(number):
            pipe.get(f"key{each}")
