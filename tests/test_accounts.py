"""The account of memory: totals are the sum of what is held, and the largest goes first when a limit is passed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from kvd.accounts import MIB, Account, Budget, Share, spare
from kvd.core.limits import Limits
from kvd.errors import OutOfMemory
from kvd.testing.conversations import Server
from kvd.testing.stores import SlowStore


class Owner:
    """Keeps something, and gives it up when it is told to."""

    def __init__(self, share: Share, size: int, evicted: list[int]) -> None:
        self.account = Account(share, self.give_up)
        self.account.set(size)
        self._evicted = evicted

    def give_up(self, why: str) -> None:
        self._evicted.append(self.account.held)
        self.account.set(0)


SIZES = st.lists(st.integers(0, 40), min_size=1)


@given(SIZES, st.integers(0, 200))
def test_the_largest_accounts_are_evicted_until_all_of_it_is_within_the_limit(sizes: list[int], data: int) -> None:
    budget = Budget(640 * MIB)
    evicted: list[int] = []
    Account(budget.data).set(data * 8 * MIB)
    owners = [Owner(budget.transactions, size * MIB // 8, evicted) for size in sizes]
    budget.relieve()
    assert evicted == sorted(evicted, reverse=True)
    assert not evicted or min(evicted) >= max(owner.account.held for owner in owners)
    assert budget.used <= 640 * MIB + spare(640 * MIB) or budget.transactions.used == 0
    assert not evicted or budget.used + evicted[-1] > 640 * MIB + spare(640 * MIB)


@given(st.sampled_from(["transactions", "buffers"]), SIZES)
def test_no_kind_takes_more_than_a_quarter(name: str, sizes: list[int]) -> None:
    budget = Budget(64 * MIB)
    evicted: list[int] = []
    others: list[int] = []
    share = getattr(budget, name)
    Owner(budget.buffers if name == "transactions" else budget.transactions, 8 * MIB, others)
    owners = [Owner(share, size * MIB, evicted) for size in sizes]
    budget.relieve()
    assert share.used <= 16 * MIB + spare(64 * MIB)
    assert not evicted or share.used + evicted[-1] > 16 * MIB + spare(64 * MIB)
    assert not evicted or min(evicted) >= max(owner.account.held for owner in owners)
    assert others == []


def test_who_wants_to_store_something_gets_room_from_the_largest_first() -> None:
    budget = Budget(64 * MIB)
    evicted: list[int] = []
    Account(budget.data).set(41 * MIB)
    for size in (1, 9, 3, 4, 2):
        Owner(budget.transactions, size * MIB, evicted)
    budget.make_room(2 * MIB)
    assert evicted == [9 * MIB]
    budget.make_room(12 * MIB)
    assert evicted == [9 * MIB, 4 * MIB]
    with pytest.raises(OutOfMemory):  # what is left is an eighth of the limit, and stays
        budget.make_room(40 * MIB)
    assert evicted == [9 * MIB, 4 * MIB]


def test_what_can_not_be_evicted_now_is_not_tried_for_ever() -> None:
    budget = Budget(16 * MIB)
    stubborn = Account(budget.transactions, lambda why: None)
    stubborn.set(100 * MIB)
    budget.relieve()
    with pytest.raises(OutOfMemory):
        budget.make_room(1)
    assert stubborn.held == 100 * MIB


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
