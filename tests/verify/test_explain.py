"""How a violation is told."""

from __future__ import annotations

import json
import re

import pytest

from kvd.verify.check import check, told
from kvd.verify.explain import ANOMALIES, REASONS, as_data, listed, meaning, severity, shown
from kvd.verify.history import ROLLED_BACK, History
from tests.support.histories import history, tx
from tests.verify.simulator import FAULTS, Simulation

STALE = """\
G-single-realtime: T1 and T0 can't be put in any order.
  What that means: read skew: a transaction saw one thing as it was before a commit, and another as \
it was after it; it shows in real time: one was over before the other began.
  What the clients did, in the order in which they began:
    T0: client 7, 0.500000 s to 1.000000 s: committed
        read x: []
        append 1 to x
    T1: client 8, 2.000000 s to 3.000000 s, started by 2.250000 s: rolled back (CONFLICT)
        read x: []
  Why no order explains it:
    1. T1 came before T0: T1 read x as empty, without 1, which T0 appended.
    2. T0 came before T1: T0 was over at 1.000000 s, and T1 was sent at 2.000000 s.
  What should have been seen: the other steps put T0 before T1, so T1 should have seen what T0 wrote, or its COMMIT \
should have been refused with CONFLICT."""


def stale() -> History:
    write = tx("rxax1", client=7, at=(0.5, 1))
    read = tx("rx", client=8, at=(2, 3), started=2.25, outcome=ROLLED_BACK)
    read.code = "CONFLICT"
    return history(write, read)


def test_a_violation_is_told_as_who_did_what_and_why_no_order_explains_it() -> None:
    assert told(stale(), check(stale())) == STALE


def test_a_violation_is_told_to_programs_as_well() -> None:
    made = stale()
    data = json.loads(json.dumps(as_data(check(made).violations[0], made.transactions)))
    assert data["anomaly"] == "G-single-realtime"
    assert data["transactions"] == [1, 0]
    assert data["steps"][0] == "T1 came before T0: T1 read x as empty, without 1, which T0 appended."
    assert "        append 1 to x" in [f"    {line}" for line in data["story"]]
    assert data["expected"].startswith("the other steps put T0 before T1, so T1")
    assert data["meaning"].startswith("read skew")


def test_no_violation_is_told_as_nothing() -> None:
    assert told(history("ax1"), check(history("ax1"))) == ""


@pytest.mark.parametrize(
    ("transactions", "sentence"),
    [
        (("ax1ay1", "ax2ay2", "rx12ry21"), "all writes of one transaction should have come before all writes of"),
        (("ax1ry1", "ax2ay1", "rx12ry1"), "the other steps put T0 before T1, so T0 should not have seen what T1 wrote"),
        (("ax1ry", "ay1rx"), "at least one of T0 and T1 should have been refused with CONFLICT"),
    ],
)
def test_what_should_have_been_seen_fits_the_kind_of_cycle(transactions: tuple[str, ...], sentence: str) -> None:
    assert sentence in check(history(*transactions)).violations[0].expected


def test_two_that_began_at_the_same_time_are_both_told() -> None:
    made = history("ax1ry", "ay1rx")
    text = told(made, check(made))
    assert "T0: client" in text
    assert "T1: client" in text


def test_what_can_be_followed_at_a_glance_comes_first() -> None:
    ring = [f"r{a} a{b}1" for a, b in zip("abcdef", "bcdefa", strict=True)]
    violations = check(history(*ring, "ux1", "ax9", "rx9ax1", "rx9ax2")).violations
    assert len(violations[0].transactions) == 2
    names = [each.anomaly for each in check(history(*ring, tx("az1", outcome=ROLLED_BACK), "rz1")).violations]
    assert names == ["G1a", "G2-item"]


def test_the_greatest_evil_has_the_least_rank() -> None:
    names = ["garbage-read", "G1a", "G0", "G2", "G0-process", "G2-process", "G0-realtime", "G2-realtime"]
    assert sorted(names, key=severity) == names


def test_every_form_of_a_name_has_a_meaning() -> None:
    for anomaly in ANOMALIES:
        assert meaning(anomaly)
        assert meaning(anomaly + "-process").startswith(meaning(anomaly))
        assert meaning(anomaly + "-realtime").startswith(meaning(anomaly))


def test_the_middle_of_a_long_list_is_left_out() -> None:
    assert shown(list(range(10))) == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
    assert shown(list(range(11))) == "[0, 1, 2, ... 3 more ..., 6, 7, 8, 9, 10]"
    assert shown("a") == "'a'"


def test_names_are_listed_as_people_do() -> None:
    assert listed(["T1"]) == "T1"
    assert listed(["T1", "T2"]) == "T1 and T2"
    assert listed(["T1", "T2", "T3"]) == "T1, T2 and T3"


def test_the_order_of_a_client_is_told_as_such() -> None:
    made = history(tx("ax1", client=1, at=(0, 10)), tx("rx", client=1, at=(1, 11)))
    assert "T0 came before T1: client 1 sent T0 first, and then T1." in told(made, check(made))


def test_every_reason_is_told_without_a_gap() -> None:
    patterns = {reason: re.sub(r"\\{[a-z_]+\\}", "(.+)", re.escape(words)) for reason, words in REASONS.items()}
    given = set()
    for fault in FAULTS:
        for seed in range(12):
            for kind in ("appends", "predicates"):
                for violation in check(Simulation(seed, fault, (kind,), unknown=0).run(150)).violations:
                    for step in violation.steps:
                        sentence = step.removesuffix(".").partition(": ")[2]
                        reasons = {reason for reason, words in patterns.items() if re.fullmatch(words, sentence)}
                        assert len(reasons) == 1, sentence
                        assert "None" not in sentence
                        given |= reasons
    assert given >= set(REASONS) - {"process"}
