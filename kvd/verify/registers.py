"""The check of plain commands: for each key, does an order of PUT, GET, DEL, INCR and CAS explain all replies?

That is linearizability, which is local: a history is linearizable if each key is (Herlihy and Wing,
"Linearizability: A Correctness Condition for Concurrent Objects", 1990). The search is that of Wing and
Gong ("Testing and Verifying Concurrent Objects", 1993); like Lowe ("Testing for Linearizability", 2017), it
remembers the configurations that led nowhere. A command of unknown outcome may take effect at any time after it
was sent, or never. Commands that one client sent without waiting ran in the order sent; that is checked for each
key separately.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import inf
from typing import Any, Final, NamedTuple

from kvd.verify.explain import Violation, listed, name, shown
from kvd.verify.history import COMMITTED, ROLLED_BACK, History

VERBS: Final = frozenset(["PUT", "GET", "DEL", "INCR", "CAS"])
CONFIGURATIONS: Final = 50_000
"""The most configurations that one search tries; after that, a key is left undecided."""


class Command(NamedTuple):
    """One plain command.

    :ivar end: when its reply came, in seconds; infinite if its outcome is unknown.
    """

    number: int
    client: int
    begin: float
    end: float
    verb: str
    argument: Any
    result: Any


class Undecided(Exception):
    """The search was given up."""


def check(history: History) -> tuple[list[Violation], list[str]]:
    """Check every key.

    :return: the violations, and the keys for which the search was given up.
    """
    by_key: dict[str, list[Command]] = defaultdict(list)
    for transaction in history.transactions:
        for verb, key, argument, result in transaction.operations:
            if verb in VERBS and transaction.outcome != ROLLED_BACK:
                known = transaction.outcome == COMMITTED and transaction.completed is not None
                end = transaction.completed if known and transaction.completed is not None else inf
                if known or verb != "GET":
                    by_key[key].append(
                        Command(
                            transaction.number, transaction.client, transaction.invoked, end, verb, argument, result
                        )
                    )
    violations, undecided = [], []
    for key, commands in by_key.items():
        commands.sort(key=lambda command: (command.begin, command.number))
        try:
            if _linearize(commands) is None:
                violations.append(_explain(key, commands))
        except Undecided:
            undecided.append(key)
    return violations, undecided


def apply(state: str | None, command: Command, *, answered: bool) -> tuple[bool, str | None]:
    """Run a command on a value.

    :param answered: whether its reply is known, and must fit.
    :return: whether it fits here, and the value after it.
    """
    argument, result = command.argument, command.result
    match command.verb:
        case "PUT":
            return True, argument
        case "DEL":
            return True, None
        case "GET":
            return result == state, state
        case "CAS":
            holds = state == argument[0]
            return not answered or holds == result, argument[1] if holds else state
    total = _sum(state, argument)
    return not answered or total == result, state if total is None else str(total)


def _sum(state: str | None, delta: int) -> int | None:
    """What INCR answers; ``None`` for NOT_A_NUMBER."""
    digits = "0" if state is None else state
    if not (digits.isascii() and digits.removeprefix("-").isdigit()):
        return None
    total = int(digits) + delta
    return total if -(2**63) <= int(digits) < 2**63 and -(2**63) <= total < 2**63 else None


class Configuration(NamedTuple):
    """How far a search has come.

    :ivar low: all answered commands before this index are placed.
    :ivar placed: which of those from there on are placed, as bits.
    :ivar unknown: which unanswered ones are placed, as bits.
    :ivar state: the value now.
    """

    low: int
    placed: int
    unknown: int
    state: str | None


class _Search:
    def __init__(self, commands: list[Command]) -> None:
        self.answered = [command for command in commands if command.end < inf]
        self.unknown = [command for command in commands if command.end == inf]
        # The index of the last answered command that the same client sent before; -1: none. After an unanswered
        # one, the client may have come back on a new connection, so that gives no order.
        latest: dict[int, int] = {}
        before: dict[int, int] = {}
        index = 0
        for command in commands:
            before[command.number] = latest.get(command.client, -1)
            if command.end < inf:
                latest[command.client] = index
                index += 1
        self.before = [before[command.number] for command in self.answered]
        self.unknown_before = [before[command.number] for command in self.unknown]

    def following(self, at: Configuration) -> Iterator[tuple[Configuration, Command]]:
        """Every way to place one more command; answered ones first, because the others need not happen."""
        low, placed, unknown, state = at
        answered = self.answered
        open_ones: list[int] = []
        first_end = inf
        for index in range(low, len(answered)):
            if answered[index].begin > first_end:
                break
            if not placed >> (index - low) & 1:
                open_ones.append(index)
                first_end = min(first_end, answered[index].end)
        ways = []
        for index in open_ones:
            command, before = answered[index], self.before[index]
            if command.begin <= first_end and (before < low or placed >> (before - low) & 1):
                fits, value = apply(state, command, answered=True)
                if fits:
                    bits, now_low = placed | 1 << (index - low), low
                    while bits & 1:
                        bits >>= 1
                        now_low += 1
                    way = Configuration(now_low, bits, unknown, value), command
                    if command.verb == "GET" or command.result is False:
                        # What changes nothing may as well come now: no other way has to be tried.
                        yield way
                        return
                    ways.append(way)
        yield from ways
        alike = set()
        for index, command in enumerate(self.unknown):
            if command.begin > first_end:
                break
            before = self.unknown_before[index]
            if not unknown >> index & 1 and (before < low or placed >> (before - low) & 1):
                _, value = apply(state, command, answered=False)
                same = (command.verb, str(command.argument))  # of two equal ones, the earlier will do
                if value != state and same not in alike:
                    alike.add(same)
                    yield Configuration(low, placed, unknown | 1 << index, value), command


def _linearize(commands: list[Command]) -> list[Command] | None:
    """An order that explains every reply, or ``None``.

    :raise Undecided: the search took too long.
    """
    search = _Search(commands)
    start = Configuration(0, 0, 0, None)
    # For the answered commands that were placed, and the value that they led to: which unanswered ones were placed.
    # If one way to get there led nowhere, so does a way that has used the same unanswered ones and more.
    tried: dict[tuple[int, int, str | None], list[int]] = defaultdict(list)
    tries = 0
    order: list[Command] = []
    stack = [search.following(start)]
    if not search.answered:
        return order
    while stack:
        for configuration, command in stack[-1]:
            low, placed, unknown, state = configuration
            used = tried[low, placed, state]
            if not any(each & unknown == each for each in used):
                order.append(command)
                if configuration.low == len(search.answered):
                    return order
                tries += 1
                if tries == CONFIGURATIONS:
                    raise Undecided
                used.append(unknown)
                stack.append(search.following(configuration))
                break
        else:
            stack.pop()
            if order:
                order.pop()
    return None


def _explain(key: str, commands: list[Command]) -> Violation:
    """Find the first reply that can't be explained, and tell what happened around it."""
    ends = sorted(command.end for command in commands if command.end < inf)
    fine, wrong = 0, len(ends)  # how many replies can be explained, and how many can't
    while wrong - fine > 1:
        middle = (fine + wrong) // 2
        if _is_wrong(_until(ends[middle - 1], commands)):
            wrong = middle
        else:
            fine = middle
    commands = _until(ends[wrong - 1], commands)
    culprit = next(command for command in commands if command.end == ends[wrong - 1])
    order = _any_order(_until(ends[wrong - 2], commands)) if wrong > 1 else []
    state: str | None = None
    for command in order:
        _, state = apply(state, command, answered=command.end <= culprit.end)
    near = [command for command in order if command is not culprit][-4:]
    beside = [
        each for each in commands if each.number != culprit.number and each.end > culprit.begin and each not in near
    ]
    what = f"no order of the commands on {key} explains the reply to {_told(culprit)}"
    steps = [
        f"Before that reply, everything can be explained; the last commands are "
        f"{listed([_told(each) for each in near])}, which leaves {key} at {shown(state)}."
        if near
        else f"Before that reply, {key} was absent."
    ]
    if beside:
        steps.append(f"At the same time, there were {listed([_told(each) for each in beside[:6]])}.")
    steps.append(
        f"Wherever {name(culprit.number)} is placed between its request and its reply, {key} held something else."
    )
    numbers = [each.number for each in near] + [each.number for each in beside[:6]] + [culprit.number]
    answers = [shown(each.result) for each in _other_answers(culprit, commands, order)]
    expected = (
        f"{name(culprit.number)} answered with {' or '.join(answers) or 'a value that the key held at that time'}"
    )
    return Violation("linearizability", what, tuple(dict.fromkeys(numbers)), tuple(steps), expected)


