"""The Deferred client: wrong words fail through their Deferred, and leave no transaction open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from kvd import wire
from kvd.client import Client, Transaction
from kvd.errors import (
    Aborted,
    BadArguments,
    BadRequest,
    KvdError,
    NoTransaction,
    TooLarge,
    UnknownCommand,
)
from kvd.testing import MemoryServer
from kvd.wire import MAX_LINE, MAX_WORDS
from tests.support.client import outcome_of

SURROGATE = "\ud83d"
HUGE = 10**5000

# Not of the types that the methods ask for: programs without types pass them all the same.
UNSENDABLE: list[Any] = [b"x", 1.5, float("nan"), True, ["x"], {"x": 1}, object(), SURROGATE, "a" + SURROGATE, HUGE]


def shown(word: Any) -> str:
    return "10**5000" if word == HUGE else ascii(word)[:20]


COMMANDS: dict[str, Callable[[Any, Any], Any]] = {
    "put a key": lambda on, word: on.put(word, "1"),
    "put a value": lambda on, word: on.put("a", word),
    "get": lambda on, word: on.get(word),
    "delete": lambda on, word: on.delete(word),
    "mget": lambda on, word: on.mget("a", word),
    "exists": lambda on, word: on.exists(word),
    "incr a key": lambda on, word: on.incr(word),
    "incr by": lambda on, word: on.incr("a", word),
    "cas a key": lambda on, word: on.cas(word, "1", "2"),
    "cas from": lambda on, word: on.cas("a", word, "2"),
    "cas to": lambda on, word: on.cas("a", "1", word),
    "scan a prefix": lambda on, word: on.scan(word),
    "scan from": lambda on, word: on.scan(start=word),
    "scan to": lambda on, word: on.scan(end=word),
    "scan at most": lambda on, word: on.scan(limit=word),
    "count": lambda on, word: on.count(word),
    "call": lambda on, word: on.call(word),
    "call with": lambda on, word: on.call("GET", word),
}
OUTSIDE: dict[str, Callable[[Any, Any], Any]] = {
    "ping": lambda on, word: on.ping(word),
    "info": lambda on, word: on.info(word),
    "help": lambda on, word: on.help(word),
}
INSIDE: dict[str, Callable[[Any, Any], Any]] = {
    "savepoint": lambda on, word: on.savepoint(word),
    "rollback_to": lambda on, word: on.rollback_to(word),
    "release": lambda on, word: on.release(word),
}


def is_free(server: MemoryServer, client: Client) -> bool:
    """Whether the shared connection is outside of any transaction."""
    try:
        server.run(client.call("CHECK"))
    except NoTransaction:
        return server.run(client.get("none")) is None
    return False


@pytest.mark.parametrize("word", UNSENDABLE, ids=shown)
@pytest.mark.parametrize("ask", [*COMMANDS.values(), *OUTSIDE.values()], ids=[*COMMANDS, *OUTSIDE])
def test_a_word_that_can_not_be_sent_fails_through_the_deferred(
    server: MemoryServer, client: Client, ask: Callable[[Any, Any], Any], word: Any
) -> None:
    (error,) = outcome_of(ask(client, word))
    assert type(error) is BadArguments
    assert is_free(server, client)


@pytest.mark.parametrize("word", UNSENDABLE, ids=shown)
@pytest.mark.parametrize("ask", [*COMMANDS.values(), *INSIDE.values()], ids=[*COMMANDS, *INSIDE])
def test_a_word_that_can_not_be_sent_aborts_its_transaction(
    server: MemoryServer, client: Client, ask: Callable[[Any, Any], Any], word: Any
) -> None:
    found: list[Any] = []

    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            found.extend(outcome_of(ask(txn, word)))
            with pytest.raises(Aborted):
                await txn.put("b", "2")

    with pytest.raises(Aborted, match="nothing of this transaction can be stored, because a command failed"):
        server.run(play())
    assert [type(error) for error in found] == [BadArguments]
    server.flush()
    assert server.run(client.count()) == 0
    assert server.run(client.info("transactions"))["open"] == 0


def test_going_back_to_a_savepoint_heals_a_transaction_after_a_word_that_can_not_be_sent(
    server: MemoryServer, client: Client
) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await txn.savepoint("s")
            outcome_of(txn.put("b", cast(Any, b"2")))
            back, put = txn.rollback_to("s"), txn.put("c", "3")
            await back
            await put

    server.run(play())
    assert server.run(client.mget("a", "b", "c")) == ["1", None, "3"]


def test_going_back_to_a_savepoint_that_is_not_there_heals_nothing(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            outcome_of(txn.put("b", cast(Any, b"2")))
            outcome_of(txn.rollback_to("s"))
            outcome_of(txn.put("c", "3"))

    with pytest.raises(Aborted):
        server.run(play())
    assert server.run(client.count()) == 0


@pytest.mark.parametrize("ask", [lambda on: on.get(None), lambda on: on.put(None, "1"), lambda on: on.put("a", None)])
def test_none_is_not_a_key_or_a_value(
    server: MemoryServer, client: Client, ask: Callable[[Any], Deferred[Any]]
) -> None:
    with pytest.raises(BadArguments, match="must be a string"):
        server.run(ask(client))


def test_no_words_at_all_are_not_a_request(server: MemoryServer, client: Client) -> None:
    with pytest.raises(BadArguments):
        server.run(client.call())


def test_no_keys_have_no_values(server: MemoryServer, client: Client) -> None:
    async def inside(txn: Transaction) -> list[str | None]:
        return await txn.mget()

    assert server.run(client.mget()) == []
    assert server.run(client.transact(inside)) == []


class Name(str):
    """Text of a kind."""


def test_words_of_a_class_derived_from_str_are_text(server: MemoryServer, client: Client) -> None:
    server.run(client.put(Name("a"), "1"))
    assert server.run(client.get("a")) == "1"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("START",), BadRequest),
        (("start", "readonly"), BadRequest),
        (("Quit",), BadRequest),
        (("START X", 1.5), BadArguments),
        (("START", ["x"]), BadRequest),
        (("START ", True), BadArguments),
        (("  start-", SURROGATE), BadArguments),
        (("START X", *["x"] * (MAX_WORDS + 1)), TooLarge),
        (("START.", "x" * MAX_LINE), TooLarge),
        (("START X",), UnknownCommand),
        ((" START",), UnknownCommand),
        (("COMMIT",), NoTransaction),
        (("rollback",), NoTransaction),
    ],
    ids=lambda words: ascii(words)[:25],
)
def test_no_words_leave_a_transaction_on_the_connection_that_all_share(
    server: MemoryServer, client: Client, words: Any, error: type[KvdError]
) -> None:
    with pytest.raises(error):
        server.run(client.call(*words))
    assert is_free(server, client)


WORDS = st.none() | st.integers() | st.floats() | st.booleans() | st.text(max_size=5) | st.binary(max_size=3)
NAMES = (
    st.tuples(
        st.sampled_from(["", " ", "[", '["', "\n", "\t"]),
        st.sampled_from(["START", "start", "ſtart", "STArT", "COMMIT", "ROLLBACK", "QUIT", "SAVEPOINT"]),
        st.sampled_from(["", " ", "\n", ' X"', "-", "]", " READONLY"]),
    ).map("".join)
    | WORDS
)


@given(st.lists(st.tuples(NAMES, st.lists(WORDS | st.just(SURROGATE), max_size=3)), max_size=4))
@example([("START\n", [])])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_called_the_shared_connection_stays_outside_of_transactions(
    requests: list[tuple[Any, list[Any]]],
) -> None:
    server = MemoryServer()
    client = server.connect()
    found = [outcome_of(client.call(name, *words)) for name, words in requests]
    server.flush()
    assert all(len(each) == 1 for each in found)
    assert is_free(server, client)
    assert server.run(client.info("clients"))["accepted"] == 1


@given(NAMES, st.lists(WORDS | st.just(SURROGATE), max_size=3))
@example("COMMIT", [])
@example("Rollback", [])
@example("ROLLBACK", [None])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_called_in_a_transaction_all_of_it_is_stored_or_nothing(name: Any, words: list[Any]) -> None:
    server = MemoryServer()
    client = server.connect()

    async def play(txn: Transaction) -> None:
        await txn.put("a", "1")
        outcome_of(txn.call(name, *words))
        outcome_of(txn.put("b", "2"))

    found = outcome_of(client.transact(play))
    server.flush()
    assert server.run(client.mget("a", "b")) == (["1", "2"] if found == [None] else [None, None])
    assert found == [None] or isinstance(found[0], KvdError)
    assert server.run(client.info("transactions"))["open"] == 0


def test_a_request_with_the_most_words_is_sent(server: MemoryServer, client: Client) -> None:
    assert server.run(client.mget(*["a"] * MAX_WORDS)) == [None] * MAX_WORDS


def test_the_largest_value_of_characters_that_need_an_escape_is_sent(server: MemoryServer, client: Client) -> None:
    value = "\x01" * 1024 * 1024
    server.run(client.put("a", value))
    assert len(wire.request("PUT", "a", value)) > 6 * 1024 * 1024
    assert server.run(client.get("a")) == value


@pytest.mark.parametrize("flag", [2, "x", None, []])
def test_flags_are_true_or_false(server: MemoryServer, client: Client, flag: Any) -> None:
    server.run(client.put("a", "1"))
    assert len(server.run(client.scan(reverse=flag, keys_only=flag)).items) == 1


def transactions(client: Client, fn: Any) -> Awaitable[Any]:
    return client.transact(fn)


@pytest.mark.parametrize("fn", [lambda txn: 5, lambda txn: None, lambda txn: (each for each in "ab"), None, "get"])
def test_what_can_not_be_waited_for_is_not_a_transaction(server: MemoryServer, client: Client, fn: Any) -> None:
    began = server.clock.seconds()
    with pytest.raises(TypeError):
        server.run(transactions(client, fn))
    assert server.clock.seconds() == began


def test_a_plain_function_is_told_what_it_should_be(server: MemoryServer, client: Client) -> None:
    def add_one(txn: Transaction) -> int:
        outcome_of(txn.put("a", "1"))
        return 1

    with pytest.raises(TypeError, match=r"add_one must be a coroutine function, or return a Deferred; it returned int"):
        server.run(transactions(client, add_one))
    server.flush()
    assert server.run(client.get("a")) is None
