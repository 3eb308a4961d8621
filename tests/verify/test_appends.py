"""The list-append check, on histories written by hand."""

from __future__ import annotations

import pytest

from kvd.verify.check import check
from kvd.verify.history import ROLLED_BACK, UNKNOWN, Operation
from tests.support.histories import anomalies, history, in_turn, tx, verdict


def test_nothing_at_all_is_no_violation() -> None:
    assert anomalies() == set()


def test_transactions_that_have_an_order_are_not_accused() -> None:
    assert anomalies("rx ax1", "rx1 ax2 ry", "rx12 ay1", "rx12 ry1", "rx1 ry") == set()


def test_writes_in_two_orders_are_g0() -> None:
    assert anomalies("ax1ay1", "ax2ay2", "rx12ry21") == {"G0"}


def test_a_write_of_a_rolled_back_transaction_that_shows_is_g1a() -> None:
    assert anomalies(tx("ax1", outcome=ROLLED_BACK), "rx1") == {"G1a"}


def test_a_half_of_a_transactions_appends_is_g1b() -> None:
    assert anomalies("ax1ax2", "rx1") == {"G1b", "G-single"}


def test_writing_before_each_other_is_g1c() -> None:
    assert anomalies("ax1ry1", "ax2ay1", "rx12ry1") == {"G1c"}


def test_seeing_one_write_and_missing_an_earlier_one_is_g_single() -> None:
    assert anomalies("ax1ay1", "ax2ry", "rx12") == {"G-single"}


def test_two_that_miss_each_others_writes_are_g2() -> None:
    assert anomalies("ax1ry", "ay1rx") == {"G2-item"}


def test_two_updates_of_one_version_are_a_lost_update() -> None:
    found = verdict("ax9", "rx9ax1", "rx9ax2")
    assert set(found.times) == {"lost-update", "G2-item"}
    assert next(each.transactions for each in found.violations if each.anomaly == "lost-update") == (1, 2)


def test_one_transaction_may_append_twice_behind_its_read() -> None:
    assert anomalies("rxax1ax2", "rx12") == set()


def test_a_refused_update_is_no_lost_update() -> None:
    assert anomalies("ax9", "rx9ax1", tx("rx9ax2", outcome=ROLLED_BACK), "rx91") == set()


def test_reads_that_exclude_each_other_are_told() -> None:
    assert anomalies("ax1", "ax2", "rx12", "rx2") >= {"incompatible-order"}


def test_an_incompatible_order_is_shown_by_the_shortest_lists() -> None:
    found = verdict("ax1", "ax2", "ax3", "rx123", "rx12", "rx21", "rx213")
    violation = next(each for each in found.violations if each.anomaly == "incompatible-order")
    assert violation.transactions == (5, 4, 1, 0)


def test_an_element_that_stands_twice_is_told() -> None:
    assert anomalies("ax1", "ax2", "rx121") == {"duplicate-elements"}


def test_an_element_that_nobody_appended_is_told() -> None:
    assert anomalies("ax1", "rx17") == {"garbage-read"}


@pytest.mark.parametrize(
    "operations",
    [
        "rx12ax3rx12",  # its own append is missing
        "rx12ax3rx923",  # another beginning
        "rx12ax3rx1234",  # something behind its own
        "rx12ax3rx1",  # shorter than before
        "ax3rx1234",  # not at the end, without a read before
        "ax3rx",
        "rx12rx124",  # two answers
        "rx123ax3",  # its own append, before it was made
        "ax3rx43ax4",
    ],
)
def test_a_transaction_that_disagrees_with_itself_is_told(operations: str) -> None:
    assert "internal" in anomalies(operations, "ax1", "ax2")


def test_a_transaction_sees_its_own_appends() -> None:
    assert anomalies("ax1ax2", "rx12ax3rx123ax4rx1234", "ax5rx12345rx12345") == set()


def test_a_transaction_that_was_rolled_back_reads_one_state_as_well() -> None:
    assert anomalies("ax1ay1", tx("rx1ry", outcome=ROLLED_BACK)) == {"G-single"}
    assert anomalies(tx("rx1rx", outcome=ROLLED_BACK), "ax1") == {"internal"}


def test_an_unknown_outcome_counts_as_committed_if_a_write_of_it_was_seen() -> None:
    unknown = tx("ax1ay1", outcome=UNKNOWN)
    assert anomalies(unknown, "rx1 ry") == {"G-single"}


def test_an_unknown_outcome_whose_writes_nobody_saw_is_free() -> None:
    assert anomalies(tx("rz az1 ax1 ay1", outcome=UNKNOWN), "rx ry", "rz") == set()
    assert check(in_turn(tx("ax1", outcome=UNKNOWN), "rx", "rx")).violations == []


