"""The bank check: transfers only move money, so all balances always have the same sum.

This holds for every transaction that read all accounts before it changed any, including those that were read-only
or were refused later: a transaction reads from one snapshot.
"""

from __future__ import annotations

from kvd.verify.explain import Violation, name
from kvd.verify.history import History


def check(history: History) -> list[Violation]:
    """Find transactions whose balances have another sum; the violations, in the order of the history."""
    violations = []
    for transaction in history.transactions:
        for operation in transaction.operations:
            if operation.verb == "deposit":
                break
            if operation.verb == "balances":
                balances = operation.result.values()
                total = (
                    sum(balances)
                    if all(isinstance(balance, int) for balance in balances)
                    else "something that is not a number"
                )
                if total != operation.argument:
                    what = f"{name(transaction.number)} read balances of {operation.key} that sum to {total}"
                    expected = f"balances that sum to {operation.argument}"
                    violations.append(Violation("bank", what, (transaction.number,), (), expected))
    return violations
