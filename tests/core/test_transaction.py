"""The pure transaction: what it says that it takes in memory, how far savepoints reach back, and where a page ends."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.core.transaction import Transaction, cut_page
from kvd.interfaces import PAGE_BYTES, Page, Range, Scan
from kvd.stores.memory.store import MemoryStore

KEYS = st.sampled_from(["a", "b", "key", "clé"])
VALUES = st.sampled_from([None, "", "x", "a longer value", "ä", "€" * 20])
NAMES = st.sampled_from(["one", "two", "three"])
ACTIONS = st.one_of(
    st.tuples(st.just("read"), KEYS),
    st.tuples(st.just("write"), KEYS, VALUES),
    st.tuples(st.sampled_from(["savepoint", "rollback_to", "release"]), NAMES),
)


def opened() -> Transaction:
    return Transaction(MemoryStore().snapshot(), read_only=False, now=0.0)


@given(st.lists(ACTIONS, max_size=40))
def test_the_account_is_right_whatever_was_done_before(actions: list[tuple[str, ...]]) -> None:
    """A savepoint that is gone back to at once has everything counted afresh, and changes nothing."""
    txn = opened()
    for action, *arguments in actions:
        if action == "read":
            txn.missing(arguments)
        elif action == "write":
            txn.write({arguments[0]: arguments[1]})
        elif action == "savepoint" or any(point.name == arguments[0] for point in txn.savepoints):
            getattr(txn, action)(arguments[0])
    added_up = txn.bytes
    txn.savepoint("now")
    txn.rollback_to("now")
    assert txn.bytes == added_up + 450


def test_each_thing_that_a_transaction_holds_has_its_price() -> None:
    txn = opened()
    ascii = 49  # bytes of a Python string beside its characters
    assert txn.bytes == 0
    txn.missing(["key"])
    txn.missing(["key"])
    assert txn.bytes == 150 + ascii + 3
    txn.overlay(Scan(Range("ab", "abc"), 10), Page([], None))
    assert txn.bytes == 2 * 150 + ascii + 3 + ascii + 5
    before = txn.bytes
    txn.write({"key": "value"})
    assert txn.bytes == before + 150 + ascii + 3 + ascii + 5
    txn.write({"key": "v"})
    assert txn.bytes == before + 150 + ascii + 3 + ascii + 1
    before = txn.bytes
    txn.savepoint("s")
    assert txn.bytes == before + 450
    txn.write({"key": "w"})  # and the savepoint keeps v
    assert txn.bytes == before + 450 + 150 + ascii + 1
    txn.write({"new": "w"})  # and the savepoint keeps that there was nothing
    assert txn.bytes == before + 450 + 150 + ascii + 1 + 150 + ascii + 3 + ascii + 1 + 150
    txn.rollback_to("s")
    assert txn.bytes == before + 450
    txn.release("s")
    assert txn.bytes == before


@pytest.mark.parametrize(
    "grow",
    [
        lambda txn, number: txn.missing([f"key {number}"]),
        lambda txn, number: txn.overlay(Scan(Range(f"key {number}", f"key {number}0"), 9), Page([], None)),
        lambda txn, number: txn.write({f"key {number}": f"value {number}"}),
        lambda txn, number: txn.savepoint(f"name {number}"),
        lambda txn, number: (txn.savepoint("one"), txn.write({"key": f"value {number}"})),
        lambda txn, number: (txn.savepoints or txn.savepoint("one"), txn.write({f"key {number}": "value"})),
    ],
    ids=["keys read", "ranges read", "writes", "savepoints", "what savepoints keep", "that there was nothing"],
)
def test_a_transaction_takes_no_more_memory_than_it_says(grow: Callable[[Transaction, int], object]) -> None:
    txn = opened()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(5000):
            grow(txn, number)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < txn.bytes * 1.02 < taken * 5


def test_the_newest_savepoint_of_many_gives_its_changes_to_the_one_before_it() -> None:
    txn = opened()
    for number in range(1, 6):
        txn.savepoint(f"point {number}")
        txn.write({"key": str(number), f"key {number}": "x"})
    txn.release("point 5")
    txn.rollback_to("point 4")
    assert txn.writes == {"key": "3", "key 1": "x", "key 2": "x", "key 3": "x"}
    txn.release("point 2")
    assert txn.writes["key"] == "3"
    txn.rollback_to("point 1")
    assert txn.writes == {}


def pages(items: list[tuple[str, str]], limit: int = 100) -> Page:
    return cut_page(Scan(Range("", None), limit), items)


def test_a_page_ends_with_the_item_that_brings_it_to_a_mebibyte() -> None:
    one_short = ("a", "x" * (PAGE_BYTES - 2))
    for more, met in (("", "c"), ("y", "c"), ("yy", "c")):
        assert pages([one_short, ("b" + more, ""), ("c", "")]) == Page([one_short, ("b" + more, "")], met)
    assert pages([("a", "x" * (PAGE_BYTES - 1)), ("b", ""), ("c", "")]).met == "b"
    one_shorter = ("a", "x" * (PAGE_BYTES - 3))
    assert pages([one_shorter, ("b", ""), ("c", "")]).met is None


def test_a_page_is_measured_in_bytes_of_utf_8() -> None:
    euros = "€" * ((PAGE_BYTES - 3) // 3)
    assert len(euros.encode()) == PAGE_BYTES - 4
    assert pages([("a", euros), ("é", ""), ("x", ""), ("y", "")]).met == "y"
    assert pages([("a", euros), ("éb", ""), ("x", ""), ("y", "")]).met == "x"


def test_keys_and_values_add_up_on_a_page() -> None:
    half = "x" * (PAGE_BYTES // 8)
    items = [(half[:-1] + str(number), half) for number in range(10)]
    assert pages(items) == Page(items[:4], items[4][0])


def test_a_page_has_so_many_items_and_no_more() -> None:
    items = [(f"key {number:03}", "") for number in range(300)]
    assert pages(items, limit=1) == Page(items[:1], items[1][0])
    assert pages(items, limit=299) == Page(items[:299], items[299][0])
    assert pages(items, limit=300) == Page(items, None)
