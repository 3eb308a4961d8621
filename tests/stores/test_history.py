"""The records of old values: they are right for every open snapshot, and no more of them are held than are seen."""

from __future__ import annotations

from sys import getsizeof
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvd.core.transaction import Transaction
from kvd.errors import Conflict
from kvd.interfaces import Count, Later, Page, Range, Scan
from kvd.stores.memory.data import pair_bytes
from kvd.stores.memory.history import RECORD_BYTES
from kvd.stores.memory.snapshots import MemorySnapshot
from kvd.stores.memory.store import MemoryStore
from kvd.stores.memory.validation import PIECE
from tests.support.hosts import host

EVERYTHING = Range("", None)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2", None]), min_size=1, max_size=3),
        ),
        st.tuples(st.just("open")),
        st.tuples(st.just("close"), st.integers(0, 5)),
    ),
    max_size=60,
)


def changed_keys(snapshot: MemorySnapshot, reads: list[Any]) -> set[str]:
    found = snapshot.conflicts(reads, 10)
    assert not isinstance(found, Later)
    return {key for key, _ in found}


def values_seen(
    opened: list[tuple[MemorySnapshot, int]], states: list[dict[str, str]], log: list[set[str]]
) -> list[tuple[str, str | None]]:
    """The pairs that are no longer current but that at least one of the open snapshots sees, by brute force."""
    seen = {}
    for key in "abc":
        for _, instant in opened:
            # The commits that replaced what this snapshot sees.
            changes = [place for place in range(instant + 1, len(log)) if key in log[place]]
            if changes:
                seen[key, changes[0]] = key, states[instant].get(key)
    return list(seen.values())


@settings(max_examples=400, deadline=None)
@given(ACTIONS)
@example([("write", {"a": "1"}), ("write", {"b": "1"}), ("open",), ("open",), ("write", {"a": "2"}), ("close", 1)])
def test_snapshots_see_their_past_and_nothing_is_held_that_no_one_sees(actions: list[tuple[str, Any]]) -> None:
    store = MemoryStore()
    store.start(host())
    current: dict[str, str] = {}
    states: list[dict[str, str]] = [{}]  # the state after each commit
    log: list[set[str]] = [set()]  # the keys that each commit changed
    opened: list[tuple[MemorySnapshot, int]] = []
    for action, *rest in actions:
        if action == "write":
            store.data.apply(dict(rest[0]), 1)
            log.append({key for key, value in rest[0].items() if value is not None or key in current})
            current = {key: value for key, value in {**current, **rest[0]}.items() if value is not None}
            states.append(current)
        elif action == "open":
            opened.append((store.snapshot(), len(states) - 1))
        elif opened:
            snapshot, _ = opened.pop(rest[0] % len(opened))
            snapshot.close()
            snapshot.close()
        for snapshot, instant in opened:
            state = states[instant]
            assert snapshot.read(list("abc")) == [state.get(key) for key in "abc"]
            assert snapshot.scan(Scan(EVERYTHING, 10)) == Page(sorted(state.items()), None)
            backwards = snapshot.scan(Scan(EVERYTHING._replace(descending=True), 10))
            assert backwards == Page(sorted(state.items(), reverse=True), None)
            changed = set().union(*log[instant + 1 :])
            assert changed_keys(snapshot, [EVERYTHING]) == changed
            assert changed_keys(snapshot, list("abc")) == changed
        held = values_seen(opened, states, log)
        assert store.data.history.size == len(held)
        assert store.data.history.account.held == sum(
            RECORD_BYTES + getsizeof(key) + getsizeof(value) for key, value in held
        )
        assert store.data.budget.used == store.data.history.account.held + sum(
            pair_bytes(*pair) for pair in current.items()
        )
    for snapshot, _ in opened:
        snapshot.close()
    assert (store.data.history.size, len(store.data.dead), store.data.history.newest) == (0, 0, None)
    assert list(store.data.order) == sorted(current)


def test_a_million_puts_under_one_snapshot_keep_one_old_value() -> None:
    store = MemoryStore()
    store.data.apply({"hot": "first"}, 1)
    old = store.snapshot()
    for number in range(1_000_000):
        store.data.apply({"hot": str(number)}, 1)
    assert store.data.history.size == 1
    assert old.read(["hot"]) == ["first"]


def test_versions_that_only_closed_snapshots_saw_are_dropped_at_once() -> None:
    store = MemoryStore()
    store.data.apply({"hot": "first"}, 1)
    old = store.snapshot()
    between = []
    for number in range(1000):
        store.data.apply({"hot": str(number)}, 1)
        between.append(store.snapshot())
    store.data.apply({"hot": "last"}, 1)
    assert store.data.history.size == 1001
    for snapshot in between[::-1]:
        snapshot.close()
    assert store.data.history.size == 1
    assert old.read(["hot"]) == ["first"]


class CountingKey(str):
    """A key that counts how often any of its kind is looked up, or compared with others."""

    looked_at = 0

    def __hash__(self) -> int:
        CountingKey.looked_at += 1
        return super().__hash__()

    def __lt__(self, other: str) -> bool:
        CountingKey.looked_at += 1
        return super().__lt__(other)

    def __ge__(self, other: str) -> bool:  # takes the place of other <= self
        CountingKey.looked_at += 1
        return super().__ge__(other)


def store_with(keys: list[CountingKey]) -> MemoryStore:
    store = MemoryStore()
    for key in keys:
        store.data.apply({key: "x"}, 1)
    return store


