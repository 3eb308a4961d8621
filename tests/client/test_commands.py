"""The Deferred client: its commands, over memory and virtual time."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, gatherResults

from kvd import blocking, errors
from kvd import client as deferred
from kvd.client import Client, Page
from kvd.client.commands import Commands
from kvd.errors import (
    BadArguments,
    BadRequest,
    NotANumber,
)
from kvd.testing import MemoryServer
from tests.support.client import connections, outcome_of


def test_every_command_gives_what_it_says(server: MemoryServer, client: Client) -> None:
    run = server.run
    assert run(client.put("a key", "two\nlines")) is None
    assert run(client.get("a key")) == "two\nlines"
    assert run(client.get("none")) is None
    assert run(client.mget("a key", "none")) == ["two\nlines", None]
    assert run(client.exists("a key")) is True
    assert run(client.delete("a key")) is None
    assert run(client.exists("a key")) is False
    assert run(client.incr("n")) == 1
    assert run(client.incr("n", -3)) == -2
    assert run(client.cas("c", None, "1")) is True
    assert run(client.cas("c", None, "2")) is False
    assert run(client.cas("c", "1", None)) is True
    assert run(client.put("e", "x", 1.5)) is None
    assert 0 < (run(client.ttl("e")) or 0) <= 1.5
    assert run(client.persist("e")) is True
    assert run(client.ttl("e")) is None
    assert run(client.expire("e", 2)) is True
    assert run(client.expire_at("none", 2)) is False
    server.advance(2)
    assert run(client.exists("e")) is False
    assert run(client.put("p1", "x")) is None
    assert run(client.put("p2", "y")) is None
    assert run(client.scan("p")) == Page([("p1", "x"), ("p2", "y")], None)
    assert run(client.scan("p", limit=1, keys_only=True)) == Page(["p1"], "p2")
    assert run(client.scan("p", start="p2")).items == [("p2", "y")]
    assert run(client.scan("p", end="p2", reverse=True)).items == [("p1", "x")]
    assert run(client.count()) == 3
    assert run(client.count("p")) == 2
    assert run(client.ping()) == "PONG"
    assert run(client.ping("hello")) == "hello"
    assert "version" in run(client.info())["server"]
    assert run(client.help("rollback to")).startswith("ROLLBACK TO")


BLOCKING_ALONE = {"pipeline", "put_many", "scan_all"}
"""What saves waiting: a Deferred client sends without waiting as it is."""


def test_both_clients_have_the_same_commands_with_the_same_arguments() -> None:
    for mine, theirs in ((Commands, blocking.Commands), (deferred.Transaction, blocking.Transaction)):
        names = {name for name, _ in inspect.getmembers(theirs, inspect.isfunction) if name[0] != "_"}
        others = {name for name, _ in inspect.getmembers(mine, inspect.isfunction) if name[0] != "_"}
        assert names - BLOCKING_ALONE == others - {"scan_all"}
        names -= BLOCKING_ALONE
        for name in names:
            one, other = (inspect.signature(getattr(kind, name)).parameters for kind in (mine, theirs))
            assert [str(parameter) for parameter in one.values()] == [str(parameter) for parameter in other.values()]


@pytest.mark.parametrize("wrong", [True, "5", None])
def test_seconds_are_a_number(server: MemoryServer, client: Client, wrong: Any) -> None:
    with pytest.raises(BadArguments, match="must be an int or a float"):
        server.run(client.expire("a", wrong))
    for number in (0, -1.5, float("nan"), float("inf"), 1e300):
        with pytest.raises(BadArguments, match="at most 315360000 seconds"):
            server.run(client.put("a", "1", number))


def test_an_error_is_raised_as_the_class_of_its_code(server: MemoryServer, client: Client) -> None:
    server.run(client.put("word", "abc"))
    with pytest.raises(NotANumber, match="'word' is not a 64-bit integer"):
        server.run(client.incr("word"))
    with pytest.raises(errors.UnknownCommand, match="did you mean GET"):
        server.run(client.call("GETT", "a"))
    assert server.run(client.get("word")) == "abc"


def test_a_thousand_requests_at_once_share_one_connection_and_each_gets_its_own_reply(
    server: MemoryServer, client: Client
) -> None:
    server.run(gatherResults([client.put(f"key{n}", f"value{n}") for n in range(1000)]))
    assert server.run(gatherResults([client.get(f"key{n}") for n in range(1000)])) == [f"value{n}" for n in range(1000)]
    assert connections(server, client) == (1, 1)


def test_the_reply_to_a_cancelled_request_goes_to_nobody_else(server: MemoryServer, client: Client) -> None:
    server.run(gatherResults([client.put("a", "1"), client.put("b", "2")]))
    cancelled = client.get("a")
    found = outcome_of(cancelled)
    other = client.get("b")
    cancelled.cancel()
    assert isinstance(found[0], CancelledError)
    assert server.run(other) == "2"
    assert len(found) == 1
    assert connections(server, client) == (1, 1)


@pytest.mark.parametrize("word", ["START", "start", "QUIT"])
def test_what_would_disturb_others_on_the_shared_connection_is_not_sent(
    server: MemoryServer, client: Client, word: str
) -> None:
    with pytest.raises(BadRequest, match="has no place"):
        server.run(client.call(word))
    assert server.run(client.info("transactions"))["open"] == 0
