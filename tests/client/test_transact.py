"""The Deferred client: transact, which tries again."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks

from kvd.client import Client, Transaction
from kvd.errors import (
    Conflict,
    Unavailable,
)
from kvd.requests import full_jitter
from kvd.testing import MemoryServer
from tests.support.client import add_one, outcome_of, transfer


def test_transact_gives_what_its_function_returned_and_passes_arguments_on(
    server: MemoryServer, client: Client
) -> None:
    async def told(txn: Transaction, /, *args: int, **options: int) -> Any:
        return args, options

    assert server.run(client.transact(told, 1, 2, three=3)) == ((1, 2), {"three": 3})


def test_transact_takes_functions_that_return_deferreds(server: MemoryServer, client: Client) -> None:
    @inlineCallbacks
    def add(txn: Transaction, key: str) -> Generator[Deferred[Any], Any, int]:
        number = int((yield txn.get(key)) or 0) + 1
        yield txn.put(key, str(number))
        return number

    assert server.run(client.transact(add, "a")) == 1
    assert server.run(client.transact(lambda txn: txn.incr("a"))) == 2

    def copy(txn: Transaction) -> Deferred[None]:
        return txn.get("a").addCallback(lambda value: txn.put("b", str(value)))

    server.run(client.transact(copy))
    assert server.run(client.mget("a", "b")) == ["2", "2"]


def test_transact_refuses_a_function_that_could_not_have_waited_for_anything(
    server: MemoryServer, client: Client
) -> None:
    def plain(txn: Transaction) -> Any:
        txn.put("a", "1")

    with pytest.raises(TypeError):
        server.run(client.transact(plain))
    assert server.run(client.get("a")) is None


def test_transact_runs_again_after_a_conflict(server: MemoryServer, client: Client) -> None:
    server.conflict_at_next_commit()
    assert server.run(client.transact(add_one, "a")) == 1
    assert server.run(client.info("transactions"))["conflicts"] == 1


def test_transact_does_not_repeat_what_its_function_raises(server: MemoryServer, client: Client) -> None:
    runs: list[None] = []

    async def fails(txn: Transaction) -> None:
        runs.append(None)
        await txn.put("a", "1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        server.run(client.transact(fails))
    assert len(runs) == 1
    assert server.run(client.get("a")) is None


def test_transact_gives_up_with_the_last_conflict_when_its_time_is_over(server: MemoryServer) -> None:
    client = server.connect(retry_for=3, rand=lambda: 1.0)
    began: list[float] = []

    async def always_loses(txn: Transaction) -> None:
        began.append(server.clock.seconds())
        await txn.put("a", str(await txn.get("a")))
        await client.put("a", "changed meanwhile")

    with pytest.raises(Conflict) as caught:
        server.run(client.transact(always_loses))
    assert caught.value.fields["key"] == "a"
    pauses = [round(later - sooner, 6) for sooner, later in pairwise(began)]
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
    assert server.clock.seconds() < 3


def test_pauses_are_spread_over_all_of_a_limit_that_doubles() -> None:
    assert [full_jitter(attempt, 0.01, 1.0, lambda: 0.5) for attempt in (1, 2, 3, 8, 5000)] == [
        0.005,
        0.01,
        0.02,
        0.5,
        0.5,
    ]
    assert full_jitter(3, 0.01, 1.0, lambda: 0.0) == 0


def test_transact_outlives_a_server_that_is_away_for_a_moment(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    adding = client.transact(add_one, "a")
    server.advance(3)
    server.reachable = True
    assert server.run(adding) == 1


def test_transact_stops_trying_when_the_client_is_disconnected(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    found = outcome_of(client.transact(add_one, "a"))
    server.flush()
    server.run(client.disconnect())
    server.advance(2)
    assert type(found[0]) is Unavailable


def test_a_cancelled_transact_does_not_try_again(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    adding = client.transact(add_one, "a")
    found = outcome_of(adding)
    server.flush()
    adding.cancel()
    assert isinstance(found[0], CancelledError)
    server.reachable = True
    server.advance(40)
    assert server.run(client.get("a")) is None


def test_forty_transfers_at_once_between_the_same_two_keys_all_get_through(server: MemoryServer) -> None:
    client = server.connect()
    server.network_delay = lambda from_client: 0.0005
    server.run(gatherResults([client.transact(transfer, "alice", "bob", 1) for _ in range(40)]))
    assert server.run(client.mget("alice", "bob")) == ["-40", "40"]
    assert server.run(client.info("transactions"))["conflicts"] > 40
    assert server.clock.seconds() < 30
