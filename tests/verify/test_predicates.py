"""The predicate check, on histories written by hand."""

from __future__ import annotations

import pytest

from kvd.verify.check import check
from kvd.verify.history import ROLLED_BACK, UNKNOWN, History, Operation, Transaction
from tests.support.histories import history, tx

Times = tuple[float, float] | None


def did(
    *words: str | tuple[str, int], at: Times = None, outcome: str = "committed", started: float | None = None
) -> Transaction:
    """A transaction under the prefix ``p/``: ``+a`` inserts p/a, ``-a`` deletes it, ``=ab`` scans and sees p/a and
    p/b; a number counts."""
    operations = []
    for word in words:
        match word:
            case tuple():
                operations.append(Operation("count", "p/", [0, word[1]], int(word[0])))
            case str() if word[0] == "=":
                operations.append(Operation("scan", "p/", None, [f"p/{letter}" for letter in word[1:]]))
            case str() if word[0] in "+-":
                verb = "insert" if word[0] == "+" else "delete"
                operations.append(Operation(verb, f"p/{word[1:]}", "p/"))
            case str():
                operations.append(Operation("count", "p/", None, int(word)))
    return tx(operations, at=at, outcome=outcome, started=started)


def found(*transactions: Transaction) -> set[str]:
    made: History = history(*transactions)
    return set(check(made).times)


def test_scans_that_have_an_order_are_not_accused() -> None:
    assert found(did("=", "+a"), did("=a", "+b", "=ab"), did("=ab", "-a", "=b"), did("=b"), did("1", "=b")) == set()


def test_counts_that_have_an_order_are_not_accused() -> None:
    assert found(did("0", "+a"), did("1", "+b", "+c", "3"), did("3"), did("1"), did("3", "+d"), did("0")) == set()


def test_two_insertions_that_scans_missed_are_a_phantom() -> None:
    assert found(did("=", "+a"), did("=", "+b")) == {"G2"}


def test_two_insertions_that_counts_missed_are_a_phantom() -> None:
    assert found(did("3", "+a"), did("3", "+b")) == {"G2"}
    assert found(did("0", "+a"), did("0", "+b"), did("0", "+c")) == {"G2"}


def test_a_refused_insertion_is_no_phantom() -> None:
    assert found(did("=", "+a"), did("=", "+b", outcome=ROLLED_BACK), did("=a")) == set()
    assert found(did("0", "+a"), did("0", "+b", outcome=ROLLED_BACK), did("0", "+c", outcome=UNKNOWN)) == set()


def test_two_deletions_that_each_saw_the_other_key_are_a_phantom() -> None:
    assert found(did("+a", "+b"), did("=ab", "-a"), did("=ab", "-b")) == {"G2"}


def test_two_deletions_of_one_key_that_both_saw_it_are_a_phantom() -> None:
    assert found(did("+a"), did("=a", "-a"), did("=a", "-a")) == {"G2"}


def test_a_deletion_of_what_is_gone_already_changes_nothing() -> None:
    assert found(did("+a", at=(0, 1)), did("=a", "-a", at=(2, 3)), did("-a", at=(4, 5)), did("=", at=(6, 7))) == set()


def test_one_that_inserts_and_one_that_deletes_behind_each_others_back_are_a_phantom() -> None:
    assert found(did("+a"), did("=a", "-a"), did("=a", "+b")) == {"G2"}


def test_a_scan_that_sees_one_of_two_keys_inserted_at_once_is_torn() -> None:
    assert found(did("+a", "+b"), did("=a")) == {"G-single"}


def test_a_count_between_two_keys_inserted_at_once_is_torn() -> None:
    assert found(did("0", "+a", "+b"), did("1")) == {"G-single"}


def test_a_scan_that_misses_what_was_inserted_before_shows_by_real_time() -> None:
    assert found(did("+a", at=(0, 1)), did("=", at=(2, 3))) == {"G-single-realtime"}


def test_a_scan_that_still_sees_what_was_deleted_before_shows_by_real_time() -> None:
    inserted, deleted = did("+a", at=(0, 1)), did("=a", "-a", at=(2, 3))
    assert found(inserted, deleted, did("=a", at=(4, 5))) == {"G-single-realtime"}
    assert found(inserted, deleted, did("=a", at=(2, 5))) == set()


def test_a_deletion_without_a_scan_counts_where_it_must_have_found_the_key() -> None:
    inserted, deleted = did("+a", at=(0, 1)), did("-a", at=(2, 3))
    assert found(inserted, deleted, did("=a", at=(4, 5))) == {"G-single-realtime"}
    # This one may have come before the insertion, and so have deleted nothing.
    assert found(did("+a", at=(0, 3)), did("-a", at=(1, 4)), did("=a", at=(5, 6))) == set()


