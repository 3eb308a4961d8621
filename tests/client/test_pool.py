"""The Deferred client: the pool of connections that transactions lease."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from kvd.client import Client, Transaction
from kvd.client.link import Link
from kvd.errors import Conflict, InTransaction, TransactionExpired, Unavailable
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
    made = [id(client._shared.link)]
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
    over: Deferred[None] = Deferred()

    async def play() -> None:
        async with client.transaction():
            await over

    holding = client.transact(lambda txn: over)
    server.flush()
    waiting = play()
    waiting.send(None)
    waiting.close()
    over.callback(None)
    server.run(holding)
    assert server.run(client.transact(add_one, "a")) == 1


def test_a_coroutine_that_is_closed_just_when_its_turn_has_come_gives_it_up(server: MemoryServer) -> None:
    client = server.connect(pool=1)
    over: Deferred[None] = Deferred()

    async def play() -> None:
        async with client.transaction():
            pass

    holding = client.transact(lambda txn: over)
    server.flush()
    waiting = play()
    waiting.send(None)
    over.callback(None)
    server.run(holding)  # the turn is granted; but nobody has told the coroutine
    waiting.close()
    assert server.run(client.transact(add_one, "a")) == 1


def test_a_transaction_inside_another_has_a_connection_of_its_own_while_there_is_one(server: MemoryServer) -> None:
    client = server.connect(pool=2)

    async def outer(txn: Transaction) -> None:
        await txn.put("a", "1")
        assert await client.transact(add_one, "b") == 1
        raise LookupError

    with pytest.raises(LookupError):
        server.run(client.transact(outer))
    assert server.run(client.mget("a", "b")) == [None, "1"]


@pytest.mark.parametrize("size", [1, 3])
def test_transactions_inside_transactions_are_refused_at_once_when_the_pool_is_empty(
    server: MemoryServer, size: int
) -> None:
    client = server.connect(pool=size)

    async def outer(txn: Transaction, gate: Deferred[None]) -> int:
        await txn.get("a")
        await gate
        return await client.transact(add_one, "a")

    gates: list[Deferred[None]] = [Deferred() for _ in range(size)]
    found = [outcome_of(client.transact(outer, gate)) for gate in gates]
    server.flush()
    for gate in gates:
        gate.callback(None)
    began = server.clock.seconds()
    server.advance(1)
    assert [type(error) for (error,) in found][:1] == [InTransaction]
    assert f"all {size} of the pool are in use" in str(found[0][0])
    assert server.clock.seconds() - began == 1
    assert server.run(client.transact(add_one, "b")) == 1


def test_a_transaction_after_another_one_is_not_inside_it(server: MemoryServer) -> None:
    client = server.connect(pool=1)

    async def play() -> None:
        for number in (1, 2):
            async with client.transaction() as txn:
                await add_one(txn, "a")
            assert await client.transact(add_one, "b") == number

    server.run(gatherResults([Deferred.fromCoroutine(play())]))
    assert server.run(client.get("a")) == "2"


def test_transactions_of_two_clients_are_not_inside_each_other(server: MemoryServer) -> None:
    one, other = server.connect(pool=1), server.connect(pool=1)
    over: Deferred[None] = Deferred()

    async def outer(txn: Transaction) -> int:
        return await other.transact(add_one, "a")

    holding = other.transact(lambda txn: over)
    server.flush()
    waiting = outcome_of(one.transact(outer))
    server.advance(10)
    assert waiting == []
    over.callback(None)
    server.run(holding)
    server.flush()
    assert waiting == [1]


def test_three_hundred_that_wait_while_connecting_fails_at_once_lose_no_turn(server: MemoryServer) -> None:
    client = server.connect(pool=10, retry_for=0, wait=0.001)
    over: Deferred[None] = Deferred()
    holding = [outcome_of(client.transact(lambda txn: over)) for _ in range(10)]
    server.flush()
    waiting = [outcome_of(client.transact(add_one, "a")) for _ in range(300)]
    server.reachable = False
    server.lose_links()
    over.callback(None)
    server.advance(59)
    assert [type(error) for (error,) in holding] == [Unavailable] * 10
    assert [type(error) for (error,) in waiting] == [Unavailable] * 300
    server.reachable = True
    server.advance(5)
    gate: Deferred[None] = Deferred()

    async def at_gate(txn: Transaction) -> None:
        await gate

    again = [client.transact(at_gate) for _ in range(10)]
    server.flush()
    assert server.run(client.info("transactions"))["open"] == 10
    gate.callback(None)
    server.run(gatherResults(again))


def test_a_connection_that_broke_while_it_was_idle_is_not_used(server: MemoryServer, client: Client) -> None:
    server.run(client.transact(add_one, "a"))
    server.lose_links()

    async def play() -> None:
        async with client.transaction() as txn:
            await add_one(txn, "a")

    server.run(play())
    assert server.run(client.get("a")) == "2"
