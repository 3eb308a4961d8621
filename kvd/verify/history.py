"""The record of what clients did, and of the replies; it can be kept as JSON.

A history holds everything that the checks need, so that a report can be checked again later:

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
``balances``   a bank       what they must sum to   balances by account, of every account
``deposit``    an account   the new balance, or     –
                            a text like ``"+5"``
``odd``        a request    –                       the reply, which the protocol does not allow
``PUT``        a key        the value               –
``GET``        a key        –                       the value, or ``None``
``DEL``        a key        –                       –
``INCR``       a key        the delta               the sum, or ``None`` for NOT_A_NUMBER
``CAS``        a key        ``[expected, new]``     whether it was stored
=============  ===========  ======================  ==================================================

The lower-case verbs are used in transactions, and say what was meant, not which command did it. Every element
is appended to a key once, and every key under a scanned prefix is inserted once. The upper-case verbs are
plain commands, each recorded as a transaction of its own. A read without a reply is left out; a write is
recorded when it is sent.
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
    """One operation and its result, as in the table above."""

    verb: str
    key: str
    argument: Any = None
    result: Any = None


@dataclass(slots=True)
class Transaction:
    """What one client did from START to COMMIT or ROLLBACK, or one plain command.

    :ivar number: its place in the history.
    :ivar client: the number of the client. Its transactions ran in the order in which it sent them, even if it
        sent one before the reply to the last.
    :ivar invoked: when it was sent, in seconds.
    :ivar started: when the reply to START came; ``None`` if it did not, and for a plain command.
    :ivar completed: when the outcome was known, or was recorded as unknown.
    :ivar outcome: committed, rolled back (or refused), or unknown.
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
    """Transactions, in the order in which they began.

    :param seconds: the clock. If it stands still, as a clock in a test may, the history puts the smallest possible
        time between two events, so that their order is never lost.
    """

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self.transactions: list[Transaction] = []
        self._seconds = seconds
        self._last = -1.0

    def now(self) -> float:
        """The time in seconds, later than at any earlier call."""
        self._last = max(self._seconds(), nextafter(self._last, inf))
        return self._last

    def begin(self, client: int) -> Transaction:
        """Record that a client is about to send a transaction."""
        transaction = Transaction(len(self.transactions), client, self.now())
        self.transactions.append(transaction)
        return transaction

    def started(self, transaction: Transaction) -> None:
        """Record the reply to START."""
        transaction.started = self.now()

    def end(self, transaction: Transaction, outcome: str, code: str | None = None) -> None:
        """Record the outcome."""
        transaction.completed = self.now()
        transaction.outcome = outcome
        transaction.code = code

    def as_data(self) -> dict[str, Any]:
        """The history as data for JSON."""
        names = [field.name for field in fields(Transaction)]
        return {"transactions": [{name: getattr(each, name) for name in names} for each in self.transactions]}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> History:
        """The history that :meth:`as_data` was called on.

        :raise ValueError: the data is not a history.
        """
        history = cls()
        try:
            for number, each in enumerate(data["transactions"]):
                operations = [Operation(*operation) for operation in each["operations"]]
                history.transactions.append(Transaction(**{**each, "number": number, "operations": operations}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a history: {error}") from error
        return history
