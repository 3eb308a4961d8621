"""The Deferred client: the pool of connections that transactions lease."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from kvd.client import Client, Transaction
from kvd.client.link import Link
from kvd.errors import (
    Conflict,
    TransactionExpired,
    Unavailable,
)
from kvd.testing import MemoryServer
from tests.support.client import add_one, connections, outcome_of


def test_a_connection_is_used_again_only_when_its_transaction_has_surely_ended(server: MemoryServer) -> None:
    client = server.connect(retry_for=0, timeout=100)
    server.run(client.transact(add_one, "a"))
    assert connections(server, client) == (2, 2)

    server.conflict_at_next_commit()
    with pytest.raises(Conflict):
        server.run(client.transact(add_one, "a"))
    assert server.run(client.transact(add_one, "a")) == 2
    assert connections(server, client) == (2, 2)

    async def idle(txn: Transaction) -> None:
        await txn.put("a", "9")
        server.advance(70)

    with pytest.raises(TransactionExpired):
        server.run(client.transact(idle))
    assert server.run(client.transact(add_one, "a")) == 3
    assert connections(server, client) == (2, 2)

    server.store_delay = 40  # longer than the server waits for its store
    commit = outcome_of(client.transact(lambda txn: txn.put("b", "1")))
    with pytest.raises(AssertionError):
        server.run(Deferred(), limit=100)
    server.store_delay = 0
    assert type(commit[0]) is Unavailable  # START was refused, and that leaves a aborted transaction open
    server.advance(100)
    assert server.run(client.transact(add_one, "a")) == 4
    assert connections(server, client) == (2, 3)


def test_a_commit_that_is_cancelled_drops_its_connection(server: MemoryServer, client: Client) -> None:
    async def begin(txn: Transaction) -> None:
        await txn.put("a", "1")
        server.store_delay = 1

    committing = client.transact(begin)
    found = outcome_of(committing)
    server.flush()
    assert found == []
    committing.cancel()
    assert isinstance(found[0], CancelledError)
    server.store_delay = 0
    server.advance(2)
    assert server.run(client.get("a")) == "1"  # it had been accepted
    server.run(client.transact(add_one, "a"))
    assert connections(server, client) == (2, 3)


def test_transactions_wait_for_a_connection_in_order_and_a_cancelled_one_gives_up_its_place(
    server: MemoryServer,
) -> None:
    client = server.connect(pool=2)
    gates: dict[str, Deferred[None]] = {name: Deferred() for name in "abcde"}
    began: list[str] = []

    async def wait_at(txn: Transaction, name: str) -> None:
        began.append(name)
        await gates[name]

    running = {name: client.transact(wait_at, name) for name in "abcde"}
    server.flush()
    assert began == ["a", "b"]
    found = outcome_of(running["c"])
    running["c"].cancel()
    assert isinstance(found[0], CancelledError)
    gates["b"].callback(None)
    server.flush()
    assert began == ["a", "b", "d"]
    for name in "ade":
        gates[name].callback(None)
    server.flush()
    assert began == ["a", "b", "d", "e"]
    server.run(gatherResults([running[name] for name in "abde"]))
    assert connections(server, client) == (3, 3)


def test_connections_are_closed_in_the_order_in_which_they_were_made(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.connect(pool=20)
    made: list[int] = []
    closed: list[int] = []

    async def play(txn: Transaction) -> None:
        made.append(id(txn._link))
        await txn.get("a")

    server.run(gatherResults([client.transact(play) for _ in range(20)]))
    close = Link.close

    def closing(link: Link) -> None:
        closed.append(id(link))
        close(link)

    monkeypatch.setattr(Link, "close", closing)
    server.run(client.disconnect())
    assert closed == made


def test_a_closed_coroutine_gives_up_its_place(server: MemoryServer) -> None:
    client = server.connect(pool=1)

    async def play() -> None:
        async with client.transaction():
            pass

    async def hold() -> None:
        async with client.transaction():
            waiting = play()
            waiting.send(None)
            waiting.close()

    server.run(hold())
    assert server.run(client.transact(add_one, "a")) == 1


def test_a_transaction_inside_a_transaction_does_not_wait_for_ever_for_the_last_connection(
    server: MemoryServer,
) -> None:
    client = server.connect(pool=1)

    async def play() -> None:
        async with client.transaction(), client.transaction():
            pass

    with pytest.raises(Unavailable, match="all 1 connections for transactions were in use for 60 seconds"):
        server.run(play())
    assert server.run(client.transact(add_one, "a")) == 1


def test_a_connection_that_broke_while_it_was_idle_is_not_used(server: MemoryServer, client: Client) -> None:
    server.run(client.transact(add_one, "a"))
    server.lose_links()

    async def play() -> None:
        async with client.transaction() as txn:
            await add_one(txn, "a")

    server.run(play())
    assert server.run(client.get("a")) == "2"
