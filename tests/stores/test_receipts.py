"""Receipts: for how long they are remembered, and what happens when there are too many."""

from __future__ import annotations

from math import inf

import pytest
from twisted.internet.task import Clock

from kvd.accounts import Account, Budget
from kvd.core.limits import Limits
from kvd.daemon.service import receipt_times
from kvd.errors import OutOfMemory, ReceiptUsed
from kvd.interfaces import Outcome, Receipt
from kvd.stores.memory.receipts import RECEIPT_BYTES, SHARE, Receipts


def receipts(clock: Clock, time: float = 100, least: float = 10, room_for: int = 0) -> Receipts:
    budget = Budget(room_for * RECEIPT_BYTES * SHARE)
    return Receipts(Account(budget.receipts), clock.seconds, (time, least))


def use(known: Receipts, name: str) -> None:
    receipt = Receipt(None, name)
    known.check(receipt)
    known.add(receipt, True, 0)


def outcome(known: Receipts, name: str) -> Outcome | None:
    found = known.known(Receipt(None, name))
    return found and found[0]


def test_a_receipt_is_remembered_for_its_time_and_kept_says_how_long() -> None:
    clock = Clock()
    known = receipts(clock)
    use(known, "a")
    clock.advance(60)
    assert outcome(known, "a") == Outcome(True, 60)
    clock.advance(40)
    use(known, "b")
    assert outcome(known, "a") == Outcome(True, 100)
    clock.advance(1)
    use(known, "c")
    assert outcome(known, "a") is None
    assert outcome(known, "b") == Outcome(True, 100)


def test_at_its_share_of_memory_the_oldest_receipts_go_and_kept_says_so() -> None:
    clock = Clock()
    known = receipts(clock, room_for=3)
    for name in ("a", "b", "c"):
        use(known, name)
        clock.advance(10)
    use(known, "d")
    assert outcome(known, "a") is None
    assert outcome(known, "d") == Outcome(True, 30)
    clock.advance(1)
    use(known, "e")
    assert outcome(known, "c") == Outcome(True, 21)


def test_a_receipt_that_a_transaction_may_still_need_is_not_forgotten_and_the_new_one_is_refused() -> None:
    clock = Clock()
    known = receipts(clock, room_for=2)
    use(known, "a")
    use(known, "b")
    clock.advance(10)
    with pytest.raises(OutOfMemory, match="COMMIT without one, or wait"):
        use(known, "c")
    clock.advance(0.5)
    use(known, "c")
    assert outcome(known, "a") is None
    assert outcome(known, "b") == Outcome(True, 10.5)


def test_what_receipts_take_is_held_and_given_back() -> None:
    clock = Clock()
    budget = Budget(0)
    known = Receipts(Account(budget.receipts), clock.seconds, (100, 10))
    for number in range(5):
        use(known, str(number))
    assert budget.receipts.used == budget.used == 5 * RECEIPT_BYTES
    clock.advance(101)
    use(known, "later")
    assert budget.used == RECEIPT_BYTES


def test_each_users_receipts_are_names_of_their_own() -> None:
    known = receipts(Clock())
    known.add(Receipt("ann", "r"), True, 0)
    assert known.known(Receipt("bob", "r")) is None
    known.check(Receipt("bob", "r"))
    with pytest.raises(ReceiptUsed, match="is used already"):
        known.check(Receipt("ann", "r"))


@pytest.mark.parametrize(
    ("receipt_time", "transaction_time", "times"),
    [
        (3600, 600, (3600, 600)),
        (60, 600, (600, 600)),  # no shorter than a transaction may live
        (0, 600, (inf, 600)),
        (3600, 0, (3600, 3600)),
        (0, 0, (inf, inf)),
    ],
)
def test_receipts_are_remembered_for_longer_than_a_transaction_may_live(
    receipt_time: float, transaction_time: float, times: tuple[float, float]
) -> None:
    assert receipt_times(Limits(receipt_time=receipt_time, transaction_time=transaction_time)) == times
