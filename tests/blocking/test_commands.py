"""The blocking client's commands, against a real daemon."""

from __future__ import annotations

import pytest

from kvd import errors
from kvd.blocking import Client, Page
from kvd.core.commands import ROWS


def test_there_is_a_method_for_every_command() -> None:
    spelled = {"DEL": "delete", "ROLLBACK TO": "rollback_to", "EXPIREAT": "expire_at"}
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
    assert client.mget() == []
    client.put("e", "1", 1.5)
    assert 0 < (client.ttl("e") or 0) <= 1.5
    assert (client.persist("e"), client.persist("e"), client.ttl("e")) == (True, False, None)
    assert (client.expire("e", 100), client.expire("nothing", 0.001)) == (True, False)
    assert (client.expire_at("e", 0), client.get("e")) == (True, None)
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
    assert client.call("incr", "n", 7) == 5
    client.quit()
    with pytest.raises(errors.Unavailable):
        client.get("a")


def test_send_command_returns_what_the_server_answered_and_raises_for_none_of_it(client: Client) -> None:
    assert client.send_command("PUT key1 value1") == {"status": "Ok"}
    assert client.send_command('["GET", "key1"]') == {"status": "Ok", "result": "value1"}
    assert client.send_command("GET key1\r") == {"status": "Ok", "result": "value1"}
    assert client.send_command("NOSUCH")["code"] == "UNKNOWN_COMMAND"
    assert client.send_command("\t")["code"] == "UNKNOWN_COMMAND"
    assert client.send_command("COMMIT")["code"] == "NO_TRANSACTION"
    assert client.send_command("[5]")["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("line", ["", "   ", "\r", "  \r", "PUT a b\nPUT c d", "GET a\n"])
def test_send_command_refuses_what_would_not_get_one_reply(client: Client, line: str) -> None:
    with pytest.raises(errors.BadRequest):
        client.send_command(line)
    assert client.ping() == "PONG"


def test_each_code_is_raised_as_its_class(client: Client) -> None:
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
