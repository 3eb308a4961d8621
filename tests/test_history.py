"""The records of old values: they are right for every open snapshot, and no more of them are held than are seen."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kvd.interfaces import Page, Range, Scan
from kvd.stores.memory import MemorySnapshot, MemoryStore
from kvd.transaction import Transaction

EVERYTHING = Range("", None)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), st.sampled_from(["1", "2", None])),
        st.tuples(st.just("open")),
        st.tuples(st.just("close"), st.integers(0, 5)),
    ),
    max_size=60,
)


def versions_seen(opened: list[tuple[MemorySnapshot, int]], written: list[dict[str, str]]) -> int:
    """How many values that are no longer current at least one of the open snapshots sees, by brute force."""
    seen = set()
    for key in "abc":
        for _, instant in opened:
            changes = [
                place for place in range(instant + 1, len(written)) if written[place].get("changed") == key
            ]  # the commit that replaced what this snapshot sees
            if changes:
                seen.add((key, changes[0]))
    return len(seen)


@settings(max_examples=400, deadline=None)
@given(ACTIONS)
def test_snapshots_see_their_past_and_nothing_is_held_that_no_one_sees(actions: list[tuple[str, ...]]) -> None:
    store = MemoryStore()
    current: dict[str, str] = {}
    states: list[dict[str, str]] = [{}]  # the state after each change
    log: list[dict[str, str]] = [{}]  # the key that each change changed
    opened: list[tuple[MemorySnapshot, int]] = []
    for action, *rest in actions:
        if action == "write":
            key, value = rest
            store.apply({key: value}, 1)
            if value is None and key not in current:
                continue
            current = {**current, key: value} if value is not None else {k: v for k, v in current.items() if k != key}
            states.append(current)
            log.append({"changed": key})
        elif action == "open":
            opened.append((store.snapshot(), len(states) - 1))
        elif opened:
            snapshot, _ = opened.pop(int(rest[0]) % len(opened))
            snapshot.close()
        for snapshot, instant in opened:
            state = states[instant]
            assert snapshot.read(list("abc")) == [state.get(key) for key in "abc"]
            assert snapshot.scan(Scan(EVERYTHING, 10)) == Page(sorted(state.items()), None)
            backwards = snapshot.scan(Scan(EVERYTHING._replace(descending=True), 10))
            assert backwards == Page(sorted(state.items(), reverse=True), None)
            changed = {each["changed"] for each in log[instant + 1 :]}
            assert {key for key, _ in snapshot.conflicts([EVERYTHING], 10)} == changed
            assert {key for key, _ in snapshot.conflicts(list("abc"), 10)} == changed
        assert store.history.size == versions_seen(opened, log)
    for snapshot, _ in opened:
        snapshot.close()
    assert (store.history.size, len(store.dead), store.history.newest) == (0, 0, None)
    assert list(store.order) == sorted(current)


def test_a_million_puts_under_one_snapshot_keep_one_old_value() -> None:
    store = MemoryStore()
    store.apply({"hot": "first"}, 1)
    old = store.snapshot()
    for number in range(1_000_000):
        store.apply({"hot": str(number)}, 1)
    assert store.history.size == 1
    assert old.read(["hot"]) == ["first"]


def test_versions_that_only_closed_snapshots_saw_are_dropped_at_once() -> None:
    store = MemoryStore()
    store.apply({"hot": "first"}, 1)
    old = store.snapshot()
    between = []
    for number in range(1000):
        store.apply({"hot": str(number)}, 1)
        between.append(store.snapshot())
    store.apply({"hot": "last"}, 1)
    assert store.history.size == 1001
    for snapshot in between[::-1]:
        snapshot.close()
    assert store.history.size == 1
    assert old.read(["hot"]) == ["first"]


class CountingKey(str):
    """A key that counts how often any of its kind is looked up."""

    looked_up = 0

    def __hash__(self) -> int:
        CountingKey.looked_up += 1
        return super().__hash__()


def test_a_commit_looks_only_at_what_the_transaction_touched() -> None:
    store = MemoryStore()
    keys = [CountingKey(f"key{number:05}") for number in range(10_000)]
    for key in keys:
        store.apply({key: "x"}, 1)
    long = store.snapshot()  # pins ten thousand changes
    for key in keys:
        store.apply({key: "y"}, 1)
    snapshot = store.snapshot()
    store.apply({keys[1]: "z"}, 2)
    CountingKey.looked_up = 0
    assert snapshot.conflicts([EVERYTHING], 1) == [("key00001", 2)]
    assert snapshot.conflicts([Range("key09990", "key09999")], 1) == []
    assert snapshot.conflicts(keys[2:5], 1) == []
    assert CountingKey.looked_up < 20
    long.close()


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
    store.apply({**stored}, 1)
    txn = Transaction(store.snapshot(), False, 0)
    txn.write(own)
    scan = Scan(EVERYTHING._replace(descending=descending), limit)
    page = txn.overlay(scan, txn.snapshot.scan(txn.missing(scan)))  # type: ignore[arg-type]
    both = sorted(((key, value) for key, value in {**stored, **own}.items() if value is not None), reverse=descending)
    assert page.items == both[:limit]
    assert page.met == (both[limit][0] if len(both) > limit else None)
