"""The blocking client against a real daemon, and against servers that break the line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from kvd import errors
from kvd.blocking import Client
from kvd.core.commands import ROWS
from kvd.requests import CHANGING, Page
from tests.support.daemon import Daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client("127.0.0.1", daemon.port, timeout=20) as client:
        yield client


@pytest.fixture
def other(daemon: Daemon) -> Iterator[Client]:
    with Client("127.0.0.1", daemon.port, timeout=20) as client:
        yield client


def test_there_is_a_method_for_every_command() -> None:
    spelled = {"DEL": "delete", "ROLLBACK TO": "rollback_to"}
    for row in ROWS:
        assert callable(getattr(Client, spelled.get(row.name, row.name.lower())))


def test_each_command_answers_in_python(client: Client) -> None:
    client.put("a", " spaces\nand lines ")
    assert client.get("a") == " spaces\nand lines "
    assert client.get("nothing") is None
    client.delete("a")
    assert client.exists("a") is False
    assert (client.incr("n"), client.incr("n", -3)) == (1, -2)
    assert client.cas("c", None, "1") is True
    assert client.cas("c", "2", "3") is False
    assert client.mget("n", "a", "c") == ["-2", None, "1"]
    assert client.scan() == Page([("c", "1"), ("n", "-2")], None)
    assert client.scan(limit=1, keys_only=True) == Page(["c"], "n")
    assert client.scan(start="d", end="o", reverse=True) == Page([("n", "-2")], None)
    assert client.scan(prefix="c") == Page([("c", "1")], None)
    assert (client.count(), client.count("c")) == (2, 1)
    assert (client.ping(), client.ping("hi")) == ("PONG", "hi")
    assert client.info("store")["keys"] == 2
    assert client.info()["store"]["keys"] == 2
    assert client.help("get").startswith("GET key: ")
    assert "GET key" in client.help()["data"]
    client.quit()
    with pytest.raises(errors.Unavailable):
        client.get("a")


def test_send_command_returns_what_the_server_answered_and_raises_for_none_of_it(client: Client) -> None:
    assert client.send_command("PUT key1 value1") == {"status": "Ok"}
    assert client.send_command('["GET", "key1"]') == {"status": "Ok", "result": "value1"}
    assert client.send_command("NOSUCH")["code"] == "UNKNOWN_COMMAND"
    assert client.send_command("COMMIT")["code"] == "NO_TRANSACTION"


@pytest.mark.parametrize("line", ["", "   ", "PUT a b\nPUT c d", "GET a\n"])
def test_send_command_refuses_what_would_not_get_one_reply(client: Client, line: str) -> None:
    with pytest.raises(errors.BadRequest):
        client.send_command(line)
    assert client.ping() == "PONG"


def test_each_code_is_raised_as_its_class(client: Client, other: Client) -> None:
    client.put("word", "x")
    for error, call in {
        errors.NotANumber: lambda: client.incr("word"),
        errors.NoTransaction: client.commit,
        errors.TooLarge: lambda: client.get("k" * 1025),
        errors.BadArguments: lambda: client.get(""),
        errors.UnknownCommand: lambda: client.call("NOSUCH"),
    }.items():
        with pytest.raises(error):
            call()


def test_a_transaction_commits_at_the_end_of_its_block(client: Client, other: Client) -> None:
    with client.transaction() as txn:
        txn.put("a", "1")
        txn.savepoint("s")
        txn.put("a", "2")
        txn.rollback_to("s")
        txn.release("s")
        assert txn.check()["writes"] == 1
        assert other.get("a") is None
    assert other.get("a") == "1"
    with pytest.raises(errors.NoTransaction):
        txn.put("a", "late")
    assert other.get("a") == "1"


def test_a_transaction_rolls_back_when_its_block_raises(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), client.transaction() as txn:
        txn.put("a", "1")
        raise ZeroDivisionError
    assert client.get("a") is None
    with client.transaction() as txn:
        txn.put("a", "2")
    assert client.get("a") == "2"


def test_a_conflict_is_raised_at_the_end_of_the_block_and_names_key_and_client(client: Client, other: Client) -> None:
    with pytest.raises(errors.Conflict) as caught, client.transaction() as txn:
        txn.get("a")
        other.put("a", "other's")
        txn.put("b", "1")
    assert caught.value.fields == {"key": "a", "by": 2}
    assert client.get("b") is None


def test_an_error_inside_a_transaction_stores_nothing(client: Client) -> None:
    with pytest.raises(errors.NotANumber), client.transaction() as txn:
        txn.put("a", "x")
        txn.incr("a")
    assert client.get("a") is None


def test_a_read_only_transaction_refuses_changes(client: Client) -> None:
    with pytest.raises(errors.ReadOnly), client.transaction(read_only=True) as txn:
        txn.put("a", "1")


def test_commands_do_not_slip_into_a_transaction_that_is_open_on_the_same_client(client: Client) -> None:
    with client.transaction() as txn:
        txn.put("a", "1")
        with pytest.raises(errors.InTransaction):
            client.put("b", "1")
    assert client.mget("a", "b") == ["1", None]


def test_a_transaction_can_be_led_by_hand(client: Client, other: Client) -> None:
    client.start()
    client.put("a", "1")
    client.savepoint("s")
    client.delete("a")
    client.rollback_to("s")
    client.release("s")
    assert client.check()["commits"] is True
    client.commit()
    client.start(read_only=True)
    client.rollback()
    assert other.get("a") == "1"


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(errors.Unavailable, match=str(port)):
        Client("127.0.0.1", port).connect()
    with pytest.raises(errors.Unavailable, match="connect"):
        Client().get("a")


@pytest.fixture
def breaking() -> Iterator[Client]:
    """A client of a server that answers the first request with Ok, and closes at the second."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                lines.readline()
                connection.sendall(b'{"status": "Ok"}\n')
                lines.readline()

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client("127.0.0.1", server.getsockname()[1], timeout=20)
        client.connect()
        yield client
        client.disconnect()
        thread.join(20)


def test_a_change_whose_reply_never_came_is_of_unknown_outcome(breaking: Client) -> None:
    breaking.put("a", "1")
    with pytest.raises(errors.OutcomeUnknown):
        breaking.put("a", "2")
    with pytest.raises(errors.Unavailable):
        breaking.put("a", "3")


def test_a_read_whose_reply_never_came_is_unavailable(breaking: Client) -> None:
    breaking.put("a", "1")
    with pytest.raises(errors.Unavailable):
        breaking.get("a")


def test_a_transaction_whose_connection_breaks_stores_nothing_and_says_so(breaking: Client) -> None:
    with pytest.raises(errors.Unavailable), breaking.transaction() as txn:
        txn.put("a", "1")


def test_a_commit_whose_reply_never_came_is_of_unknown_outcome(breaking: Client) -> None:
    with pytest.raises(errors.OutcomeUnknown), breaking.transaction():
        pass


def test_a_reply_that_comes_too_late_is_never_taken_for_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client("127.0.0.1", silent.getsockname()[1], timeout=0.05)
        client.connect()
        with pytest.raises(errors.Unavailable):
            client.get("a")
        with pytest.raises(errors.Unavailable, match="not connected"):
            client.get("a")


def test_the_commands_that_may_have_been_carried_out_are_those_that_change_something() -> None:
    assert {row.name for row in ROWS if row.writes} | {"COMMIT"} == CHANGING
