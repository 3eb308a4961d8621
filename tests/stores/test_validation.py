"""Validation in pieces: right for every read set, whatever is committed between the pieces, and never much at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvd.errors import Conflict
from kvd.interfaces import Changed, Later, Range
from kvd.stores.memory.history import AT_ONCE
from kvd.stores.memory.store import MemoryStore
from kvd.stores.memory.validation import PIECE
from kvd.testing.conversations import Server
from tests.support.hosts import host

LETTERS = st.text("abc", min_size=1, max_size=3)
RANGES = st.builds(Range, LETTERS, st.none() | LETTERS, st.booleans())
WRITES = st.dictionaries(LETTERS, st.none() | st.just("x"), min_size=1, max_size=4)
READS: Any = st.lists(LETTERS | RANGES, max_size=6, unique=True)


def model(reads: list[str | Range], changed: dict[str, int], limit: int) -> Changed:
    """The changed keys in the order in which they were read, by brute force."""
    found: dict[str, int | None] = {}
    for read in reads:
        if isinstance(read, str):
            keys = [read]
        else:
            keys = sorted((key for key in changed if read.holds(key)), reverse=read.descending)
        for key in keys:
            if key in changed:
                found.setdefault(key, changed[key])
    return list(found.items())[:limit]


@settings(max_examples=300, deadline=None)
@given(st.lists(WRITES, max_size=5), st.lists(WRITES, max_size=8), READS, st.integers(1, 4))
def test_conflicts_are_those_of_the_model(
    before: list[dict[str, str | None]], after: list[dict[str, str | None]], reads: list[str | Range], limit: int
) -> None:
    store = MemoryStore()
    current: set[str] = set()
    for writes in before:
        store.data.apply(dict(writes), 1)
        current = {key for key in current | writes.keys() if writes.get(key, "x" if key in current else None)}
    snapshot = store.snapshot()
    changed: dict[str, int] = {}
    for number, writes in enumerate(after):
        store.data.apply(dict(writes), number)
        for key, value in writes.items():
            if value is not None or key in current:
                changed.setdefault(key, number)
        current = {key for key in current | writes.keys() if writes.get(key, "x" if key in current else None)}
    assert snapshot.conflicts(reads, limit) == model(reads, changed, limit)


def steps_of(found: Any) -> tuple[int, Any]:
    """How many pieces an answer comes in, and what it is."""
    assert isinstance(found, Later)
    number = 0
    while True:
        try:
            next(found.steps)
        except StopIteration as done:
            return number, done.value
        number += 1


NESTED: list[str | Range] = [Range("k" + "0" * length, None) for length in range(1, 300)]


def changed_much() -> tuple[MemoryStore, Any]:
    """A store with many keys, of which those in NESTED stay as they are, and a snapshot from before others changed."""
    store = MemoryStore()
    store.data.apply(dict.fromkeys([f"k{number:05}" for number in range(1, 8 * PIECE)], "x"), 1)
    snapshot = store.snapshot()
    for number in range(5 * PIECE):
        store.data.apply({f"a{number}": "x"}, 2)
    return store, snapshot


def test_many_nested_ranges_cost_no_more_than_one() -> None:
    _, snapshot = changed_much()
    pieces, found = steps_of(snapshot.conflicts([*NESTED, Range("a0", "a1")], 1))
    assert (pieces <= 5, found) == (True, [("a0", 2)])
    pieces, found = steps_of(snapshot.conflicts(NESTED, 1))
    assert (pieces <= 5, found) == (True, [])


def test_a_small_range_is_looked_at_by_its_keys_however_much_was_changed() -> None:
    _, snapshot = changed_much()
    assert snapshot.conflicts([Range("a10", "a11"), Range("k0001", "k0002")], 1) == [("a10", 2)]
    assert snapshot.conflicts([Range("b", "k")], 1) == []


@pytest.mark.parametrize("key", ["k00", "zzz", "a5"])
def test_what_is_committed_between_the_pieces_counts(key: str) -> None:
    store, snapshot = changed_much()
    found = snapshot.conflicts(NESTED, 1)
    assert isinstance(found, Later)
    store.data.apply({key: "late"}, 3)
    assert steps_of(found)[1] == ([(key, 3)] if key.startswith(("k", "z")) else [])
    assert store.data.history.watchers == []


def test_a_commit_in_pieces_stores_all_or_nothing() -> None:
    for late, outcome in (("a1", None), ("k05", "k05")):
        store, snapshot = changed_much()
        done = snapshot.commit(NESTED, {"mine": late}, 1)
        assert isinstance(done, Later)
        store.data.apply({late: "late"}, 3)
        if outcome is None:
            steps_of(done)
            assert store.latest().read(["mine"]) == ["a1"]
        else:
            with pytest.raises(Conflict, match=outcome):
                steps_of(done)
            assert store.latest().read(["mine"]) == [None]
        assert store.data.history.open == 0


def test_a_commit_in_pieces_is_not_ended_for_want_of_memory() -> None:
    store, _ = changed_much()
    told: list[str] = []
    snapshot = store.snapshot(told.append)
    for number in range(5 * PIECE):
        store.data.apply({f"b{number}": "x"}, 2)
    done = snapshot.commit(NESTED, {"mine": "1"}, 1)
    assert isinstance(done, Later)
    next(done.steps)
    store.data._end_oldest("memory is short")
    assert told == []
    steps_of(done)
    assert store.latest().read(["mine"]) == ["1"]


def test_others_are_served_while_a_commit_is_validated() -> None:
    server = Server()
    server.client(2).exchange(b"".join(b"PUT k%04d x\n" % place for place in range(1, 4000)))
    server.play("1 START -> ok\n1 PUT mine 1 -> ok\n1 COUNT PREFIX k -> 3999")
    for number in range(3):
        lines = b"".join(b"PUT a%d x\n" % place for place in range(number * 1000, number * 1000 + 1000))
        server.client(2).exchange(lines)
    server.client(1).protocol.dataReceived(b"COMMIT\n")
    assert server.client(1).received() == b""
    server.client(2).protocol.dataReceived(b"PING\n")
    assert server.client(2).received() != b""
    server.settle()
    assert server.client(1).received() == b'{"status": "Ok"}\n'
    server.play('2 GET mine -> "1"')


# Closing snapshots.


class Chores:
    """Runs what is left to the background step by step, when a test says so."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def run(self, number: int) -> None:
        for _ in range(number):
            for steps in list(self.steps):
                if next(steps, self) is self:
                    self.steps.remove(steps)


