"""The bank check, on histories written by hand."""

from __future__ import annotations

import pytest

from kvd.verify.check import check
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, Operation
from tests.support.histories import history, tx


def balances(**accounts: int | str | None) -> Operation:
    return Operation("balances", "bank", 10, accounts)


def test_balances_that_sum_to_the_total_are_right() -> None:
    assert check(history(tx([balances(a=4, b=6)]), tx([balances(a=-1, b=11)]))).violations == []


@pytest.mark.parametrize("outcome", [COMMITTED, ROLLED_BACK, UNKNOWN])
def test_another_sum_is_told_whatever_became_of_the_transaction(outcome: str) -> None:
    found = check(history(tx([balances(a=4, b=6)]), tx([balances(a=4, b=5)], outcome=outcome)))
    assert found.times == {"bank": 1}
    assert found.violations[0].what == "T1 read balances of bank that sum to 9"
    assert found.violations[0].expected == "balances that sum to 10"


def test_a_transfer_in_the_making_is_not_summed() -> None:
    moving = [balances(a=4, b=6), Operation("deposit", "a", 3), balances(a=3, b=6), Operation("deposit", "b", 7)]
    assert check(history(tx(moving))).violations == []


def test_a_balance_that_is_no_number_is_told() -> None:
    assert check(history(tx([balances(a=10, b=None)]), tx([balances(a="10")]))).times == {"bank": 2}
