"""The check of plain commands, on histories written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from kvd.verify import registers
from kvd.verify.check import Verdict, check
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, Operation, Transaction
from tests.support.histories import history, in_turn, tx
from tests.verify.simulator import Simulation


def put(value: str, key: str = "k", **about: Any) -> Transaction:
    return tx([Operation("PUT", key, value)], **about)


def get(value: str | None, key: str = "k", **about: Any) -> Transaction:
    return tx([Operation("GET", key, None, value)], **about)


def delete(**about: Any) -> Transaction:
    return tx([Operation("DEL", "k")], **about)


def incr(total: int | None, delta: int = 1, **about: Any) -> Transaction:
    return tx([Operation("INCR", "k", delta, total)], **about)


def cas(expected: str | None, new: str | None, stored: bool | None, **about: Any) -> Transaction:
    return tx([Operation("CAS", "k", [expected, new], stored)], **about)


RIGHT = {
    "an absent key": [get(None), delete(), get(None)],
    "put, get and delete": [put("a"), get("a"), put("b"), get("b"), delete(), get(None)],
    "counting": [incr(1), incr(3, 2), get("3"), incr(-7, -10), get("-7"), delete(), incr(1)],
    "counting what is no number": [put("a"), incr(None), get("a"), put(""), incr(None), put("1.5"), incr(None)],
    "counting past the end": [put(str(2**63 - 1)), incr(None), incr(2**63 - 2, -1), put(str(2**63)), incr(None, -1)],
    "counting past the other end": [
        put(str(-(2**63))),
        incr(None, -1),
        incr(-(2**63) + 1),
        incr(-(2**63), -1),
        put(str(-(2**63) - 1)),
        incr(None),
    ],
    "compare and set": [
        cas(None, "a", True),
        cas("b", "c", False),
        get("a"),
        cas("a", "c", True),
        get("c"),
        cas("c", None, True),
        get(None),
    ],
    "keys by themselves": [put("a", "k"), put("b", "l"), get("a", "k"), get("b", "l")],
}
WRONG = {
    "a lost write": [put("a"), get(None)],
    "a stale read": [put("a"), put("b"), get("a")],
    "a value from nowhere": [put("a"), get("c")],
    "a deletion that did nothing": [put("a"), delete(), get("a")],
    "an INCR run twice": [incr(1), get("2")],
    "an INCR answered twice alike": [incr(1), incr(1)],
    "an INCR that was lost": [incr(1), get(None)],
    "an INCR of no number": [put("a"), incr(1)],
    "an INCR refused for nothing": [put("1"), incr(None)],
    "a CAS that should not have stored": [put("a"), cas("b", "c", True)],
    "a CAS that should have stored": [put("a"), cas("a", "c", False)],
    "a CAS that stored nothing": [put("a"), cas("a", "c", True), get("a")],
}


@pytest.mark.parametrize("case", RIGHT)
def test_commands_one_behind_the_other_are_right(case: str) -> None:
    assert check(in_turn(*RIGHT[case])).violations == []


@pytest.mark.parametrize("case", WRONG)
def test_commands_one_behind_the_other_are_wrong(case: str) -> None:
    assert check(in_turn(*WRONG[case])).times == {"linearizability": 1}


def test_commands_at_the_same_time_may_have_any_order() -> None:
    assert check(history(get("b"), put("a"), get(None), put("b"), get("a"))).violations == []
    assert check(history(incr(2), incr(1), incr(3))).violations == []


def test_two_cannot_both_have_been_first() -> None:
    assert check(history(incr(1), incr(1))).times == {"linearizability": 1}
    assert check(history(cas(None, "a", True), cas(None, "b", True))).times == {"linearizability": 1}


def test_two_readers_behind_one_another_cannot_see_a_write_come_and_go() -> None:
    write = put("a", at=(0, 10))
    assert check(history(write, get("a", at=(1, 2)), get(None, at=(3, 4)))).times == {"linearizability": 1}
    assert check(history(write, get(None, at=(1, 2)), get("a", at=(3, 4)))).violations == []


def test_commands_that_a_client_sent_without_waiting_run_in_order() -> None:
    first, second = put("a", client=1, at=(0, 10)), put("b", client=1, at=(1, 11))
    assert check(history(first, second, get("a", at=(12, 13)))).times == {"linearizability": 1}
    assert check(history(first, second, get("b", at=(12, 13)))).violations == []
    # By two clients both orders are right.
    other = put("b", client=2, at=(1, 11))
    assert check(history(put("a", client=1, at=(0, 10)), other, get("a", at=(12, 13)))).violations == []


def test_an_unknown_outcome_may_come_at_any_later_time_or_never() -> None:
    unknown = put("a", outcome=UNKNOWN, at=(0, 1))
    assert check(history(unknown, get(None, at=(2, 3)), get(None, at=(4, 5)))).violations == []
    assert check(history(unknown, get(None, at=(2, 3)), get("a", at=(4, 5)))).violations == []
    assert check(history(get("a", at=(0, 1)), put("a", outcome=UNKNOWN, at=(2, 3)))).times == {"linearizability": 1}


def test_an_unknown_outcome_comes_at_most_once() -> None:
    unknown = put("a", outcome=UNKNOWN, at=(0, 1))
    reads = [get("a", at=(2, 3)), put("b", at=(4, 5)), get("a", at=(6, 7))]
    assert check(history(unknown, *reads)).times == {"linearizability": 1}
    assert check(history(unknown, put("a", outcome=UNKNOWN, at=(0, 1)), *reads)).violations == []


def test_an_unknown_incr_counts_once_or_not_at_all() -> None:
    unknown = incr(None, outcome=UNKNOWN, at=(0, 1))
    for total in (1, 2):
        assert check(history(unknown, incr(total, at=(2, 3)))).violations == []
    assert check(history(unknown, incr(3, at=(2, 3)))).times == {"linearizability": 1}


def test_a_client_that_lost_its_connection_goes_on_without_waiting_for_what_was_lost() -> None:
    lost = put("a", client=1, outcome=UNKNOWN, at=(0, 1))
    again = put("b", client=1, at=(2, 3))
    assert check(history(lost, again, get("b", at=(4, 5)), get("a", at=(6, 7)))).violations == []


def test_a_refused_command_changed_nothing() -> None:
    assert check(in_turn(put("a"), put("b", outcome=ROLLED_BACK), get("a"))).violations == []
    assert check(in_turn(put("a"), put("b", outcome=ROLLED_BACK), get("b"))).times == {"linearizability": 1}


def test_the_first_answer_that_cannot_be_explained_is_told_with_what_would_have_been_right() -> None:
    before = [put("a", at=(0, 1)), get("a", at=(2, 3)), put("b", at=(4, 9))]
    found = check(history(*before, get("c", at=(5, 6)), get("d", at=(7, 8)), get("x", at=(10, 11))))
    (violation,) = found.violations
    assert violation.what == "no order of the commands on k explains the reply to T3 GET -> 'c'"
    assert violation.expected == "T3 answered with 'a' or 'b'"
    assert violation.transactions == (0, 1, 2, 3)
    assert violation.steps[0].endswith("which leaves k at 'a'.")
    assert "T2 PUT 'b' (no reply yet)" in violation.steps[1]


@pytest.mark.parametrize(
    ("transactions", "expected"),
    [
        ([incr(1), incr(1)], "T1 answered with 2"),
        ([put("a"), cas("a", "b", False)], "T1 answered with True"),
        ([get("a")], "T0 answered with None"),
    ],
)
def test_every_kind_of_answer_is_told_with_what_would_have_been_right(
    transactions: list[Transaction], expected: str
) -> None:
    assert check(in_turn(*transactions)).violations[0].expected == expected


def test_a_search_that_takes_too_long_is_given_up_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "CONFIGURATIONS", 3)
    many = history(*[put(str(number)) for number in range(5)], get("x"), get(None, "other"))
    found = check(many)
    assert found.violations == []
    assert found.undecided == ["k"]


def test_a_search_does_not_get_lost_among_many_unknown_outcomes() -> None:
    assert check(Simulation(15180846, kinds=("plain",), unknown=0.3).run(67, 9)).undecided == []
    unknown = [put(str(number), outcome=UNKNOWN, at=(number, number + 1)) for number in range(12)]
    counted = [incr(None, outcome=UNKNOWN, at=(number, number + 1)) for number in range(12)]
    reads = [get("3", at=(20, 21)), get("5", at=(22, 23)), get("7", at=(24, 25))]
    assert check(history(*unknown, *counted, *reads)) == Verdict(
        [], {}, [], {"committed": 3, "rolled back": 0, "unknown": 24}
    )
    verdict = check(history(*counted, get("7", at=(20, 21)), get("6", at=(22, 23))))
    assert (verdict.times, verdict.undecided) == ({"linearizability": 1}, [])


def test_transactions_are_none_of_this_checks_business() -> None:
    assert registers.check(history(tx("ax1", outcome=COMMITTED), "rx")) == ([], [])