def test_an_unknown_outcome_that_was_seen_may_have_come_late_but_not_early() -> None:
    unknown = tx("ax1", client=1, outcome=UNKNOWN, at=(2, 3))
    assert check(history(unknown, tx("rx", client=1, at=(4, 5)), tx("rx1", at=(6, 7)))).violations == []
    early = check(history(tx("rx1", at=(0, 1)), tx("ax1", outcome=UNKNOWN, at=(2, 3))))
    assert set(early.times) == {"G1c-realtime"}


def test_an_unknown_outcome_never_vanishes_again() -> None:
    unknown = tx("ax1", outcome=UNKNOWN, at=(0, 1))
    assert set(check(history(unknown, tx("rx1", at=(2, 3)), tx("rx", at=(4, 5)))).times) == {"G-single-realtime"}


def test_a_stale_read_shows_by_real_time() -> None:
    assert set(check(in_turn("ax1", "rx")).times) == {"G-single-realtime"}
    assert anomalies("ax1", "rx") == set()


def test_a_stale_read_is_a_cycle_of_two_however_long_ago_the_write_was() -> None:
    found = check(in_turn("ax1", *["ry"] * 50, "rx"))
    assert [each.transactions for each in found.violations] == [(51, 0)]


def test_a_read_of_the_future_shows_by_real_time() -> None:
    assert set(check(in_turn("rx1", "ax1")).times) == {"G1c-realtime"}


def test_writes_against_real_time_are_g0_realtime() -> None:
    assert set(check(history(tx("ax2", at=(0, 1)), tx("ax1", at=(2, 3)), tx("rx12", at=(0, 3)))).times) == {
        "G0-realtime"
    }


def test_write_skew_against_real_time_is_g2_realtime() -> None:
    # 0 misses 1, 1 was over before 2 began, 2 misses 3, 3 was over before 0 began.
    found = check(history(tx("rx", at=(10, 90)), tx("ax1", at=(20, 30)), tx("ry", at=(40, 50)), tx("ay1", at=(1, 2))))
    assert set(found.times) == {"G-single-realtime"}
    assert anomalies(tx("rx ay1", at=(0, 9)), tx("ry az1", at=(0, 9)), tx("rz ax1", at=(0, 9))) == {"G2-item"}


def test_a_client_that_loses_sight_of_its_own_write_shows_by_its_order() -> None:
    # Sent one behind the other without waiting, so that real time says nothing.
    first, second = tx("ax1", client=1, at=(0, 10)), tx("rx", client=1, at=(1, 11))
    assert set(check(history(first, second)).times) == {"G-single-process"}


def test_the_order_of_time_is_not_asked_where_it_is_not_needed() -> None:
    assert set(check(in_turn("ax1ry", "ay1rx", "az1", "rz")).times) == {"G2-item"}


def test_what_began_at_the_very_instant_at_which_another_ended_has_no_order_to_it() -> None:
    assert check(history(tx("ax1", at=(0, 1)), tx("rx", at=(1, 2)))).violations == []


def test_a_cycle_has_no_step_between_two_that_touched_at_one_instant() -> None:
    # 2 was sent when 0 was answered; only 1, which was answered before, must have come before it.
    found = check(history(tx("ax1", at=(0, 5)), tx("ax2 rx12", at=(0, 4)), tx("rx", at=(5, 6))))
    assert [each.transactions for each in found.violations] == [(2, 0, 1)]


def test_a_read_only_transaction_stands_where_its_start_was_answered() -> None:
    # The write came behind the START, so it may be missed, and must not be seen.
    write = tx("ax1", at=(10, 20))
    assert check(history(tx("rx", at=(0, 50), started=5), write)).violations == []
    assert "late-snapshot" in check(history(tx("rx1", at=(0, 50), started=5), write)).times


def test_a_writer_must_not_see_what_was_sent_behind_its_start_either() -> None:
    late = tx("rx1 ay1", at=(0, 50), started=5)
    assert set(check(history(late, tx("ax1", at=(10, 20)))).times) == {"late-snapshot"}
    for started in (10, 15):
        in_time = tx("rx1 ay1", at=(0, 50), started=started)
        assert check(history(in_time, tx("ax1", at=(10, 20)))).violations == []


def test_appends_that_no_read_shows_come_behind_those_that_one_shows() -> None:
    # y's read misses 1, so 1 comes behind 2 there; x shows the other order.
    assert anomalies("ax1ay1", "ax2ay2", "ax3ay3", "rx12", "ry2") == {"G0", "G-single"}


def test_an_element_appended_twice_by_the_clients_makes_the_history_useless() -> None:
    with pytest.raises(ValueError, match="1 was appended to x twice"):
        verdict("ax1", "ax1")
    with pytest.raises(ValueError, match="unique"):
        verdict("ax1ax1")


def test_elements_may_be_text() -> None:
    read = [Operation("read", "x", None, ["b", "a"])]
    write, other = [Operation("append", "x", "a")], [Operation("append", "x", "b")]
    assert anomalies(tx(read), tx(write), tx(other)) == set()
