"""Histories written by hand, in short form."""

from __future__ import annotations

import re

from kvd.verify.check import Verdict, check
from kvd.verify.history import COMMITTED, History, Operation, Transaction


def tx(
    operations: str | list[Operation],
    *,
    client: int | None = None,
    outcome: str = COMMITTED,
    at: tuple[float, float] | None = None,
    started: float | None = None,
) -> Transaction:
    """A transaction.

    :param operations: the form in which Elle's tests write them: ``ax1`` appends 1 to x, ``ry12`` reads
        y as [1, 2], and ``ry`` reads it as empty; spaces may part them.
    :param at: when it was sent and answered; at the same time as all others if not given.
    """
    if isinstance(operations, str):
        operations = [
            Operation("append", key, int(digits)) if what == "a" else Operation("read", key, None, [*map(int, digits)])
            for what, key, digits in re.findall("([ar])([a-z])([0-9]*)", operations)
        ]
    begin, end = at or (0.0, 1000.0)
    return Transaction(0, -1 if client is None else client, begin, started, end, outcome, None, operations)


def history(*transactions: Transaction | str) -> History:
    """Transactions that ran all at the same time, each by a client of its own, unless they say otherwise."""
    made = History()
    for number, transaction in enumerate(transactions):
        transaction = tx(transaction) if isinstance(transaction, str) else transaction
        transaction.number = number
        if transaction.client == -1:
            transaction.client = 1000 + number
        made.transactions.append(transaction)
    return made


def in_turn(*transactions: Transaction | str) -> History:
    """A history of transactions one behind the other."""
    made = history(*transactions)
    for number, transaction in enumerate(made.transactions):
        transaction.invoked, transaction.completed = 2.0 * number, 2.0 * number + 1
    return made


def verdict(*transactions: Transaction | str) -> Verdict:
    """The verdict on transactions that ran all at the same time."""
    return check(history(*transactions))


def anomalies(*transactions: Transaction | str) -> set[str]:
    """The names of the anomalies among transactions that ran all at the same time."""
    return set(verdict(*transactions).times)
