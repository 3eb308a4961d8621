"""A store may answer each call at once or later: whichever it is, a plain command is atomic and loses no update."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from kvd.errors import Conflict
from kvd.testing.conversations import Server
from kvd.testing.stores import FickleStore, SlowStore


class ReadsAtOnce(SlowStore):
    """Reads at once, and commits later."""

    def later(self, act: Callable[[], Any], give_up: Callable[[], None] | None = None) -> Any:
        return act() if give_up is None else super().later(act, give_up)


class CommitsAtOnce(SlowStore):
    """Reads later, and commits at once."""

    def later(self, act: Callable[[], Any], give_up: Callable[[], None] | None = None) -> Any:
        return super().later(act, give_up) if give_up is None else act()


class MeetsConflicts(SlowStore):
    """Does all at once; half of the commits meet a conflict, as if another server had been faster."""

    def later(self, act: Callable[[], Any], give_up: Callable[[], None] | None = None) -> Any:
        if give_up is not None and self.random.random() < 0.5:
            give_up()
            raise Conflict("another server was faster", key="?")
        return act()


STORES = [ReadsAtOnce, CommitsAtOnce, MeetsConflicts, FickleStore, SlowStore]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("seed", range(5))
def test_concurrent_incrs_all_count(kind: type[SlowStore], seed: int) -> None:
    clock = Clock()
    server = Server(kind(clock, seed), clock)
    clients = [server.client(number) for number in range(1, 9)]
    for client in clients:
        client.protocol.dataReceived(b"INCR n\nINCR n\n")
    server.settle()
    sums = sorted(json.loads(line)["result"] for client in clients for line in client.received().splitlines())
    assert sums == list(range(1, 17))


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("seed", range(5))
def test_of_concurrent_cas_on_one_value_one_succeeds(kind: type[SlowStore], seed: int) -> None:
    clock = Clock()
    server = Server(kind(clock, seed), clock)
    server.play("9 PUT a 0 -> ok")
    for number in range(1, 9):
        server.client(number).protocol.dataReceived(b"CAS a 0 %d\n" % number)
    server.settle()
    swapped = [number for number in range(1, 9) if json.loads(server.client(number).received())["result"]]
    assert len(swapped) == 1
    server.play(f'9 GET a -> "{swapped[0]}"')


@pytest.mark.parametrize("kind", STORES)
def test_no_snapshot_is_left_open(kind: type[SlowStore]) -> None:
    clock, rand = Clock(), random.Random(0)
    store = kind(clock, 0)
    server = Server(store, clock)
    server.play("1 PUT word x -> ok")
    commands = [b"GET a", b"INCR n", b"INCR word", b"CAS a x y", b"MGET a b", b"COUNT", b"SCAN", b"PUT a 1", b"DEL a"]
    for _ in range(30):
        for number in range(1, 6):
            server.client(number).protocol.dataReceived(rand.choice(commands) + b"\n")
        server.settle()
    assert store.memory.data.history.newest is None
