"""The Deferred client: coroutines that are closed, and Deferreds that are cancelled, at every step of a transaction.

The fixture of these tests sees that no error goes unhandled.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from kvd.client import Client
from kvd.errors import KvdError
from kvd.testing import MemoryServer
from tests.support.client import add_one, outcome_of

STEPS = 5
"""Of the transaction below: the connection, START, GET, PUT, COMMIT."""


async def play(client: Client) -> None:
    async with client.transaction() as txn:
        await add_one(txn, "a")


def run_steps(server: MemoryServer, coroutine: Coroutine[Deferred[Any], Any, Any], steps: int, answered: bool) -> None:
    """Run a coroutine by hand, until it waits for the last of some steps, or that has been answered."""
    for number in range(steps):
        coroutine.send(None)
        if answered or number < steps - 1:
            server.flush()


def lost(server: MemoryServer, client: Client) -> None:
    server.lose_links()


def unreachable(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()


def disconnected(server: MemoryServer, client: Client) -> None:
    client.disconnect()


def nothing(server: MemoryServer, client: Client) -> None:
    pass


EVENTS = [nothing, lost, unreachable, disconnected]


def one_transaction_is_possible_after(server: MemoryServer, client: Client) -> bool:
    """Whether a pool of one has its turn back."""
    server.reachable = True
    server.advance(10)
    found = outcome_of(client.transact(add_one, "b"))
    server.advance(10)
    assert len(found) == 1
    return found == [1] or (client._lifetime.over and isinstance(found[0], KvdError))


@pytest.mark.parametrize("before", EVENTS)
@pytest.mark.parametrize("after", EVENTS)
@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("steps", range(1, STEPS + 1))
def test_a_coroutine_that_is_closed_leaves_neither_a_transaction_nor_an_error(
    server: MemoryServer,
    steps: int,
    answered: bool,
    before: Callable[[MemoryServer, Client], None],
    after: Callable[[MemoryServer, Client], None],
) -> None:
    client = server.connect(pool=1, timeout=9)
    coroutine = play(client)
    run_steps(server, coroutine, steps, answered)
    before(server, client)
    coroutine.close()
    after(server, client)
    del coroutine
    gc.collect()
    assert one_transaction_is_possible_after(server, client)
    other = server.connect()
    assert server.run(other.info("transactions"))["open"] == 0
    stored = server.run(other.get("a"))
    assert stored == "1" if steps == STEPS and answered else stored is None or steps == STEPS


@pytest.mark.parametrize("before", EVENTS)
@pytest.mark.parametrize("after", EVENTS)
@pytest.mark.parametrize("steps", range(0, 14, 2))
def test_a_transaction_that_is_cancelled_leaves_neither_a_transaction_nor_an_error(
    server: MemoryServer,
    steps: int,
    before: Callable[[MemoryServer, Client], None],
    after: Callable[[MemoryServer, Client], None],
) -> None:
    client = server.connect(pool=1, timeout=9)
    running = Deferred.fromCoroutine(play(client))
    found = outcome_of(running)
    server.network_delay = lambda from_client: 0.001
    server.advance(steps * 0.001 + 0.0005)
    before(server, client)
    running.cancel()
    assert len(found) == 1
    assert found[0] is None or isinstance(found[0], KvdError | CancelledError)
    after(server, client)
    gc.collect()
    assert one_transaction_is_possible_after(server, client)
    other = server.connect()
    assert server.run(other.info("transactions"))["open"] == 0


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
def test_a_coroutine_that_is_dropped_leaves_no_error(server: MemoryServer, steps: int) -> None:
    client = server.connect(pool=1)
    coroutine = play(client)
    run_steps(server, coroutine, steps, False)
    del coroutine
    gc.collect()
    server.lose_links()
    assert one_transaction_is_possible_after(server, client)


def test_a_transaction_that_is_closed_while_requests_are_under_way_leaves_no_error(
    server: MemoryServer, client: Client
) -> None:
    async def hasty() -> None:
        async with client.transaction() as txn:
            for number in range(3):
                txn.put("a", str(number))

    coroutine = hasty()
    run_steps(server, coroutine, 3, False)  # COMMIT is sent, with three PUTs before it
    coroutine.close()
    gc.collect()
    assert server.run(client.info("transactions"))["open"] == 0


def test_all_that_waits_when_everything_is_dropped_leaves_no_error() -> None:
    server = MemoryServer()
    client = server.connect(pool=1)
    for _ in range(3):
        Deferred.fromCoroutine(play(client))
    client.put("a", "1")
    del server, client
    gc.collect()
