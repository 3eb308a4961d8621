"""The record of what clients did."""

from __future__ import annotations

import json

import pytest

from kvd.verify.check import check, report
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History, Operation
from tests.support.histories import history, tx
from tests.verify.simulator import Simulation


def test_a_history_comes_back_from_json_as_it_went() -> None:
    made = Simulation(1, kinds=("appends", "predicates", "bank", "plain")).run(200)
    again = History.from_data(json.loads(json.dumps(made.as_data())))
    assert again.transactions == made.transactions


def test_a_report_can_be_checked_again() -> None:
    made = history("ax1ay1", "ax2ay2", "rx12ry21")
    verdict = check(made)
    data = json.loads(json.dumps(report(made, verdict)))
    assert data["valid"] is False
    assert [each["anomaly"] for each in data["violations"]] == ["G0"]
    assert check(History.from_data(data)) == verdict


def test_a_report_counts_outcomes() -> None:
    made = history("ax1", tx("ax2", outcome=ROLLED_BACK), tx("ax3", outcome=UNKNOWN), "rx1")
    assert check(made).outcomes == {"committed": 2, "rolled back": 1, "unknown": 1}
    assert report(made, check(made))["valid"] is True


@pytest.mark.parametrize(
    "data",
    [{}, {"transactions": [{}]}, {"transactions": [{"operations": []}]}, {"transactions": [{"operations": [[]]}]}],
)
def test_what_is_no_history_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a history"):
        History.from_data(data)


def test_events_keep_their_order_where_the_clock_stands_still() -> None:
    made = History(lambda: 5.0)
    first = made.begin(1)
    made.started(first)
    made.end(first, ROLLED_BACK, "CONFLICT")
    second = made.begin(2)
    assert first.started is not None
    assert first.completed is not None
    assert 5.0 == first.invoked < first.started < first.completed < second.invoked < 5.001
    assert (first.number, second.number) == (0, 1)
    assert (first.outcome, first.code, second.outcome) == (ROLLED_BACK, "CONFLICT", UNKNOWN)


def test_events_bear_the_time_of_the_clock() -> None:
    times = iter([1.0, 2.5])
    made = History(lambda: next(times))
    transaction = made.begin(1)
    made.end(transaction, COMMITTED)
    assert (transaction.invoked, transaction.completed) == (1.0, 2.5)


def test_a_recorded_stale_read_is_found() -> None:
    made = History(lambda: 0.0)
    for operation in (Operation("append", "x", 1), Operation("read", "x", None, [])):
        transaction = made.begin(1)
        made.started(transaction)
        transaction.operations.append(operation)
        made.end(transaction, COMMITTED)
    assert set(check(made).times) == {"G-single-process"}
