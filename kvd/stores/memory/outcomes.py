"""What OUTCOME answers: it waits for a COMMIT under way, and settles what never was."""

from __future__ import annotations

from collections.abc import Generator

from kvd.interfaces import Later, Outcome, Receipt
from kvd.stores.memory.data import Data


def outcome_of(data: Data, receipt: Receipt) -> Outcome | Later[Outcome]:
    """What became of the COMMIT with a receipt; if there was none, none will ever succeed."""
    if data.receipts.is_under_way(receipt):
        return Later(_once_it_is_done(data, receipt))
    return _settled(data, receipt)


def _once_it_is_done(data: Data, receipt: Receipt) -> Generator[None, None, Outcome]:
    while data.receipts.is_under_way(receipt):
        yield None
    return _settled(data, receipt)


def _settled(data: Data, receipt: Receipt) -> Outcome:
    known = data.receipts.known(receipt)
    if known is None:
        data.settle(receipt, 0)
        return Outcome(False, data.receipts.kept())
    outcome, number = known
    if number > data.unsynced.durable:
        data.sees(number)
    return outcome
