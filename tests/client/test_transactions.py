"""The Deferred client: transactions."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from kvd import errors
from kvd.client import Client, Transaction
from kvd.errors import (
    Aborted,
    BadRequest,
    KvdError,
    NoTransaction,
    Unavailable,
)
from kvd.testing import MemoryServer
from tests.support.client import add_one, connections, outcome_of


def test_a_transaction_is_stored_as_a_whole_at_its_end(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await txn.put("b", "2")
            assert await txn.get("a") == "1"
            assert await client.get("a") is None
        assert await client.mget("a", "b") == ["1", "2"]

    server.run(play())


def test_a_transaction_rolls_back_when_its_block_raises(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            raise LookupError("no")

    with pytest.raises(LookupError):
        server.run(play())
    server.flush()
    assert server.run(client.info("transactions"))["rolled_back"] == 1
    assert server.run(client.get("a")) is None


def test_a_transaction_rolls_back_when_its_deferred_is_cancelled(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await Deferred()

    playing = Deferred.fromCoroutine(play())
    found = outcome_of(playing)
    server.flush()
    playing.cancel()
    assert isinstance(found[0], CancelledError)
    server.flush()
    assert server.run(client.info("transactions"))["rolled_back"] == 1
    assert server.run(client.transact(add_one, "a")) == 1
    assert connections(server, client) == (2, 2)


def test_a_transaction_rolls_back_when_its_coroutine_is_closed(server: MemoryServer, client: Client) -> None:
    never: Deferred[None] = Deferred()

    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await never

    coroutine = play()
    while coroutine.send(None) is not never:
        server.flush()
    assert server.run(client.info("transactions"))["open"] == 1
    coroutine.close()
    server.flush()
    assert server.run(client.info("transactions"))["open"] == 0
    assert server.run(client.get("a")) is None


def test_a_transaction_never_shares_its_connection(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as one, client.transaction() as other:
            await one.put("a", "1")
            await other.put("b", "2")
            await client.put("c", "3")
            assert await client.mget("a", "b", "c") == [None, None, "3"]
            assert [(await txn.check())["writes"] for txn in (one, other)] == [1, 1]

    server.run(play())
    assert server.run(client.mget("a", "b", "c")) == ["1", "2", "3"]
    assert connections(server, client) == (3, 3)


def test_transactions_one_after_the_other_use_one_connection(server: MemoryServer, client: Client) -> None:
    for number in range(1, 6):
        assert server.run(client.transact(add_one, "a")) == number
    assert connections(server, client) == (2, 2)


def test_a_transaction_whose_connection_broke_has_failed_and_nothing_of_it_runs_outside(
    server: MemoryServer, client: Client
) -> None:
    ran: list[type[BaseException]] = []

    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            server.lose_links()
            for use in (txn.put("b", "2"), txn.get("a"), txn.savepoint("s")):
                try:
                    await use
                except KvdError as error:
                    ran.append(type(error))
            assert await client.get("a") is None  # the client itself is connected again

    with pytest.raises(Unavailable, match="nothing was stored"):
        server.run(play())
    assert ran == [Unavailable] * 3
    assert server.run(client.count()) == 0


def test_what_is_under_way_in_a_transaction_is_surely_not_stored_when_its_connection_breaks(
    server: MemoryServer, client: Client
) -> None:
    failed: list[Any] = []

    async def under_way() -> None:
        async with client.transaction() as txn:
            failed.append(outcome_of(txn.put("a", "1")))
            server.lose_links()

    with pytest.raises(Unavailable):
        server.run(under_way())
    assert type(failed[0][0]) is Unavailable


def test_a_transaction_can_not_be_opened_twice_at_once(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        txn = client.transaction()
        async with txn:
            await txn.put("a", "1")
            with pytest.raises(NoTransaction):
                await txn.__aenter__()
            await txn.put("b", "2")

    server.run(play())
    assert server.run(client.count()) == 2


def test_a_transaction_that_is_over_can_not_be_used(server: MemoryServer, client: Client) -> None:
    async def play() -> Transaction:
        async with client.transaction() as txn:
            await txn.put("a", "1")
        return txn

    txn = server.run(play())
    for use in (txn.put("a", "2"), client.transaction().get("a")):
        with pytest.raises(NoTransaction):
            server.run(use)
    assert server.run(client.get("a")) == "1"


@pytest.mark.parametrize("words", [("COMMIT",), ("commit",), ("ROLLBACK",), ("START",), ("QUIT",)])
def test_a_transaction_can_not_be_ended_behind_its_back(
    server: MemoryServer, client: Client, words: tuple[str, ...]
) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            with pytest.raises(BadRequest):
                await txn.call(*words)
            await txn.put("b", "2")
            assert await client.count() == 0

    server.run(play())
    assert server.run(client.count()) == 2


def test_an_error_inside_aborts_the_transaction_though_nobody_waited_for_it(
    server: MemoryServer, client: Client
) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "word")
            outcome_of(txn.incr("a"))

    with pytest.raises(Aborted, match="not a 64-bit integer"):
        server.run(play())
    assert server.run(client.get("a")) is None


def test_savepoints_take_back_a_part(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await txn.savepoint("s")
            await txn.put("b", "2")
            assert (await txn.check())["writes"] == 2
            await txn.rollback_to("s")
            await txn.release("s")

    server.run(play())
    assert server.run(client.mget("a", "b")) == ["1", None]


def test_a_read_only_transaction_may_not_write(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction(read_only=True) as txn:
            assert await txn.get("a") is None
            await txn.put("a", "1")

    with pytest.raises(errors.ReadOnly):
        server.run(play())


def test_a_commit_of_a_transaction_that_only_read_is_never_of_unknown_outcome(
    server: MemoryServer, client: Client
) -> None:
    async def read() -> None:
        async with client.transaction() as txn:
            await txn.get("a")

    server.lose_link_after_next_commit()
    with pytest.raises(Unavailable):
        server.run(read())