KEYS = [CountingKey(f"key{number:05}") for number in range(10_000)]


def test_a_commit_looks_only_at_what_the_transaction_touched() -> None:
    store = store_with(KEYS)
    long = store.snapshot()  # pins ten thousand changes
    for key in KEYS:
        store.data.apply({key: "y"}, 1)
    snapshot = store.snapshot()
    store.data.apply({KEYS[1]: "z"}, 2)
    CountingKey.looked_at = 0
    assert snapshot.conflicts([EVERYTHING], 1) == [("key00001", 2)]
    assert snapshot.conflicts([Range("key09990", "key09999")], 1) == []
    assert snapshot.conflicts(KEYS[2:5], 1) == []
    assert CountingKey.looked_at < 200
    CountingKey.looked_at = 0
    assert long.conflicts([Range("key09990", "key09999")], 1) == [("key09990", 1)]  # of ten thousand that were changed
    assert CountingKey.looked_at < 200
    long.close()


def test_a_commit_that_conflicts_looks_no_further() -> None:
    store = store_with(KEYS)
    snapshot = store.snapshot()
    for key in KEYS:
        store.data.apply({key: "y"}, 2)
    CountingKey.looked_at = 0
    assert snapshot.conflicts(KEYS[5:], 1) == [(KEYS[5], 2)]
    assert CountingKey.looked_at < 20
    with pytest.raises(Conflict):
        snapshot.commit(KEYS[5:], {"more": ""}, 1)
    assert store.data.values.get("more") is None


def test_a_count_of_the_past_looks_at_little_where_little_was_changed_since() -> None:
    store = store_with(KEYS)
    snapshot = store.snapshot()
    store.data.apply({KEYS[1]: None}, 2)
    store.data.apply({"more": ""}, 2)
    CountingKey.looked_at = 0
    assert snapshot.count(Count(EVERYTHING)) == 10_000
    assert snapshot.count(Count(Range("key00001", "key00003"))) == 2
    assert snapshot.count(Count(EVERYTHING, without=["more", KEYS[1], KEYS[2]])) == 9_998
    assert CountingKey.looked_at < 200


def test_a_count_of_the_past_comes_in_pieces_where_much_was_changed_since() -> None:
    store = store_with(KEYS)
    snapshot = store.snapshot()
    for key in KEYS[: PIECE + 1]:
        store.data.apply({key: None}, 2)
    pieces = snapshot.count(Count(EVERYTHING))
    assert isinstance(pieces, Later)
    with pytest.raises(StopIteration) as done:
        while True:
            CountingKey.looked_at = 0
            next(pieces.steps)
            assert CountingKey.looked_at < 20 * PIECE
    assert done.value.value == 10_000


def test_up_to_500_keys_are_answered_at_once() -> None:
    store = store_with(KEYS[:2000])
    for limit in (499, 500):
        page = store.latest().scan(Scan(EVERYTHING, limit))
        assert isinstance(page, Page)
        assert len(page.items) == limit
    assert isinstance(store.latest().scan(Scan(EVERYTHING, 501)), Later)
    snapshot = store.snapshot()
    for key in KEYS[:500]:
        store.data.apply({key: "y"}, 2)
    assert snapshot.count(Count(EVERYTHING)) == 2000
    store.data.apply({KEYS[500]: "y"}, 2)
    assert isinstance(snapshot.count(Count(EVERYTHING)), Later)


def test_a_page_looks_no_further_than_its_end() -> None:
    store = store_with(KEYS)
    CountingKey.looked_at = 0
    for descending in (False, True):
        page = store.latest().scan(Scan(EVERYTHING._replace(descending=descending), 5))
        assert isinstance(page, Page)
        assert len(page.items) == 5
    assert CountingKey.looked_at < 100


def test_a_range_that_ends_before_it_begins_is_empty() -> None:
    store = store_with(KEYS[:20])
    snapshot = store.snapshot()
    store.data.apply({KEYS[7]: None, KEYS[8]: "y"}, 2)
    for descending in (False, True):
        nothing = Range(KEYS[9], KEYS[5], descending)
        for view in (store.latest(), snapshot):
            assert view.scan(Scan(nothing, 10)) == Page([], None)
            assert view.count(Count(nothing)) == 0
        assert snapshot.conflicts([nothing], 10) == []


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.text("abcé\U0010ffff", min_size=1, max_size=2), st.just("stored"), max_size=12),
    st.dictionaries(st.text("abcé\U0010ffff", min_size=1, max_size=2), st.sampled_from([None, "own"]), max_size=6),
    st.integers(1, 6),
    st.booleans(),
)
def test_a_page_laid_over_by_own_writes_is_the_page_of_both_together(
    stored: dict[str, str], own: dict[str, str | None], limit: int, descending: bool
) -> None:
    store = MemoryStore()
    store.data.apply({**stored}, 1)
    txn = Transaction(store.snapshot(), False, 0)
    txn.write({**own})
    scan = Scan(EVERYTHING._replace(descending=descending), limit)
    wanted = txn.missing(scan)
    assert isinstance(wanted, Scan)
    page = txn.overlay(scan, txn.snapshot.scan(wanted))
    both = sorted(((key, value) for key, value in {**stored, **own}.items() if value is not None), reverse=descending)
    assert page.items == both[:limit]
    assert page.met == (both[limit][0] if len(both) > limit else None)
