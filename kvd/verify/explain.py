"""Violations, told so that a person can follow them: who did what, and why no order explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvd.verify.graph import RW, WR, Cycle, Step
from kvd.verify.history import Operation, Transaction

ANOMALIES: Final = {
    "odd-reply": "a reply that the protocol does not allow for the request",
    "garbage-read": "something was read that nobody wrote",
    "duplicate-elements": "an element is in a list twice, but was appended once",
    "internal": "a transaction did not see its own writes, or read the same thing twice with different results",
    "incompatible-order": "two reads of a key show its elements in orders that contradict each other",
    "G1a": "aborted read: a transaction that was rolled back was seen",
    "G1b": "intermediate read: some writes of a transaction were seen without the rest",
    "G0": "write cycle: the writes of transactions were interleaved",
    "G1c": "circular information flow: each transaction wrote before the other",
    "lost-update": "two transactions read the same version of a key, and both changed it",
    "G-single": "read skew: a transaction saw one thing as it was before a commit, and another as it was after it",
    "G-nonadjacent": "a cycle with several reads that missed a write, no two of them in a row",
    "G2-item": "write skew: each of several transactions missed what another one wrote, and all were committed",
    "G2": "phantom: each of several transactions missed what another one added to or removed from the range it read",
    "late-snapshot": "a transaction saw a commit that was sent only after the reply to its START",
    "bound": "the number of keys went out of the bounds that every transaction kept",
    "bank": "the balances do not have the sum that every transaction kept",
    "linearizability": "no order of the commands on a key explains their replies",
}
"""What each anomaly is, the most severe first. A name may also end in ``-process`` or ``-realtime``."""

ORDERS: Final = {
    "-process": "; it shows in the order in which one client sent its transactions",
    "-realtime": "; it shows in real time: one was over before the other began",
}

REASONS: Final = {
    "ww": "{b} appended {other} to {key} after {seen}, which {a} had appended",
    "wr": "{b} read {seen} in {key}, which {a} had appended",
    "rw": "{a} read {key} up to {seen}, without {other}, which {b} appended",
    "rw-empty": "{a} read {key} as empty, without {other}, which {b} appended",
    "wr-prefix": "{b} saw {seen} under {key}, which {a} had inserted",
    "rw-prefix": "{a} did not see {other} under {key}, which {b} inserted",
    "rw-prefix-deleted": "{a} still saw {other} under {key}, which {b} deleted",
    "wr-prefix-deleted": "{b} no longer saw {seen} under {key}, which {a} had deleted",
    "wr-prefix-count": "{b} found {other} keys under {key}, and there were {seen} after {a}",
    "rw-prefix-count": "{a} found {seen} keys under {key}, and {b} found {other} before its own insert",
    "process": "client {client} sent {a} first, and then {b}",
    "realtime": "{a} was over at {a_end}, and {b} was sent at {b_begin}",
}
"""Why ``a`` must have come before ``b``, by :attr:`kvd.verify.graph.Because.reason`."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken.

    :ivar anomaly: its name, from :data:`ANOMALIES`.
    :ivar what: what happened, in one sentence.
    :ivar transactions: the numbers of the transactions involved.
    :ivar steps: why no order explains it, one sentence each.
    :ivar expected: what should have been seen.
    """

    anomaly: str
    what: str
    transactions: tuple[int, ...]
    steps: tuple[str, ...]
    expected: str


def severity(anomaly: str) -> tuple[int, int]:
    """A sort key: the most severe first, and what shows without real time before what needs it."""
    for order, suffix in enumerate(ORDERS, 1):
        if anomaly.endswith(suffix):
            return order, _RANKS[anomaly.removesuffix(suffix)]
    return 0, _RANKS[anomaly]


_RANKS: Final = {anomaly: rank for rank, anomaly in enumerate(ANOMALIES)}


def meaning(anomaly: str) -> str:
    """What the name of an anomaly means."""
    for suffix, words in ORDERS.items():
        if anomaly.endswith(suffix):
            return ANOMALIES[anomaly.removesuffix(suffix)] + words
    return ANOMALIES[anomaly]


def from_cycle(cycle: Cycle, transactions: Sequence[Transaction]) -> Violation:
    """The violation that a cycle is."""
    numbers = tuple(step.before for step in cycle.steps)
    steps = tuple(
        f"{name(step.before)} came before {name(step.after)}: {_why(step, transactions)}." for step in cycle.steps
    )
    what = f"{listed([name(number) for number in numbers])} can't be put in any order"
    return Violation(cycle.anomaly, what, numbers, steps, _expected(cycle.steps))


def _why(step: Step, transactions: Sequence[Transaction]) -> str:
    before, after = transactions[step.before], transactions[step.after]
    return REASONS[step.because.reason].format(
        a=name(step.before),
        b=name(step.after),
        key=step.because.key,
        seen=shown(step.because.seen),
        other=shown(step.because.other),
        client=before.client,
        a_end=_time(before.started if not before.writes and before.started is not None else before.completed),
        b_begin=_time(after.invoked),
    )


def _expected(steps: list[Step]) -> str:
    missed = [step for step in steps if step.kind == RW]
    if len(missed) == 1:
        reader, writer = name(missed[0].before), name(missed[0].after)
        return (
            f"the other steps put {writer} before {reader}, so {reader} should have seen what {writer} wrote, "
            f"or its COMMIT should have been refused with CONFLICT"
        )
    if missed:
        readers = listed([name(step.before) for step in missed])
        return f"at least one of {readers} should have been refused with CONFLICT"
    for step in steps:
        if step.kind == WR:
            return (
                f"the other steps put {name(step.after)} before {name(step.before)}, "
                f"so {name(step.after)} should not have seen what {name(step.before)} wrote"
            )
    return "all writes of one transaction should have come before all writes of the next"


def late_snapshot(writer: int, reader: int, seen: str) -> Violation:
    """The violation of a transaction that saw what was sent only after the reply to its START."""
    what = (
        f"{name(reader)} saw {seen}, of {name(writer)}, which was sent after the reply to the START of {name(reader)}"
    )
    expected = f"everything as it was at the START of {name(reader)}"
    return Violation("late-snapshot", what, (writer, reader), (), expected)


def text(violation: Violation, transactions: Sequence[Transaction]) -> str:
    """A violation as text for people, in several lines."""
    lines = [
        f"{violation.anomaly}: {violation.what}.",
        f"  What that means: {meaning(violation.anomaly)}.",
        "  What the clients did, in the order in which they began:",
    ]
    involved = [transactions[number] for number in violation.transactions]
    for transaction in sorted(involved, key=lambda each: (each.invoked, each.number)):
        lines += [f"    {line}" for line in story(transaction)]
    if violation.steps:
        lines.append("  Why no order explains it:")
        lines += [f"    {place}. {step}" for place, step in enumerate(violation.steps, 1)]
    lines.append(f"  What should have been seen: {violation.expected}.")
    return "\n".join(lines)


def as_data(violation: Violation, transactions: Sequence[Transaction]) -> dict[str, Any]:
    """A violation as data for JSON."""
    return {
        "anomaly": violation.anomaly,
        "meaning": meaning(violation.anomaly),
        "what": violation.what,
        "transactions": list(violation.transactions),
        "story": [line for number in violation.transactions for line in story(transactions[number])],
        "steps": list(violation.steps),
        "expected": violation.expected,
    }


def story(transaction: Transaction) -> list[str]:
    """What a transaction did: a line about who and when, and a line for each operation."""
    end = "never answered" if transaction.completed is None else f"to {_time(transaction.completed)}"
    outcome = transaction.outcome + (f" ({transaction.code})" if transaction.code else "")
    began = f", started by {_time(transaction.started)}" if transaction.started is not None else ""
    head = (
        f"{name(transaction.number)}: client {transaction.client}, {_time(transaction.invoked)} {end}{began}: {outcome}"
    )
    return [head, *(f"    {_told(operation)}" for operation in transaction.operations)]


def name(number: int) -> str:
    """The name of a transaction."""
    return f"T{number}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def shown(value: Any) -> str:
    """A value as text; the middle of a long list is left out."""
    if isinstance(value, list | tuple):
        if len(value) > 10:
            first, last = (", ".join(map(repr, part)) for part in (value[:3], value[-5:]))
            return f"[{first}, ... {len(value) - 8} more ..., {last}]"
        return repr(list(value))
    return repr(value)


_TOLD: Final = {
    "read": "read {key}: {result}",
    "append": "append {argument} to {key}",
    "scan": "scan {key}: {result}",
    "count": "count {key}: {result}",
    "insert": "insert {key}",
    "delete": "delete {key}",
    "balances": "balances of {key}: {result}",
    "deposit": "set the balance of {key} to {argument}",
    "GET": "GET {key}: {result}",
    "PUT": "PUT {key} {argument}",
    "DEL": "DEL {key}",
    "INCR": "INCR {key} {argument}: {result}",
    "CAS": "CAS {key} {argument}: {result}",
    "odd": "{key} got the reply {result}",
}


def _told(operation: Operation) -> str:
    return _TOLD[operation.verb].format(
        key=operation.key, argument=shown(operation.argument), result=shown(operation.result)
    )


def _time(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds:.6f} s"
