"""The account of memory: totals are the sum of what is held, and the largest goes first when a limit is passed."""

from __future__ import annotations

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from kvd.accounts import MIB, SPARE, Account, Budget
from kvd.core.limits import Limits
from kvd.testing.conversations import Server
from kvd.testing.stores import SlowStore


def _note(evicted: list[int], size: int, why: str) -> None:
    evicted.append(size)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1000))))
def test_totals_are_the_sums_of_what_is_held(actions: list[tuple[int, int]]) -> None:
    budget = Budget(0)
    accounts = [Account([budget.data, budget.transactions][number % 2]) for number in range(10)]
    for number, size in actions:
        accounts[number].set(size)
    assert budget.data.used == sum(account.held for account in accounts[::2])
    assert budget.transactions.used == sum(account.held for account in accounts[1::2])
    assert budget.used == budget.data.used + budget.transactions.used


@given(st.lists(st.integers(0, 40), min_size=1), st.integers(0, 200))
def test_the_largest_accounts_are_evicted_until_the_limit_holds(sizes: list[int], data: int) -> None:
    budget = Budget(64 * MIB)
    evicted: list[int] = []
    Account(budget.data).set(data * MIB)
    for size in sizes:
        account = Account(budget.transactions, partial(_note, evicted, size))
        account.set(size * MIB)
    budget.relieve()
    kept = sorted(sizes)[: len(sizes) - len(evicted)]
    most = max(0, 64 * MIB + SPARE - data * MIB)
    assert evicted == sorted(evicted, reverse=True) == sorted(sizes, reverse=True)[: len(evicted)]
    assert sum(kept) * MIB <= most or not any(kept)
    if evicted:
        assert (sum(kept) + evicted[-1]) * MIB > most


def test_a_closed_account_holds_nothing_and_is_never_evicted() -> None:
    budget = Budget(MIB)
    evicted: list[str] = []
    account = Account(budget.buffers, evicted.append)
    account.set(5)
    account.close()
    assert (budget.used, budget.buffers.used) == (0, 0)
    account.set(100 * MIB)
    budget.relieve()
    assert evicted == []


def test_a_commit_under_way_stays_accounted_for_until_it_is_done() -> None:
    clock = Clock()
    server = Server(SlowStore(clock), clock, Limits(memory=64 * MIB))
    budget = server.service.core.budget
    client = server.client()
    client.exchange(b"START\nPUT a " + b"x" * 100_000 + b"\n")
    held = budget.transactions.used
    assert held > 100_000
    client.protocol.dataReceived(b"COMMIT\n")
    assert budget.transactions.used == held
    server.settle()
    assert budget.transactions.used == 0


def test_a_commit_whose_client_has_left_stays_accounted_for_until_it_is_done() -> None:
    clock = Clock()
    server = Server(SlowStore(clock), clock)
    budget = server.service.core.budget
    client = server.client()
    client.exchange(b"START\nPUT a " + b"x" * 100_000 + b"\n")
    client.protocol.dataReceived(b"COMMIT\n")
    client.transport.loseConnection()
    assert budget.transactions.used > 100_000
    clock.advance(1)
    assert budget.transactions.used == 0
    server.play(f'2 GET a -> "{"x" * 100_000}"')