def store_with_chores() -> tuple[MemoryStore, Chores]:
    store, chores = MemoryStore(), Chores()
    store.start(host()._replace(background=chores.steps.append))
    return store, chores


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
@pytest.mark.parametrize("pause", [0, 1, 3])
def test_snapshots_are_right_while_others_are_closed_in_pieces(order: tuple[int, ...], pause: int) -> None:
    store, chores = store_with_chores()
    keys = [f"k{number:05}" for number in range(3 * AT_ONCE)]
    store.data.apply(dict.fromkeys(keys, "0"), 1)
    opened = []
    for number in range(3):
        opened.append((store.snapshot(), str(number)))
        store.data.apply(dict.fromkeys(keys, str(number + 1)), 1)
    left = dict(enumerate(opened))
    for place in order:
        left.pop(place)[0].close()
        for _ in range(pause):
            for snapshot, value in left.values():
                assert snapshot.read(keys) == [value] * len(keys)
                assert snapshot.conflicts([keys[7]], 1) == [(keys[7], 1)]
            chores.run(1)
            store.data.apply({keys[0]: "again"}, 1)
        for snapshot, value in left.values():
            assert snapshot.read(keys) == [value] * len(keys)
    assert store.data.history.account.held == 0
    chores.run(100)
    history = store.data.history
    assert (history.size, history.open, history.oldest, history.newest, history._records) == (0, 0, None, None, {})
    assert list(store.data.dead) == []


def test_keys_that_only_a_closed_snapshot_saw_are_forgotten_in_pieces() -> None:
    store, chores = store_with_chores()
    keys = [f"k{number:05}" for number in range(3 * AT_ONCE)]
    store.data.apply(dict.fromkeys(keys, "x"), 1)
    snapshot = store.snapshot()
    store.data.apply(dict.fromkeys(keys), 1)
    assert len(store.data.dead) == len(keys)
    snapshot.close()
    assert len(store.data.dead) == len(keys)
    store.data.apply({keys[0]: "back"}, 1)
    later = store.snapshot()
    store.data.apply({keys[1]: "back"}, 1)
    chores.run(100)
    assert list(store.data.dead) == []
    assert later.read(keys[:2]) == ["back", None]
    later.close()
    assert list(store.data.order) == keys[:2]


def test_a_closed_snapshot_keeps_no_other_alive() -> None:
    store = MemoryStore()
    marks = [store.snapshot()._mark for _ in range(5)]
    for mark in marks:
        store.data.history.close(mark)
        assert (mark.older, mark.newer, mark.records) == (None, None, [])
