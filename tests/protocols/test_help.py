"""HELP, the command table that it comes from, and the hints for what no command is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.core import command
from kvd.core.commands import COMMANDS, ROWS
from kvd.core.names import ELSEWHERE, distance, meant
from kvd.testing.conversations import Connection
from tests.support.replies import code, result


def told(client: Connection, *words: str) -> Any:
    return json.loads(client.exchange(f"{' '.join(['HELP', *words])}\n".encode()))["result"]


# HELP.


def test_help_names_every_usage_under_its_topic_in_a_line_that_can_be_read(client: Connection) -> None:
    line = client.exchange(b"HELP\n").decode()
    assert len(line) < 40 * len(ROWS)
    assert "\\" not in line
    found = json.loads(line)["result"]
    assert list(found) == ["data", "transactions", "server", "more"]
    listed = [usage for topic in ("data", "transactions", "server") for usage in found[topic].split(", ")]
    assert sorted(listed) == sorted(row.usage for row in ROWS)


@pytest.mark.parametrize("topic", ["data", "transactions", "server"])
def test_help_about_a_topic_tells_what_each_of_its_commands_does(client: Connection, topic: str) -> None:
    found = told(client, topic.upper())
    assert ", ".join(found) == told(client)[topic]
    assert found == {row.usage: row.help for row in ROWS if row.usage in found}


def test_help_about_a_command_tells_its_usage_what_it_does_and_what_it_answers(client: Connection) -> None:
    for row in ROWS:
        answers = "Ok alone" if row.shape is command.NOTHING else row.shape.says
        assert told(client, row.name.lower()) == f"{row.usage}: {row.help}; answers {answers}"


def test_help_about_nothing_that_there_is_offers_what_was_meant(client: Connection) -> None:
    reply = client.exchange(b"HELP set\n")
    assert code(reply) == "UNKNOWN_COMMAND"
    assert "did you mean PUT?" in json.loads(reply)["mesg"]


def test_help_says_that_there_is_no_quoting(client: Connection) -> None:
    assert "quotes" in told(client, "PUT")


@pytest.mark.parametrize("line", ['GET "my key"', 'DEL "my key"', 'EXISTS "a b c"', 'CAS "my key" a b', 'INCR "a b" 2'])
def test_too_many_words_with_a_quote_among_them_get_a_hint_that_quotes_do_not_join_words(
    client: Connection, line: str
) -> None:
    mesg = json.loads(client.exchange(line.encode() + b"\n"))["mesg"]
    assert "quotes do not join words" in mesg
    assert '["GET", "a key"]' in mesg


def test_a_quote_alone_is_a_word_like_any_other(client: Connection) -> None:
    assert client.exchange(b'PUT "my key" v\nGET "my\nPUT k "a"\nGET k\nCOUNT "x\n').splitlines(keepends=True)[:4] == [
        b'{"status": "Ok"}\n', result('key" v'), b'{"status": "Ok"}\n', result('"a"'),
    ]  # fmt: skip


# What each row says that it answers.

SHAPES: dict[command.Shape, Callable[[Any], bool]] = {
    command.TEXT: lambda value: value is None or isinstance(value, str),
    command.TEXTS: lambda value: all(each is None or isinstance(each, str) for each in value),
    command.FLAG: lambda value: isinstance(value, bool),
    command.NUMBER: lambda value: type(value) in (int, float),
    command.NUMBER_OR_NULL: lambda value: value is None or type(value) in (int, float),
    command.PAGE: lambda value: set(value) == {"items", "next"},
    command.OBJECT: lambda value: isinstance(value, dict),
    command.OUTCOME: lambda value: value in ("committed", "never"),
    command.HELP: lambda value: isinstance(value, dict | str),
}
EXAMPLES = {
    "PUT": ["k v"], "GET": ["k", "nobody"], "DEL": ["k"], "MGET": ["k nobody"], "EXISTS": ["k"], "INCR": ["n"],
    "EXPIRE": ["k 1.5", "nobody 1"], "EXPIREAT": ["k 5", "nobody 5"], "PERSIST": ["k"], "TTL": ["k", "nobody"],
    "CAS": ["k v w"], "SCAN": ["", "KEYS", "ENDS"], "COUNT": [""], "START": [""], "COMMIT": ["", "r"], "ROLLBACK": [""],
    "SAVEPOINT": ["s"], "ROLLBACK TO": ["s"], "RELEASE": ["s"], "CHECK": [""], "PING": ["", "text"],
    "OUTCOME": ["r"], "INFO": ["", "store"], "HELP": ["", "GET", "data"], "QUIT": [""],
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_command_answers_what_its_row_says(client: Connection, row: command.Command) -> None:
    for example in EXAMPLES[row.name]:
        if row.needs_transaction:
            client.exchange(b"START\nSAVEPOINT s\n")
        reply = json.loads(client.exchange(f"{row.name} {example}".strip().encode() + b"\n"))
        assert reply["status"] == "Ok"
        if row.shape is command.NOTHING:
            assert "result" not in reply
        else:
            assert SHAPES[row.shape](reply["result"])


# Hints.


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("GTE a", "GET"), ("gett a", "GET"), ("PU a 1", "PUT"), ("savepiont s", "SAVEPOINT"), ("ROLBAK", "ROLLBACK"),
        ("comit", "COMMIT"), ("STRAT", "START"), ("EXIST a", "EXISTS"),
        ("SET a 1", "PUT"), ("set a 1", "PUT"), ("DELETE a", "DEL"), ("REMOVE a", "DEL"), ("RM a", "DEL"),
        ("BEGIN", "START"), ("MULTI", "START"), ("EXEC", "COMMIT"), ("DISCARD", "ROLLBACK"), ("ABORT", "ROLLBACK"),
        ("KEYS *", "SCAN"), ("LIST", "SCAN"), ("exit", "QUIT"), ("bye", "QUIT"), ("logout", "QUIT"), ("q", "QUIT"),
        ("TTLS", "TTL"), ("INCRBY a 1", "INCR"), ("DECR a", "INCR"), ("?", "HELP"),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_one_or_that_others_use_gets_the_name_that_is_meant(
    client: Connection, typed: str, offered: str
) -> None:
    reply = client.exchange(typed.encode() + b"\n")
    assert code(reply) == "UNKNOWN_COMMAND"
    assert json.loads(reply)["mesg"].endswith(f"; did you mean {offered}?")


TO_COME = (
    "AUTH", "TTL", "EXPIRE", "EXPIREAT", "PERSIST", "CLIENTS", "TXNS", "KILL", "WHOAMI", "CHANGES", "CLEAR",
    "FLUSHALL", "FLUSHDB", "LOGIN",
)  # fmt: skip


@pytest.mark.parametrize(
    "typed",
    [
        "nonsense", "SORT", "LPUSH a 1", "GETSET a b", "SELECT 0", "é", "\t", '"GET" a', "{}", "x" * 5000,
        *[name for name in TO_COME if name not in COMMANDS and ELSEWHERE.get(name) not in COMMANDS],
    ],
)  # fmt: skip
def test_a_name_that_is_like_none_gets_no_name_that_misleads(client: Connection, typed: str) -> None:
    reply = client.exchange(typed.encode() + b"\n")
    assert code(reply) == "UNKNOWN_COMMAND"
    assert json.loads(reply)["mesg"].endswith("; HELP lists the commands")


def test_a_name_from_elsewhere_is_offered_only_where_there_is_such_a_command() -> None:
    assert meant("FLUSHALL", ["GET", "CLEAR"]) == "CLEAR"
    assert meant("FLUSHALL", ["GET"]) is None


@given(st.text("ABC", max_size=6), st.text("ABC", max_size=6), st.text("ABC", max_size=6))
def test_distances_are_distances(one: str, other: str, third: str) -> None:
    assert (distance(one, other) == 0) == (one == other)
    assert distance(one, other) == distance(other, one)
    assert distance(one, other) <= max(len(one), len(other))
    assert distance(one + third, other + third) <= distance(one, other)


@pytest.mark.parametrize(
    ("one", "other", "mistakes"), [("GTE", "GET", 1), ("GET", "", 3), ("SAVEPIONT", "SAVEPOINT", 1), ("AUTH", "PUT", 2)]
)
def test_two_letters_that_changed_places_are_one_mistake(one: str, other: str, mistakes: int) -> None:
    assert distance(one, other) == mistakes