def _other_answers(culprit: Command, commands: list[Command], order: list[Command]) -> list[Command]:
    """The same command with each other reply that could be explained, among those that its neighbours make likely."""
    state: str | None = None
    values: dict[str | None, None] = {}
    for command in order:
        _, state = apply(state, command, answered=False)
        values[state] = None
    values = dict.fromkeys([*list(values)[-8:], state])
    for command in commands:
        if command.end > culprit.begin:
            values.update(dict.fromkeys(apply(value, command, answered=False)[1] for value in list(values)[-8:]))
    match culprit.verb:
        case "INCR":
            results: list[Any] = [_sum(value, culprit.argument) for value in values]
        case "CAS":
            results = [not culprit.result]
        case _:
            results = list(values)
    others = [culprit._replace(result=result) for result in dict.fromkeys(results) if result != culprit.result]
    likely = [[other if each is culprit else each for each in commands] for other in others[-8:]]
    return [other for other, changed in zip(others[-8:], likely, strict=True) if _any_order(changed)][:3]


def _is_wrong(commands: list[Command]) -> bool:
    """Whether it is certain that no order explains every reply."""
    try:
        return _linearize(commands) is None
    except Undecided:
        return False


def _any_order(commands: list[Command]) -> list[Command]:
    """An order that explains every reply; empty if none was found."""
    try:
        return _linearize(commands) or []
    except Undecided:
        return []


def _until(end: float, commands: list[Command]) -> list[Command]:
    """What was known at some time: commands that were answered later have no reply yet."""
    return [
        command if command.end <= end else command._replace(end=inf)
        for command in commands
        if command.begin <= end and (command.end <= end or command.verb != "GET")
    ]


def _told(command: Command) -> str:
    argument = "" if command.argument is None else f" {shown(command.argument)}"
    answer = "" if command.verb in ("PUT", "DEL") else f" -> {shown(command.result)}"
    if command.end == inf:
        answer = " (no reply yet)"
    return f"{name(command.number)} {command.verb}{argument}{answer}"
