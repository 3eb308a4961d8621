"""Simulated runs: the real server passes all of them, and every server that lies is caught.

Whatever fails here names its seed; ``python -m tests.support.simulation SEED`` shows that run packet by packet.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol

from kvd.core.connection import TURN_REQUESTS
from kvd.daemon.service import StoreService
from kvd.protocols.line import factory as line_factory
from kvd.stores.memory.store import MemoryStore
from tests.support.simulated_clients import Crowd
from tests.support.simulated_network import BusyClock, Network
from tests.support.simulated_typists import Request, Typewriter
from tests.support.simulation import LIES, Simulation

FIXED = [*range(100), 630688, 1054200603]  # the last two evict a connection in the middle of its own turn
NEW = [random.SystemRandom().getrandbits(32) for _ in range(12)]
HANDFUL = 60
"""How many seeds may be tried until a lie must have been caught."""

# Which checks catch a lie: what the problems that they find begin with.
CAUGHT_BY = {
    "no read check": ("history: lost-update", "history: G-single", "history: bank"),
    "no range check": ("history: G2", "history: bound"),
    "deletions missed": ("history: G2",),
    "snapshot taken late": ("history: late-snapshot", "history: G-single", "history: G1c"),
    "torn commit": ("history: bank", "history: G-single"),
    "acknowledged before stored": ("history: lost-update", "history: G", "history: linearizability", "history: bank"),
    "aborted write shows": ("history: G1a", "history: bank"),
    "applied twice": ("history: lost-update", "history: linearizability", "history: G", "history: bank"),
    "replies swapped": ("order: ",),
}


def test_fixed_seeds_find_nothing_wrong_with_the_server() -> None:
    for seed in FIXED:
        outcome = Simulation(seed).run()
        assert not outcome.problems, str(outcome)


@pytest.mark.parametrize("place", range(len(NEW)))
def test_new_seeds_find_nothing_wrong_with_the_server(place: int) -> None:
    outcome = Simulation(NEW[place]).run()
    assert not outcome.problems, str(outcome)


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_caught_by_a_handful_of_seeds(lie: str) -> None:
    found: list[str] = []
    for seed in range(HANDFUL):
        found += Simulation(seed, lie).run().problems
        if any(problem.startswith(CAUGHT_BY[lie]) for problem in found):
            return
    raise AssertionError(f"{lie}: {HANDFUL} seeds found only {found}")


def replay(hash_seed: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.simulation", *arguments],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("least", [400, 800])
@pytest.mark.parametrize("lie", ["", "torn commit"])
def test_a_seed_replays_byte_for_byte_whatever_the_hash_seed_is(lie: str, least: int) -> None:
    seed = next(seed for seed in FIXED if Simulation(seed, lie).run().requests > least)
    first, second = replay("1", str(seed), *lie.split()), replay("2", str(seed), *lie.split())
    assert first.stdout.count(b" gets ") > least / 10, first.stderr
    assert (first.stdout, first.returncode) == (second.stdout, second.returncode)


def test_a_replay_says_what_is_wrong_and_fails() -> None:
    seed = next(seed for seed in range(HANDFUL) if Simulation(seed, "torn commit").run().problems)
    told = replay("0", str(seed), "torn", "commit")
    assert told.returncode == 1
    assert b"problem: history: " in told.stdout
    assert b"What should have been seen" in told.stdout


def test_who_pipelines_gets_no_more_than_one_turn_before_that_of_others_who_wait() -> None:
    clock, rand, problems = BusyClock(2e-6), random.Random(0), list[str]()
    service = StoreService(MemoryStore(), clock)
    network = Network(clock, rand, line_factory(service), lambda line: None)
    network.latency, network.tears, network.stalls, network.room = 0.0001, 0.0, 0.0, 64 * 1024
    crowd = Crowd(clock, rand, network, problems)
    flood = b"".join(b"GET key%d\n" % number for number in range(20_000))
    answered = [0, 0]

    async def pipeline() -> None:
        link = Typewriter(crowd)
        await connectProtocol(network, link)
        link.send([Request(line + b"\n", lambda reply: count(0)) for line in flood.splitlines()])
        await link.wait()

    async def ask() -> None:
        link = Typewriter(crowd)
        await connectProtocol(network, link)
        while answered[0] < 20_000:
            link.send([Request(b"PING\n", lambda reply: count(1))])
            await link.wait()

    def count(who: int) -> None:
        answered[who] += 1

    done = [Deferred.fromCoroutine(each) for each in (pipeline(), *(ask() for _ in range(5)))]
    while not all(each.called for each in done):
        clock.advance(max(0.0, clock.calls[0].getTime() - clock.rightNow))
    assert not problems
    assert network.most_at_once == TURN_REQUESTS  # the flood was there, and came in turns
    # One turn's replies may be on their way out when the request arrives; one more turn comes before its own.
    assert network.most_before <= 2 * TURN_REQUESTS
    assert answered[1] > 20_000 / TURN_REQUESTS  # others were served at least once in each of its turns
