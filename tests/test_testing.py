"""What users' own unit tests may rely on: client and server joined in memory."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from kvd.client import Client, Transaction, connect
from kvd.errors import Conflict, OutcomeUnknown, Unavailable
from kvd.testing import MemoryServer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def client(server: MemoryServer) -> Client:
    return server.connect()


async def add_one(txn: Transaction, key: str) -> None:
    await txn.put(key, str(int(await txn.get(key) or 0) + 1))


async def once(client: Client, key: str) -> None:
    """Add one, without trying again."""
    async with client.transaction() as txn:
        await add_one(txn, key)


def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    server = MemoryServer()
    client = server.connect()
    server.run(client.transact(add_one, "a"))
    assert server.run(client.get("a")) == "1"


def test_importing_it_does_not_choose_a_reactor() -> None:
    script = "import sys, kvd.client, kvd.testing; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_nothing_moves_before_it_is_told_to(server: MemoryServer, client: Client) -> None:
    done: list[Any] = []
    client.put("a", "1").addCallback(done.append)
    assert done == []
    server.flush()
    assert done == [None]
    assert server.clock.seconds() == 0


def test_code_under_test_may_connect_by_itself(server: MemoryServer) -> None:
    async def program() -> str | None:
        client = await connect(server.clock, server.endpoint)
        await client.put("a", "1")
        value = await client.get("a")
        await client.disconnect()
        return value

    assert server.run(program()) == "1"


def test_each_server_has_its_own_data(client: Client, server: MemoryServer) -> None:
    server.run(client.put("a", "1"))
    other = MemoryServer()
    assert other.run(other.connect().get("a")) is None


def test_what_the_code_under_test_raises_comes_out_of_run(server: MemoryServer) -> None:
    async def fails() -> None:
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        server.run(fails())


def test_waiting_for_what_never_comes_ends(server: MemoryServer) -> None:
    with pytest.raises(AssertionError, match="no result within 600 seconds of virtual time"):
        server.run(Deferred())


def test_time_passes_event_by_event(server: MemoryServer, client: Client) -> None:
    at: list[float] = []

    async def program() -> None:
        for _ in range(3):
            await deferLater(server.clock, 10)
            await client.put("a", "1")
            at.append(server.clock.seconds())

    program_ends = Deferred.fromCoroutine(program())
    server.advance(25)
    assert at == [10, 20]
    server.run(program_ends)
    assert at == [10, 20, 30]


def test_the_clock_alone_moves_everything_too(server: MemoryServer, client: Client) -> None:
    found: list[str | None] = []
    client.get("a").addCallback(found.append)
    server.clock.advance(0)
    assert found == [None]


# Faults.


def test_a_conflict_on_demand_is_met_once(server: MemoryServer, client: Client) -> None:
    server.conflict_at_next_commit()
    with pytest.raises(Conflict):
        server.run(once(client, "a"))
    assert server.run(client.get("a")) is None
    server.run(once(client, "a"))
    assert server.run(client.get("a")) == "1"


def test_a_conflict_on_demand_never_meets_plain_commands_or_what_only_reads(
    server: MemoryServer, client: Client
) -> None:
    async def read() -> None:
        async with client.transaction() as txn:
            await txn.get("a")

    server.conflict_at_next_commit()
    server.run(client.put("a", "1"))
    server.run(read())
    server.store_delay = 1
    server.run(client.incr("a"))
    with pytest.raises(Conflict):
        server.run(once(client, "a"))
    assert server.run(client.get("a")) == "2"


def test_a_link_lost_before_a_commit_stores_nothing_and_after_it_all(server: MemoryServer, client: Client) -> None:
    server.lose_link_before_next_commit()
    with pytest.raises(Unavailable, match="nothing was stored"):
        server.run(once(client, "a"))
    assert server.run(client.get("a")) is None
    server.lose_link_after_next_commit()
    server.run(once(client, "a"))
    assert server.run(client.get("a")) == "1"
    server.run(once(client, "a"))
    assert server.run(client.get("a")) == "2"


def test_a_commit_without_reply_is_of_unknown_outcome_while_the_server_tells_no_outcomes(
    server: MemoryServer, client: Client
) -> None:
    server.tells_outcomes = False
    for lose, stored in ((server.lose_link_before_next_commit, None), (server.lose_link_after_next_commit, "1")):
        lose()
        with pytest.raises(OutcomeUnknown):
            server.run(client.transact(add_one, "a"))
        assert server.run(client.get("a")) == stored
    server.tells_outcomes = True
    server.lose_link_after_next_commit()
    server.run(client.transact(add_one, "a"))
    assert server.run(client.get("a")) == "2"


def test_a_link_lost_at_a_commit_spares_the_others(server: MemoryServer, client: Client) -> None:
    server.lose_link_after_next_commit()
    value = client.get("a")
    server.run(once(client, "a"))
    assert server.run(value) is None
    assert server.run(client.info("clients"))["accepted"] == 3  # the third asked what became of the COMMIT


def test_a_commit_that_a_slow_store_has_accepted_is_stored_though_its_link_is_lost(
    server: MemoryServer, client: Client
) -> None:
    server.store_delay = 1
    server.lose_link_after_next_commit()
    server.tells_outcomes = False
    client = server.connect(retry_for=0.5)
    with pytest.raises(OutcomeUnknown):
        server.run(client.transact(add_one, "a"))
    server.store_delay = 0
    assert server.run(client.get("a")) is None
    server.advance(1)
    assert server.run(client.get("a")) == "1"


def test_a_slow_store_takes_its_time_for_every_answer(server: MemoryServer, client: Client) -> None:
    server.store_delay = 2
    server.run(client.get("a"))
    assert server.clock.seconds() == 2
    server.run(once(client, "a"))  # START, GET, COMMIT
    assert server.clock.seconds() == 8


def test_a_slow_store_mixes_nothing_up(server: MemoryServer, client: Client) -> None:
    server.store_delay = 0.01
    others = [server.connect() for _ in range(5)]
    server.run(gatherResults([other.incr("n") for other in others]))
    server.run(gatherResults([other.transact(add_one, "n") for other in others]))
    assert server.run(client.get("n")) == "10"


def test_a_store_that_takes_too_long_is_unavailable(server: MemoryServer, client: Client) -> None:
    server.store_delay = 31
    with pytest.raises(Unavailable, match="the store did not answer in time"):
        server.run(client.get("a"))


def test_a_network_delay_holds_each_batch_and_none_overtakes_another(server: MemoryServer, client: Client) -> None:
    server.network_delay = lambda from_client: 3 if from_client else 4
    server.run(client.put("a", "1"))
    assert server.clock.seconds() == 7
    chance = random.Random(1)
    server.network_delay = lambda from_client: chance.random()
    found: list[int] = []

    async def program() -> None:
        for number in range(30):
            client.incr("n").addCallback(found.append)
            await deferLater(server.clock, number % 3 * 0.2)

    server.run(program())
    server.advance(60)
    assert found == list(range(1, 31))


def test_a_server_that_can_not_be_reached_refuses_and_comes_back(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    with pytest.raises(Unavailable):
        server.run(client.get("a"))
    server.reachable = True
    assert server.run(client.get("a")) is None


def test_what_was_sent_before_the_client_closes_is_done(server: MemoryServer) -> None:
    client = server.connect()
    server.store_delay = 1
    for number in range(3):
        client.put(str(number), "x").addErrback(lambda _: None)
    server.flush()
    client.disconnect()
    server.advance(10)
    server.store_delay = 0
    other = server.connect()
    assert server.run(other.count()) == 3
    assert server.run(other.info("clients"))["connected"] == 1


def test_what_comes_while_the_server_is_busy_waits_its_turn(server: MemoryServer, client: Client) -> None:
    server.store_delay = 1
    found: list[int] = []
    for _ in range(3):
        client.incr("n").addCallback(found.append)
        server.flush()
    server.advance(20)
    assert found == [1, 2, 3]


def test_the_same_test_takes_the_same_course_each_time() -> None:
    def course() -> tuple[float, Any]:
        server = MemoryServer()
        chance = random.Random(7)
        server.network_delay = lambda from_client: chance.random() * 0.01
        client = server.connect()
        server.run(gatherResults([client.transact(add_one, "n") for _ in range(10)]))
        return server.clock.seconds(), server.run(client.info("transactions"))

    assert course() == course()
    assert course()[1]["conflicts"] > 0


def test_the_example_in_the_documentation_passes() -> None:
    text = (Path(__file__).parent.parent / "docs" / "clients.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "MemoryServer" in block)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "docs/clients.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    for test in tests:
        test()
    assert len(tests) == 5
    result = unittest.TestResult()
    unittest.TestLoader().loadTestsFromTestCase(names["Visits"]).run(result)
    assert result.testsRun == 1
    assert result.wasSuccessful()


# For trial.


class WithTrial(SynchronousTestCase):
    """The same in a test case of Twisted's own."""

    def test_deferreds_fire_when_the_server_is_flushed(self) -> None:
        server = MemoryServer()
        client = server.connect()
        stored = client.put("a", "1")
        self.assertNoResult(stored)
        server.flush()
        self.successResultOf(stored)
        server.conflict_at_next_commit()
        failing = Deferred.fromCoroutine(once(client, "a"))
        server.flush()
        self.failureResultOf(failing, Conflict)
        assert server.run(client.get("a")) == "1"


# Time that moves by itself.

COROUTINES = """
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from kvd.client import connect
from kvd.testing import MemoryServer

async def an_hour_of_visits():
    server = MemoryServer()
    with server.ticking():
        client = await connect(server.clock, server.endpoint)
        for number in range(3):
            await deferLater(server.clock, 1200)
            assert await client.incr("visits:alice") == number + 1
        async with client.transaction() as txn:
            await txn.put("last", await txn.get("visits:alice"))
        assert await client.get("last") == "3"
        await client.disconnect()

class Visits(TestCase):
    async def test_under_trial(self):
        await an_hour_of_visits()

@pytest_twisted.ensureDeferred
async def test_under_pytest():
    await an_hour_of_visits()
"""


@pytest.mark.parametrize(
    "runner", [["twisted.trial", "test_visits"], ["pytest", "-q", "-k", "pytest", "test_visits.py"]]
)
def test_tests_that_are_coroutines_have_time_that_moves_by_itself(runner: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_visits.py").write_text(COROUTINES)
    done = subprocess.run([sys.executable, "-m", *runner], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr
