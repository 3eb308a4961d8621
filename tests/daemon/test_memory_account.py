"""The account of memory is the truth: whatever clients make grow, INFO says so, and the process takes little more.

Stated: what the process has come to take is at most 1.3 times what INFO says that is held, and 16 MiB.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.daemon import Client, Daemon

MIB = 2**20
ENOUGH = 24 * MIB
FACTOR, SLACK = 1.3, 16 * MIB


class Grower:
    """Makes a daemon grow, in one way or another, with connections of its own."""

    def __init__(self, daemon: Daemon, seed: int = 0) -> None:
        self.daemon = daemon
        self.random = random.Random(seed)
        self.numbers = count()
        self.client = daemon.client()

    def ask(self, *lines: str, client: Client | None = None) -> None:
        """Send lines as one batch, and read the replies."""
        client = client or self.client
        client.send("".join(f"{line}\n" for line in lines).encode())
        for _ in lines:
            client.line()

    def key(self, size: int = 10) -> str:
        """A key that was not there before."""
        return f"{next(self.numbers):0{size}}"

    def fill(self, keys: list[str], size: int = 10) -> None:
        """Store some pairs."""
        for start in range(0, len(keys), 200):
            self.ask(*(f"PUT {key} {'v' * size}" for key in keys[start : start + 200]))


def small_pairs(g: Grower) -> Iterator[None]:
    while True:
        g.fill([g.key() for _ in range(2000)])
        yield


def large_pairs(g: Grower) -> Iterator[None]:
    while True:
        g.fill([g.key() for _ in range(20)], 100_000)
        yield


def long_keys(g: Grower) -> Iterator[None]:
    while True:
        g.fill([g.key(1000) for _ in range(400)], 0)
        yield


def savepoints(g: Grower) -> Iterator[None]:
    g.ask("START")
    while True:
        g.ask(*["SAVEPOINT a"] * 5000)
        yield


def savepoints_with_writes(g: Grower) -> Iterator[None]:
    g.ask("START")
    while True:
        g.ask(*(line for number in range(100) for line in (f"SAVEPOINT s{number}", f"PUT k{number} {'v' * 500}")))
        yield


def reads_of_absent_keys(g: Grower) -> Iterator[None]:
    while True:
        client = g.daemon.client()
        g.ask("START", *(f"GET {g.key(900)}" for _ in range(3000)), client=client)
        yield


def reads_of_ranges(g: Grower) -> Iterator[None]:
    while True:
        client = g.daemon.client()
        g.ask("START", *(f"COUNT PREFIX {g.key(900)}" for _ in range(3000)), client=client)
        yield


def writes_of_transactions(g: Grower) -> Iterator[None]:
    while True:
        client = g.daemon.client()
        g.ask("START", *(f"PUT {g.key()} {'v' * 900}" for _ in range(3000)), client=client)
        yield


def deletions_of_transactions(g: Grower) -> Iterator[None]:
    while True:
        client = g.daemon.client()
        g.ask("START", *(f"DEL {g.key(900)}" for _ in range(3000)), client=client)
        yield


def old_values(g: Grower) -> Iterator[None]:
    keys = [g.key() for _ in range(3000)]
    g.fill(keys, 900)
    while True:
        g.ask("START READONLY", client=g.daemon.client())
        g.fill(keys, 900)
        yield


def old_keys(g: Grower) -> Iterator[None]:
    g.ask("START READONLY", client=g.daemon.client())
    while True:
        keys = [g.key(1000) for _ in range(1000)]
        g.fill(keys, 0)
        g.ask(*(f"DEL {key}" for key in keys))
        yield


def half_lines(g: Grower) -> Iterator[None]:
    while True:
        g.daemon.client().send(b"PUT half " + b"x" * 4_000_000)
        yield


def replies_that_are_not_read(g: Grower) -> Iterator[None]:
    g.ask(f"PUT big {'x' * 1_000_000}")
    while True:
        g.daemon.client().send(b"MGET big big big big big big big big big big\n" * 2)
        yield


def idle_connections(g: Grower) -> Iterator[None]:
    while True:
        for _ in range(100):
            g.ask("PING", client=g.daemon.client())
        yield


GROWERS: list[Callable[[Grower], Iterator[None]]] = [
    small_pairs,
    large_pairs,
    long_keys,
    savepoints,
    savepoints_with_writes,
    reads_of_absent_keys,
    reads_of_ranges,
    writes_of_transactions,
    deletions_of_transactions,
    old_values,
    old_keys,
    half_lines,
    replies_that_are_not_read,
    idle_connections,
]


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that nothing here brings to its limit."""
    with Daemon(tmp_path, "--port", "0", "--max-memory", "1G", "--transaction-bytes", "512M") as daemon:
        yield daemon.started()


def account(client: Client) -> tuple[int, int]:
    """What INFO says that is held, and what the process takes."""
    store = json.loads(client.ask("INFO store"))["result"]
    return store["memory"], store["resident"]


def assert_agrees(before: tuple[int, int], after: tuple[int, int]) -> None:
    held, taken = after[0] - before[0], after[1] - before[1]
    assert taken <= FACTOR * held + SLACK, f"{taken / MIB:.1f} MiB taken, {held / MIB:.1f} MiB accounted for"


@pytest.mark.parametrize("grow", GROWERS, ids=lambda grow: grow.__name__)
def test_what_grows_is_accounted_for(roomy: Daemon, grow: Callable[[Grower], Iterator[None]]) -> None:
    watcher = roomy.client()
    before = account(watcher)
    for number, _ in enumerate(grow(Grower(roomy))):
        after = account(watcher)
        if after[0] - before[0] > ENOUGH or after[1] - before[1] > 3 * ENOUGH or number == 40:
            break
    assert_agrees(before, after)


@pytest.mark.parametrize("seed", range(3))
def test_random_programs_are_accounted_for(roomy: Daemon, seed: int) -> None:
    rand = random.Random(seed)
    watcher = roomy.client()
    before = account(watcher)
    growing = [grow(Grower(roomy, seed)) for grow in rand.sample(GROWERS, 7)]
    for _ in range(40):
        next(rand.choice(growing))
        after = account(watcher)
        assert_agrees(before, after)
        if after[0] - before[0] > 8 * ENOUGH:
            break
