"""The memory store's account: it says what it holds, and refuses what has no room before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.accounts import MIB, spare
from kvd.core.arguments import MAX_VALUE
from kvd.errors import BadArguments, OutOfMemory, Unavailable
from kvd.interfaces import Later, Range, Scan, Stored, Writes
from kvd.stores.memory.store import MemoryStore, memory
from tests.support.hosts import host

KEYS = st.sampled_from(["a", "b", "clé"])
VALUES = st.one_of(st.none(), st.text("xé€😀", max_size=200))


def price(pairs: Mapping[str, Stored]) -> int:
    return sum(getsizeof(key) + getsizeof(value) + 100 for key, value in pairs.items())


def store_with_room(room: int) -> MemoryStore:
    store = MemoryStore()
    store.start(host())
    store.data.budget.room = room
    return store


@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1), max_size=30), st.integers(200, 3000))
def test_what_grows_is_stored_if_and_only_if_there_is_room(commits: list[Writes], room: int) -> None:
    store = store_with_room(room)
    current: dict[str, Stored] = {}
    for writes in commits:
        after = {key: value for key, value in {**current, **writes}.items() if value is not None}
        assert store.data.growth(writes) == price(after) - price(current)
        if price(after) > max(room, price(current)):
            with pytest.raises(OutOfMemory):
                store.data.apply(writes, 1)
        else:
            store.data.apply(writes, 1)
            current = after
        assert store.data.budget.used == price(current)
        assert [store.data.values.get(key) for key in ("a", "b", "clé")] == [
            current.get(key) for key in ("a", "b", "clé")
        ]
        assert list(store.data.order) == sorted(current)
        assert store.info()["keys"] == len(current)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_even_the_largest_values_are_refused_where_they_have_no_room(number: int) -> None:
    largest = "x" * (MAX_VALUE - 4) + "😀"  # one such character makes Python keep four bytes for each
    assert getsizeof(largest) > 4 * (MIB - 4)
    writes: Writes = {"k" * 1023 + str(place): largest for place in range(number)}
    whole = number * (getsizeof(largest) + getsizeof("k" * 1024) + 100)
    with pytest.raises(OutOfMemory):
        store_with_room(whole - 1).data.apply(writes, 1)
    store = store_with_room(whole)
    store.data.apply(writes, 1)
    assert store.data.budget.used == whole


@pytest.mark.parametrize(
    ("limit", "keys", "most"),
    [(1_200_000, 2000, 300_000), (1_000_000, 4300, 1_000_000 + spare(1_000_000) - 4300 * (49 + 8 + 49 + 1 + 100))],
)
def test_snapshots_are_given_up_when_old_values_take_over_a_quarter_or_all_that_is_left(
    limit: int, keys: int, most: int
) -> None:
    store = MemoryStore()
    store.start(host(limit))
    store.data.apply({f"key{number:05}": "x" for number in range(keys)}, 1)
    told: list[str] = []
    owned, other = store.snapshot(told.append), store.snapshot()
    pieces = other.scan(Scan(Range("", None), 2000))
    assert isinstance(pieces, Later)
    number = 0
    while store.data.history.newest is not None:
        assert store.data.history.account.held == number * (250 + 50 + 57) <= most
        store.data.apply({f"key{number:05}": "y"}, 1)
        number += 1
    assert number == most // 357 + 1
    assert told == [f"the old values that it and others could see took {number * 357} bytes of memory, too much"]
    assert store.data.history.account.held == 0
    assert store.data.budget.used == price(dict.fromkeys(store.data.order, "x"))
    with pytest.raises(Unavailable, match="given up because memory was short"):
        list(pieces.steps)
    owned.close()  # does nothing more
    other.close()


@pytest.mark.parametrize("mebibytes", [1, 4, 5, 7])
def test_nothing_grows_however_much_is_there_already(mebibytes: int) -> None:
    store = store_with_room(100 * MIB)
    store.data.apply({f"key{number}": "x" * MIB for number in range(mebibytes)}, 1)
    store.data.budget.room = store.data.budget.used
    with pytest.raises(OutOfMemory):
        store.data.apply({"more": ""}, 1)
    store.data.apply({"key0": "less"}, 1)


def test_one_byte_more_is_too_much_where_no_room_is_left() -> None:
    store = store_with_room(49 + 3 + 49 + 5 + 100)
    store.data.apply({"key": "value"}, 1)
    with pytest.raises(OutOfMemory):
        store.data.apply({"key": "values"}, 1)
    store.data.apply({"key": "VALUE"}, 1)
    assert store.data.values.get("key") == "VALUE"


def test_it_takes_no_argument() -> None:
    assert isinstance(memory(""), MemoryStore)
    with pytest.raises(BadArguments, match="takes no argument, but was given 'x'"):
        memory("x")