def test_a_scan_that_misses_a_key_before_its_deletion_was_sent_shows_by_real_time() -> None:
    missed = found(did("+a", at=(0, 1)), did("=", at=(2, 3)), did("=a", "-a", at=(4, 5)))
    assert missed == {"G-single-realtime"}


def test_a_scan_that_no_longer_sees_a_key_came_after_its_deletion() -> None:
    inserted, deleted = did("+a", at=(0, 1)), did("=a", "-a", "+b", at=(2, 9))
    assert found(inserted, deleted, did("=", at=(3, 4))) == {"G-single"}  # it must see b then
    assert found(inserted, deleted, did("=b", at=(3, 4))) == set()


def test_a_scan_that_misses_a_key_whose_deletion_is_open_is_free() -> None:
    assert found(did("+a", at=(0, 1)), did("=a", "-a", at=(2, 3), outcome=UNKNOWN), did("=", at=(4, 5))) == set()
    assert found(did("+a", at=(0, 1)), did("=a", "-a", at=(2, 3), outcome=UNKNOWN), did("=a", at=(4, 5))) == set()


def test_an_insertion_of_unknown_outcome_that_was_seen_counts_as_committed() -> None:
    unknown = did("+a", "+b", outcome=UNKNOWN)
    assert found(unknown, did("=ab")) == set()
    assert found(unknown, did("=a")) == {"G-single"}
    assert found(unknown, did("=")) == set()


def test_an_insertion_of_unknown_outcome_may_have_come_late() -> None:
    inserted, deleted = did("+a", outcome=UNKNOWN, at=(0, 1)), did("=a", "-a", "+b", at=(3, 12))
    assert found(inserted, deleted, did("=", at=(2, 4))) == set()


def test_a_count_that_is_too_old_shows_by_real_time() -> None:
    assert found(did("0", "+a", at=(0, 1)), did("0", at=(2, 3))) == {"G-single-realtime"}
    assert found(did("0", "+a", at=(2, 3)), did("1", at=(0, 1))) == {"G1c-realtime"}


def test_a_count_out_of_its_bounds_is_told() -> None:
    assert found(did(("4", 3))) == {"bound"}
    assert found(did(("3", 3))) == set()


def test_a_key_of_a_rolled_back_insertion_that_shows_is_g1a() -> None:
    assert found(did("+a", outcome=ROLLED_BACK), did("=a")) == {"G1a"}


def test_a_key_that_nobody_inserted_is_told() -> None:
    assert found(did("=z")) == {"garbage-read"}


@pytest.mark.parametrize(
    "words",
    [
        ("+a", "="),  # its own insertion is missing
        ("=b", "-b", "=b"),  # its own deletion is missing
        ("-b", "=b"),
        ("=b", "+a", "=a"),
        ("=b", "="),  # two answers
        ("=bb",),  # one key twice
        ("=b", "2"),  # the count of another state
        ("1", "0"),
        ("1", "=bc"),
        ("1", "+a", "1"),
        ("+a", "0"),
        ("=a", "+a"),  # before its own insertion
    ],
)
def test_a_transaction_that_disagrees_with_itself_is_told(words: tuple[str, ...]) -> None:
    assert "internal" in found(did("+b", "+c"), did(*words))


def test_a_transaction_sees_its_own_changes() -> None:
    assert found(did("+b", "+c"), did("=bc", "2", "-b", "=c", "1", "+a", "=ca", "2")) == set()


def test_a_scan_must_not_see_what_was_sent_behind_its_start() -> None:
    late = did("=a", "+b", at=(0, 50), started=5)
    assert "late-snapshot" in found(did("+a", at=(10, 20)), late)
    gone = did("=", "+b", at=(2, 50), started=5)
    assert "late-snapshot" in found(did("+a", at=(0, 1)), did("=a", "-a", at=(10, 20)), gone)


def test_lists_and_scans_stand_in_one_order() -> None:
    both = tx([Operation("read", "x", None, []), Operation("insert", "p/a", "p/")])
    other = tx([Operation("scan", "p/", None, []), Operation("append", "x", 1)])
    assert found(both, other) == {"G2"}


def test_a_key_inserted_twice_by_the_clients_makes_the_history_useless() -> None:
    with pytest.raises(ValueError, match="p/a was inserted twice"):
        found(did("+a"), did("+a"))
    with pytest.raises(ValueError, match="unique"):
        found(did("+a", "+a"))
