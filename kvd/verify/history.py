"""The record of what clients did to a server and what they were answered; made to be kept as JSON.

A history tells everything that the checks need, so that a report can be checked again later:

=============  ===========  ======================  ==================================================
verb           key          argument                result
=============  ===========  ======================  ==================================================
``read``       a key        –                       the list of elements that it held, empty if absent
``append``     a key        the element             –
``scan``       a prefix     –                       the keys under it
``count``      a prefix     ``[least, most]``, the  how many keys are under it
                            bounds that must hold,
                            or ``None``
``insert``     a key        its prefix              –
``delete``     a key        its prefix              –
``balances``   a bank       what they must sum to   account to balance, for every account of the bank
``deposit``    an account   the new balance, or     –
                            a text as ``"+5"``
``odd``        a request    –                       the reply, which the protocol does not have for it
``PUT``        a key        the value               –
``GET``        a key        –                       the value, or ``None``
``DEL``        a key        –                       –
``INCR``       a key        the delta               the sum, or ``None`` for NOT_A_NUMBER
``CAS``        a key        ``[expected, new]``     whether it was stored
=============  ===========  ======================  ==================================================

The lower-case verbs stand in transactions, and say what was meant, not which command did it; every
element is appended to a key once, and every key under a scanned prefix is inserted once. The
upper-case ones are plain commands, each recorded as a transaction of its own. A read that was not
answered is left out; a write is recorded when it is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import inf, nextafter
from time import monotonic
from typing import Any, Final, NamedTuple

COMMITTED: Final = "committed"
ROLLED_BACK: Final = "rolled back"
UNKNOWN: Final = "unknown"

WRITING: Final = frozenset(["append", "insert", "delete", "deposit", "PUT", "DEL", "INCR", "CAS"])


class Operation(NamedTuple):
    """One operation and its answer; the module's table says what stands where."""

    verb: str
    key: str
    argument: Any = None
    result: Any = None


@dataclass(slots=True)
class Transaction:
    """What one client did from START to COMMIT or ROLLBACK, or one plain command.

    :ivar number: its place in the history.
    :ivar client: who did it. Transactions of one client ran in the order in which it sent them, also if
        it sent the next before the last was answered.
    :ivar invoked: when it was sent, in seconds.
    :ivar started: when START was answered; ``None`` if it wasn't, and for a plain command.
    :ivar completed: when the outcome was known, or given up for unknown.
    :ivar outcome: committed, rolled back (also: refused), or unknown.
    :ivar code: the error code that it ended with, if any.
    """

    number: int
    client: int
    invoked: float
    started: float | None = None
    completed: float | None = None
    outcome: str = UNKNOWN
    code: str | None = None
    operations: list[Operation] = field(default_factory=list)

    @property
    def writes(self) -> bool:
        """Whether it tried to change anything."""
        return any(operation.verb in WRITING for operation in self.operations)


class History:
    """Transactions in the order in which they were begun.

    :param seconds: the clock. Where it stands still, as a clock in tests does, the history puts a hair's
        breadth between events, so that their order is never lost.
    """

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self.transactions: list[Transaction] = []
        self._seconds = seconds
        self._last = -1.0

    def now(self) -> float:
        """The time, in seconds, later than any that was asked for before."""
        self._last = max(self._seconds(), nextafter(self._last, inf))
        return self._last

    def begin(self, client: int) -> Transaction:
        """Record that a client is about to send a transaction."""
        transaction = Transaction(len(self.transactions), client, self.now())
        self.transactions.append(transaction)
        return transaction

    def started(self, transaction: Transaction) -> None:
        """Record that START was answered."""
        transaction.started = self.now()

    def end(self, transaction: Transaction, outcome: str, code: str | None = None) -> None:
        """Record that the outcome is known, or given up for unknown."""
        transaction.completed = self.now()
        transaction.outcome = outcome
        transaction.code = code

    def as_data(self) -> dict[str, Any]:
        """The history as plain data for JSON."""
        names = [field.name for field in fields(Transaction)]
        return {"transactions": [{name: getattr(each, name) for name in names} for each in self.transactions]}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> History:
        """A history out of what :meth:`as_data` made.

        :raise ValueError: it is none.
        """
        history = cls()
        try:
            for number, each in enumerate(data["transactions"]):
                operations = [Operation(*operation) for operation in each["operations"]]
                history.transactions.append(Transaction(**{**each, "number": number, "operations": operations}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a history: {error}") from error
        return history
