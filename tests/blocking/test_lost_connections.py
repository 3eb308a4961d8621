"""What the blocking client says of a request whose reply never came; and that "nothing was stored" is always true."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kvd import errors
from kvd.blocking import Client, Transaction
from kvd.core.commands import ROWS
from kvd.requests import CHANGING, READING, changes
from tests.blocking.peer import OK, Peer, client_of, result, serving
from tests.support.daemon import LIMIT


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(errors.Unavailable, match=str(port)):
        Client("127.0.0.1", port).connect()
    with pytest.raises(errors.Unavailable, match="connect"):
        Client().get("a")


def test_a_change_whose_reply_never_came_is_of_unknown_outcome() -> None:
    with client_of(OK) as client:
        client.put("a", "1")
        with pytest.raises(errors.OutcomeUnknown):
            client.put("a", "2")
        with pytest.raises(errors.Unavailable):
            client.put("a", "3")


def test_a_read_whose_reply_never_came_is_unavailable() -> None:
    with client_of() as client, pytest.raises(errors.Unavailable, match="nothing was stored"):
        client.get("a")


def test_a_transaction_whose_connection_breaks_stores_nothing_and_says_so() -> None:
    with client_of(OK) as client, pytest.raises(errors.Unavailable, match="nothing was stored"):
        client.transact(Transaction.put, "a", "1")


def test_a_commit_of_a_transaction_that_wrote_nothing_is_never_of_unknown_outcome() -> None:
    with client_of(OK) as client, pytest.raises(errors.Unavailable, match="nothing was stored"), client.transaction():
        pass


CHANGE: list[Callable[[Client], Any]] = [
    lambda client: client.put("a", "1"),
    lambda client: client.delete("a"),
    lambda client: client.incr("a"),
    lambda client: client.cas("a", None, "1"),
    lambda client: client.commit(),
    lambda client: client.call("incr", "a"),
    lambda client: client.call("NEWER", "a"),
    *[
        lambda client, line=line: client.send_command(line)
        for line in (
            "INCR a",
            "   incr a",
            '["INCR", "a"]',
            '  [ "incr" , "a" ]',
            '["\\u0049NCR", "a"]',
            "COMMIT",
            "EXPIRE a 5",
            "EXPIREAT a 5",
            "PERSIST a",
            "CLEAR",
            "APPEND a b",
            "GETDEL a",
            "RENAME a b",
            "COPY a b",
            "OUTCOME a",
            "KILL 1",
            "\tGET a",
            "NEWER a",
            '["NEWER", 1.5]',  # a later server might take it
            '["GET", "a"',
        )
    ],
]


@pytest.mark.parametrize("change", CHANGE)
def test_nothing_is_said_not_to_be_stored_that_may_be(change: Callable[[Client], Any]) -> None:
    with client_of() as client, pytest.raises(errors.OutcomeUnknown):
        change(client)


@pytest.mark.parametrize(
    "line", ["GET a", '["GET", "a"]', "  scan", "MGET a b", "START", "ROLLBACK", "ROLLBACK TO s", "QUIT", "TTL a"]
)
def test_what_stores_nothing_is_said_to_have_stored_nothing(line: str) -> None:
    with client_of() as client, pytest.raises(errors.Unavailable, match="nothing was stored"):
        client.send_command(line)


def test_inside_a_transaction_that_is_led_by_hand_only_commit_may_have_stored_something() -> None:
    for start in ("START", "start readonly", '["START"]'):
        for line in ("PUT a 1", '["INCR", "a"]', "SAVEPOINT s"):
            with client_of(OK) as client, pytest.raises(errors.Unavailable, match="nothing was stored"):
                client.send_command(start)
                client.send_command(line)
        with client_of(OK, OK) as client, pytest.raises(errors.OutcomeUnknown):
            client.send_command(start)
            client.put("a", "1")
            client.send_command("COMMIT")
        with client_of(OK) as client, pytest.raises(errors.Unavailable, match="nothing was stored"):
            client.send_command(start)
            client.commit()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "commit now", "ROLLBACK a", '["COMMIT", "receipt"]'])
def test_after_a_transaction_that_was_led_by_hand_a_change_may_have_been_stored(end: str) -> None:
    failed = b'{"status": "Error", "mesg": "m", "code": "BAD_ARGUMENTS"}\n'
    for reply in (OK, failed):
        with client_of(OK, reply) as client, pytest.raises(errors.OutcomeUnknown):
            client.start()
            client.send_command(end)
            client.put("a", "1")


def test_a_start_that_was_refused_opens_nothing_in_which_changes_would_be_safe() -> None:
    refused = b'{"status": "Error", "mesg": "m", "code": "AUTH_REQUIRED"}\n'
    with client_of(refused) as client, pytest.raises(errors.OutcomeUnknown):
        client.send_command("START")
        client.put("a", "1")


def test_a_connection_that_is_closed_between_requests_has_stored_nothing_of_the_next_one() -> None:
    closed = threading.Event()

    def live(peer: Peer) -> None:
        peer.greet()
        peer.line()
        peer.send(OK)
        peer.close()
        closed.set()

    with serving(live) as port, Client("127.0.0.1", port, timeout=LIMIT) as client:
        client.put("a", "1")
        assert closed.wait(LIMIT)
        with pytest.raises(errors.Unavailable, match="nothing was sent"):
            client.put("a", "2")


def test_a_reply_that_comes_too_late_is_never_taken_for_another() -> None:
    def live(peer: Peer) -> None:
        peer.greet()
        peer.line()
        peer.line()  # the client has closed
        peer.send(result("late"))

    with serving(live) as port, Client("127.0.0.1", port, timeout=1) as client:
        with pytest.raises(errors.Unavailable):
            client.get("a")
        with pytest.raises(errors.Unavailable, match="not connected"):
            client.get("a")


def test_a_commit_whose_error_leaves_its_transaction_open_is_followed_by_a_disconnection() -> None:
    unknown = b'{"status": "Error", "mesg": "m", "code": "OUTCOME_UNKNOWN"}\n'
    with client_of(OK, unknown) as client:
        with pytest.raises(errors.OutcomeUnknown), client.transaction():
            pass
        with pytest.raises(errors.Unavailable, match="not connected"):
            client.get("a")


def test_every_command_is_known_to_change_something_or_to_read() -> None:
    others = {"COMMIT", "OUTCOME"}
    assert {row.name for row in ROWS if row.writes} | others <= CHANGING
    assert {row.name for row in ROWS if not row.writes} - others <= READING
    assert not CHANGING & READING
    assert changes("NEWER")
