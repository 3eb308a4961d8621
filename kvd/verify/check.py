"""All checks over one history, and their verdict."""

from __future__ import annotations

from typing import Any, NamedTuple

from kvd.verify import bank, registers
from kvd.verify.appends import Appends
from kvd.verify.explain import Violation, as_data, from_cycle, name, severity, text
from kvd.verify.graph import Graph
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History
from kvd.verify.predicates import Predicates


class Verdict(NamedTuple):
    """What the checks found.

    :ivar violations: one of each anomaly, the one with the fewest transactions; those that are easy to follow
        come first, and among these the most severe.
    :ivar times: how often each anomaly was found; of cycles, only the shortest is counted.
    :ivar undecided: the keys of plain commands for which the search was given up.
    :ivar outcomes: how many transactions and plain commands had each outcome.
    """

    violations: list[Violation]
    times: dict[str, int]
    undecided: list[str]
    outcomes: dict[str, int]


def check(history: History) -> Verdict:
    """Run all checks.

    :raise ValueError: the history can't be checked: an element was appended twice, or a key inserted twice.
    """
    transactions = history.transactions
    appends, predicates = Appends(history), Predicates(history)
    committed = {each.number for each in transactions if each.outcome == COMMITTED}
    graph = Graph(transactions, committed | appends.seen() | predicates.seen())
    found = [*appends.infer(graph), *predicates.infer(graph)]
    graph.add_order()
    found += [from_cycle(cycle, transactions) for cycle in graph.cycles()]
    found += bank.check(history)
    found += _odd_replies(history)
    wrong, undecided = registers.check(history)
    found += wrong
    shortest: dict[str, Violation] = {}
    times: dict[str, int] = {}
    for violation in sorted(found, key=_plainness):
        shortest.setdefault(violation.anomaly, violation)
        times[violation.anomaly] = times.get(violation.anomaly, 0) + 1
    outcomes = [each.outcome for each in transactions]
    counts = {outcome: outcomes.count(outcome) for outcome in (COMMITTED, ROLLED_BACK, UNKNOWN)}
    return Verdict(list(shortest.values()), times, undecided, counts)


def _odd_replies(history: History) -> list[Violation]:
    return [
        Violation(
            "odd-reply",
            f"{name(transaction.number)} sent {operation.key} and got the reply {operation.result}",
            (transaction.number,),
            (),
            "a reply that docs/protocol.md describes for this request",
        )
        for transaction in history.transactions
        for operation in transaction.operations
        if operation.verb == "odd"
    ]


def _plainness(violation: Violation) -> tuple[bool, tuple[int, int], int]:
    number = len(violation.transactions)
    return number > 4, severity(violation.anomaly), number


def report(history: History, verdict: Verdict) -> dict[str, Any]:
    """The verdict and the history as data for JSON; :meth:`History.from_data` reads the history back."""
    return {
        "valid": not verdict.violations,
        "violations": [as_data(violation, history.transactions) for violation in verdict.violations],
        "times": verdict.times,
        "undecided": verdict.undecided,
        "outcomes": verdict.outcomes,
        **history.as_data(),
    }


def told(history: History, verdict: Verdict) -> str:
    """The violations as text for people; empty if there are none."""
    return "\n\n".join(text(violation, history.transactions) for violation in verdict.violations)
