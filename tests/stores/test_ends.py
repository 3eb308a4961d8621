"""Keys that end, in the memory store: to the millisecond, in pieces, and without leaving anything behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from kvd.accounts import MIB
from kvd.errors import Conflict, OutOfMemory
from kvd.interfaces import END_BYTES, Count, Ending, Later, Page, Range, Scan, ServerClock, Stored
from kvd.stores.memory.data import SWEEP, pair_bytes
from kvd.stores.memory.history import record_bytes
from kvd.stores.memory.snapshots import MemorySnapshot
from kvd.stores.memory.store import MemoryStore
from kvd.testing.conversations import Server
from kvd.testing.faulty_store import whole
from kvd.testing.stores import slow_sync_store
from tests.support.hosts import host

EVERYTHING = Range("", None)
KEYS = "abc"


class World:
    """A store whose time and background stand still until a test moves them."""

    def __init__(self) -> None:
        self.chores: list[Iterator[None]] = []
        self.store = MemoryStore()
        self.host = host()._replace(background=self.chores.append)
        self.store.start(self.host)
        self.data = self.store.data
        self.clock: Clock = self.host.reactor

    def pass_to(self, milliseconds: int) -> None:
        """Go on to a time."""
        self.clock.advance((milliseconds - self.data.clock.now()) / 1000)
        assert self.data.clock.now() == milliseconds

    def work(self) -> None:
        """Do all that is to be done in the background."""
        while self.chores:
            for _ in self.chores.pop(0):
                pass


# The millisecond.


def test_a_key_is_there_a_millisecond_before_its_end_and_gone_at_its_end() -> None:
    server = Server()
    server.clock.advance(1.0)
    server.play("""
        1 ["PUT", "a", "1", "2.5"]  -> ok
        1 PUT b 2                   -> ok
        1 SCAN ENDS                 -> {"items": [["a", "1", 3500], ["b", "2", null]], "next": null}
    """)
    server.clock.rightNow = 3.499
    server.play("""
        1 TTL a             -> 0.001
        1 MGET a b          -> ["1", "2"]
        1 COUNT             -> 2
        1 EXISTS a          -> true
        2 START READONLY    -> ok
    """)
    server.clock.rightNow = 3.5
    server.play("""
        1 TTL a             -> null
        1 MGET a b          -> [null, "2"]
        2 GET a             -> "1"
        2 TTL a             -> 0
        1 COUNT             -> 1
        1 EXISTS a          -> false
        2 COUNT             -> 2
        1 SCAN KEYS         -> {"items": ["b"], "next": null}
    """)


@pytest.mark.parametrize(
    ("seconds", "end"), [("1", 1000), ("0.001", 1), ("0.0001", 1), ("1.0010", 1001), ("1.00101", 1002)]
)
def test_seconds_are_rounded_up_to_the_millisecond(seconds: str, end: int) -> None:
    server = Server()
    server.play(f"""
        1 PUT a 1            -> ok
        1 EXPIRE a {seconds} -> true
        1 SCAN ENDS          -> {{"items": [["a", "1", {end}]], "next": null}}
    """)


def test_the_clock_starts_where_it_is_told_and_never_goes_back() -> None:
    ticks = [70]
    clock = ServerClock(lambda: ticks[0], 5000)
    assert clock.now() == 5000
    ticks[0] = 75
    clock.not_before(4000)
    assert clock.now() == 5005
    clock.not_before(6000)
    assert clock.now() == 6000
    ticks[0] = 76
    assert clock.now() == 6001


# What snapshots see, and who is in conflict.

ENDS = st.one_of(st.none(), st.integers(-2, 5))
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from("12"), ENDS),
        st.tuples(st.just("delete"), st.sampled_from(KEYS)),
        st.tuples(st.just("wait"), st.integers(1, 3)),
        st.tuples(st.just("sweep")),
        st.tuples(st.just("open")),
        st.tuples(st.just("close"), st.integers(0, 5)),
        st.tuples(st.just("look"), st.sampled_from([["a"], ["b", "c"], [EVERYTHING], ["a", Range("b", None)]])),
    ),
    max_size=40,
)


class Model:
    """What there is, and all that ever changed, by brute force."""

    def __init__(self) -> None:
        self.now = 0
        self.held: dict[str, Stored] = {}
        self.log: list[tuple[str, int]] = []  # each change: a key, and by whom
        self.states: list[dict[str, Stored]] = [{}]  # after each

    def change(self, key: str, stored: Stored | None, by: int) -> None:
        self.held = {**self.held}
        self.held.pop(key, None)
        if stored is not None:
            self.held[key] = stored
        self.log.append((key, by))
        self.states.append(self.held)

    def wait(self, time: int) -> None:
        self.now = time
        for key, stored in list(self.held.items()):
            if isinstance(stored, Ending) and stored.end <= time:
                self.change(key, None, 0)

    def changed_after(self, place: int, reads: list[Any]) -> dict[str, int]:
        found: dict[str, int] = {}
        for key, by in self.log[place:]:
            if any(key == read if isinstance(read, str) else read.holds(key) for read in reads):
                found.setdefault(key, by)
        return found


@settings(max_examples=600, deadline=None)
@given(ACTIONS)
@example([("put", "a", "1", 1), ("open",), ("wait", 1), ("open",), ("put", "a", "2", None), ("look", ["a"])])
@example([("put", "a", "1", 2), ("open",), ("wait", 2), ("open",), ("sweep",), ("close", 0), ("put", "a", "1", 1)])
@example([("put", "a", "1", 3), ("open",), ("put", "b", "1", None), ("open",), ("put", "a", "1", -1), ("sweep",)])
def test_snapshots_and_conflicts_are_those_of_a_model(actions: list[tuple[str, Any]]) -> None:
    world, model = World(), Model()
    world.pass_to(10)
    model.wait(10)
    data = world.data
    opened: list[tuple[MemorySnapshot, int]] = []
    for action, *rest in actions:
        if action == "put":
            key, value, offset = rest
            stored: Stored = value if offset is None else Ending(value, model.now + offset)
            data.apply({key: stored}, 7)
            model.change(key, stored, 7)
            model.wait(model.now)
        elif action == "delete":
            data.apply({rest[0]: None}, 7)
            if rest[0] in model.held:
                model.change(rest[0], None, 7)
        elif action == "wait":
            world.pass_to(model.now + rest[0])
            model.wait(model.now + rest[0])
        elif action == "sweep":
            data.sweep(1)
        elif action == "open":
            opened.append((world.store.snapshot(), len(model.log)))
        elif action == "close" and opened:
            opened.pop(rest[0] % len(opened))[0].close()
        elif action == "look":
            for snapshot, place in opened:
                found = dict(whole(snapshot.conflicts(rest[0], 10)))
                assert found == model.changed_after(place, rest[0])
        keys = list(KEYS)
        now = [(model.held, world.store.latest()), *((model.states[place], snapshot) for snapshot, place in opened)]
        for state, view in now:
            assert view.read_with_ends(keys) == [state.get(key) for key in keys]
            ordered = sorted(state.items())
            if action == "look":  # these sweep
                assert whole(view.scan(Scan(EVERYTHING, 10, ends=True))) == Page(ordered, None)
                assert whole(view.count(Count(EVERYTHING))) == len(state)
    while data.sweep(1):
        pass
    for snapshot, place in opened:
        assert dict(whole(snapshot.conflicts([EVERYTHING], 10))) == model.changed_after(place, [EVERYTHING])
        assert snapshot.read_with_ends(list(KEYS)) == [model.states[place].get(key) for key in KEYS]
    assert list(data.order) == sorted(model.held)
    assert data.ends.size == sum(isinstance(stored, Ending) for stored in model.held.values())
    assert data.account.held == sum(pair_bytes(*pair) for pair in model.held.items())
    seen = {}
    for _, place in opened:  # what is held is what somebody sees
        for key in KEYS:
            changes = [number for number in range(place, len(model.log)) if model.log[number][0] == key]
            if changes:
                seen[key, changes[0]] = record_bytes(key, model.states[place].get(key))
    assert (data.history.size, data.history.account.held) == (len(seen), sum(seen.values()))
    for snapshot, _ in opened:
        snapshot.close()
    assert (data.history.size, len(data.dead), data.history.newest) == (0, 0, None)


def test_a_commit_that_read_a_key_meets_its_end_also_before_it_is_swept() -> None:
    world = World()
    for reads in (["a"], [EVERYTHING]):
        world.data.apply({"a": Ending("1", world.data.clock.now() + 5)}, 1)
        snapshot = world.store.snapshot()
        world.pass_to(world.data.clock.now() + 5)
        with pytest.raises(Conflict, match="'a' ended after") as error:
            snapshot.commit(reads, {"b": "1"}, 2)
        assert error.value.fields == {"key": "a", "by": 0}


def test_what_ends_while_a_commit_is_validated_in_pieces_is_a_conflict() -> None:
    world = World()
    data = world.data
    data.apply({f"k{number:05}": "x" for number in range(3000)}, 1)
    data.apply({"z": Ending("x", 5)}, 1)
    snapshot = world.store.snapshot()
    data.apply({f"j{number:05}": "x" for number in range(3000)}, 1)
    done = snapshot.commit([Range("k", None)], {"b": "1"}, 2)
    assert isinstance(done, Later)
    next(done.steps)
    world.pass_to(5)
    with pytest.raises(Conflict, match="'z' ended after"):
        whole(done)


# Many at once.


class CountedSteps:
    """Counts how many keys are removed in each step."""

    def __init__(self, world: World) -> None:
        self._data = world.data
        self.most = 0

    def take(self, steps: Iterator[Any]) -> Any:
        """Take all steps; what they return."""
        while True:
            before = len(self._data.values)
            try:
                next(steps)
            except StopIteration as done:
                return done.value
            finally:
                self.most = max(self.most, before - len(self._data.values))


def world_of(number: int) -> World:
    world = World()
    world.data.apply({f"k{place:06}": Ending("x", 1000) for place in range(number)}, 1)
    return world


def test_a_hundred_thousand_keys_that_end_together_are_removed_in_small_steps() -> None:
    world = world_of(100_000)
    count = CountedSteps(world)
    world.pass_to(1000)
    assert len(world.data.values) == 100_000
    for chore in world.chores:  # the alarm has rung
        count.take(chore)
    assert len(world.data.values) == len(world.data.order) == world.data.ends.size == 0
    assert world.data.account.held == 0
    assert 0 < count.most <= SWEEP


def test_who_asks_meanwhile_is_answered_at_once_or_in_small_steps() -> None:
    world = world_of(5000)
    latest = world.store.latest()
    old = world.store.snapshot()
    world.clock.rightNow = 1.0  # the alarm has not rung yet
    count = CountedSteps(world)
    assert latest.read(["k000007"]) == [None]
    assert len(world.data.values) == 5000
    young = world.store.snapshot()
    counted = latest.count(Count(EVERYTHING))
    assert isinstance(counted, Later)
    next(counted.steps)
    for view, expected in ((young, 0), (old, 5000)):
        answer = view.count(Count(EVERYTHING))
        assert (count.take(answer.steps) if isinstance(answer, Later) else answer) == expected
    assert count.take(counted.steps) == 0
    assert old.read(["k000007"]) == ["x"]
    conflicts = old.conflicts([EVERYTHING], 1)
    assert isinstance(conflicts, Later)
    assert count.take(conflicts.steps) == [("k000000", 0)]
    assert young.conflicts([EVERYTHING], 1) == []
    assert count.most <= SWEEP


def test_a_page_waits_for_no_sweep() -> None:
    world = world_of(5000)
    world.data.apply({"z": "there"}, 1)
    world.clock.rightNow = 1.0
    page = world.store.latest().scan(Scan(EVERYTHING, 1))
    assert isinstance(page, Later)
    count = CountedSteps(world)
    assert count.take(page.steps) == Page([("z", "there")], None)
    assert count.most <= SWEEP


def test_the_alarm_has_one_call_however_many_keys_end() -> None:
    world = World()
    for number in range(1000, 0, -1):
        world.data.apply({f"k{number}": Ending("x", number * 10)}, 1)
        world.data.apply({"moved": Ending("x", 20_000 + number)}, 1)
    assert len(world.clock.getDelayedCalls()) == 1
    world.pass_to(10_000)
    world.work()
    assert list(world.data.order) == ["moved"]
    assert len(world.clock.getDelayedCalls()) == 1
    world.store.stop()
    assert world.clock.getDelayedCalls() == []


def test_memory_is_freed_while_nobody_asks_and_however_far_the_end_is() -> None:
    world = World()
    world.data.apply({"a": Ending("x", 10**9), "b": Ending("x", 2**63 - 1)}, 1)
    for hour in range(1, 300):
        world.pass_to(hour * 3_600_000)
        world.work()
    assert list(world.data.order) == ["b"]


def test_a_session_that_is_refreshed_over_and_over_leaves_nothing_behind() -> None:
    world = World()
    world.data.apply({f"k{place}": Ending("x", 10**9) for place in range(10)}, 1)
    used = world.data.budget.used
    for number in range(20_000):
        world.data.apply({"k3": Ending("x", 10**9 + number)}, 1)
    assert world.data.ends.size == 10
    assert world.data.budget.used == used
    world.data.apply({f"k{place}": "x" for place in range(10)}, 1)
    assert world.data.ends.size == 0
    assert world.data.budget.used == used - 10 * END_BYTES


# The memory limit.


def test_at_the_memory_limit_an_end_can_be_given_and_taken_away() -> None:
    server = Server()
    store = server.service.store
    assert isinstance(store, MemoryStore)
    server.play("1 PUT a 1 -> ok")
    store.data.budget.room = store.data.budget.used
    server.play("""
        1 EXPIRE a 100              -> true
        1 PUT b 1                   -> OUT_OF_MEMORY
        1 EXPIRE a 200              -> true
        1 ["PUT", "a", "2", 100]    -> ok
        1 PERSIST a                 -> true
        1 ["PUT", "b", "2", 100]    -> OUT_OF_MEMORY
    """)


def test_a_new_key_pays_for_its_end() -> None:
    world = World()
    stored = Ending("value", 1000)
    world.data.budget.room = pair_bytes("key", "value") + END_BYTES - 1
    with pytest.raises(OutOfMemory):
        world.data.apply({"key": stored}, 1)
    world.data.apply({"key": "value"}, 1)
    world.data.apply({"key": stored}, 1)
    assert world.data.budget.used == pair_bytes("key", stored) < MIB


# What must be durable before anybody is told.


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *[("GET a", "null"), ("EXISTS b", "false"), ("COUNT", "1"), ("SCAN KEYS", '["c"]')],
        *[("START READONLY\nGET a", "null"), ("START READONLY\nCOUNT", '"result": 1')],
    ],
)
@pytest.mark.parametrize("swept", [False, True])
def test_that_a_key_has_ended_is_told_when_the_time_is_durable(question: str, answer: str, swept: bool) -> None:
    clock = Clock()
    store, _ = slow_sync_store(clock)
    server = Server(store, clock)
    server.play("""
        1 ["PUT", "a", "1", 1] -> ok
        1 ["PUT", "b", "1", 1] -> ok
        1 PUT c 1              -> ok
    """)
    clock.rightNow = 2.0
    if swept:
        store.data.sweep(10)
    client = server.client()
    client.protocol.dataReceived(b"GET c\n")
    assert client.received() == b'{"status": "Ok", "result": "1"}\n'
    client.protocol.dataReceived(question.encode() + b"\n")
    assert answer not in client.received().decode()
    server.settle()
    assert answer in client.received().decode()
