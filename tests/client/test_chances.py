"""The Deferred client under random mishaps: every Deferred fires, no turn of the pool is lost, no error is foreign.

The fixture of these tests sees that no error goes unhandled.
"""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from kvd.client import Client, Transaction, connect
from kvd.errors import InTransaction, KvdError
from kvd.testing import MemoryServer
from tests.support.client import add_one, outcome_of

SIZE = 3
"""Connections of the pool."""

RANDOM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@implementer(IStreamClientEndpoint)
class Fickle:
    """An endpoint that connects as a test wants it to."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.mood = "connects"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self.mood == "fails":
            return fail(ConnectionRefusedError())
        if self.mood == "hangs":
            return Deferred()
        if self.mood == "deaf":  # and does not even hear that it is cancelled
            return Deferred(lambda _: None)
        connecting: Deferred[Any] = deferLater(self.server.clock, 0 if self.mood == "connects" else 0.3)
        if self.mood == "fails later":
            return connecting.addCallback(lambda _: fail(ConnectionRefusedError()))
        return connecting.addCallback(lambda _: self.server.endpoint.connect(protocolFactory))


class Crowd:
    """Those who use one client at once."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.endpoint = Fickle(self.server)
        connecting = connect(self.server.clock, self.endpoint, pool=SIZE, timeout=5, wait=2, retry_for=4)
        self.client: Client = self.server.run(connecting)
        self.running: list[Deferred[Any]] = []
        self.outcomes: list[list[Any]] = []
        self.gates: list[Deferred[None]] = []
        self.leased: list[int] = []  # the links that transactions have

    def begin(self, kind: str) -> None:
        """Ask for something."""
        asked: Deferred[Any]
        if kind == "get":
            asked = self.client.get("a")
        elif kind == "put":
            asked = self.client.put("a", "1")
        elif kind == "iterate":
            asked = Deferred.fromCoroutine(self._iterate())
        elif kind == "once":
            asked = Deferred.fromCoroutine(self._once())
        else:
            asked = self.client.transact(self._work, kind)
        self.running.append(asked)
        self.outcomes.append(outcome_of(asked))

    async def _iterate(self) -> int:
        return len([key async for key in self.client.scan_all(keys_only=True)])

    async def _once(self) -> None:
        async with self.client.transaction() as txn:
            await self._work(txn, "gate")

    async def _work(self, txn: Transaction, kind: str) -> None:
        link = id(txn._link)
        assert link not in self.leased, "a link was leased twice"
        self.leased.append(link)
        assert len(self.leased) <= SIZE
        try:
            await txn.get("n")
            await txn.put("n", "1")
            if kind == "gate":
                self.gates.append(Deferred())
                await self.gates[-1]
            elif kind == "nested":
                await self.client.transact(add_one, "m")
            elif kind == "fails":
                raise LookupError
        finally:
            self.leased.remove(link)

    def happen(self, what: str, chance: int) -> None:
        """Something happens."""
        if what == "cancel" and self.running:
            self.running[chance % len(self.running)].cancel()
        elif what == "open" and self.gates:
            gate = self.gates.pop(chance % len(self.gates))
            if not gate.called:
                gate.callback(None)
        elif what == "time":
            self.server.advance(chance / 7)
        elif what == "lost":
            self.server.lose_links()
        elif what == "conflict":
            self.server.conflict_at_next_commit()
        elif what == "lost commit":
            self.server.lose_link_after_next_commit()
        elif what == "lost before commit":
            self.server.lose_link_before_next_commit()
        elif what == "outcome":
            self.server.tells_outcomes = not self.server.tells_outcomes
        elif what == "slow":
            self.server.store_delay = chance / 10 if chance % 2 else 0

    def settle(self) -> None:
        """Let all be well again, and everything end."""
        self.endpoint.mood = "connects"
        self.server.store_delay = 0
        self.server._lose = None
        self.server.tells_outcomes = True
        for _ in range(30):
            while self.gates:
                self.happen("open", 0)
            self.server.advance(5)


MOODS = st.sampled_from(["connects", "connects later", "fails", "fails later", "hangs", "deaf"])
KINDS = st.sampled_from(["get", "put", "iterate", "once", "plain", "gate", "nested", "fails"])
EVENTS = st.sampled_from(
    ["cancel", "open", "time", "time", "lost", "conflict", "lost commit", "slow", "lost before commit", "outcome"]
)
STEPS = st.lists(
    st.tuples(st.just("mood"), MOODS, st.just(0))
    | st.tuples(st.just("begin"), KINDS, st.integers(1, 6))
    | st.tuples(st.just("event"), EVENTS, st.integers(0, 20)),
    max_size=30,
)


@given(STEPS)
@example([("begin", "gate", 6), ("event", "time", 1), ("mood", "fails", 0), ("event", "lost", 0), ("event", "open", 0)])
@example([("event", "outcome", 0), ("event", "lost commit", 0), ("begin", "plain", 4), ("event", "time", 3)])
@example([("event", "outcome", 0), ("event", "lost commit", 0), ("begin", "once", 2), ("event", "cancel", 0)])
@RANDOM
def test_whatever_happens_every_deferred_fires_and_no_turn_is_lost(steps: list[tuple[str, str, int]]) -> None:
    with capturedLogs() as logged:
        crowd = Crowd()
        for kind, what, number in steps:
            if kind == "mood":
                crowd.endpoint.mood = what
            elif kind == "begin":
                for _ in range(number):
                    crowd.begin(what)
            else:
                crowd.happen(what, number)
        crowd.settle()
        for outcome in crowd.outcomes:
            assert len(outcome) == 1
            if isinstance(outcome[0], BaseException):
                assert isinstance(outcome[0], KvdError | CancelledError | LookupError), repr(outcome[0])
        pool, server, client = crowd.client._pool, crowd.server, crowd.client
        assert pool._free == SIZE
        assert len(set(pool._idle)) == len(pool._idle) <= SIZE
        assert server.run(gatherResults([client.transact(add_one, f"last {n}") for n in range(SIZE)])) == [1] * SIZE
        assert server.run(client.info("transactions"))["open"] == 0
        assert server.run(client.info("clients"))["connected"] <= SIZE + 1
        server.run(client.disconnect())
        server.flush()
        assert server._ends == []
        assert [call for call in server.clock.getDelayedCalls() if "LoopingCall" not in repr(call)] == []
        del crowd, pool, server, client
        gc.collect()
    assert [event for event in logged if event["log_level"] is LogLevel.critical] == []


# A server that says anything.


PIECES = st.lists(
    st.sampled_from(
        [
            b'{"status": "Ok"}\n',
            b'{"status": "Ok", "result": "PONG"}\n',
            b'{"status": "Ok", "result": {"items": [], "next": null}}\n',
            b'{"status": "Ok", "result": {"items": [["a", "b"]], "next": "a"}}\n',
            b'{"status": "Ok", "result": "committed", "kept": 9}\n',
            b'{"status": "Ok", "result": "never", "kept": 9}\n',
            b'{"status": "Error", "mesg": "m", "code": "OUTCOME_UNKNOWN"}\n',
            b'{"status": "Error", "mesg": "m", "code": "CONFLICT"}\n',
            b'{"status": "Error", "mesg": "m", "code": "UNAVAILABLE"}\n',
            b'{"status": "Error", "mesg": "m", "code": "BUSY"}\n',
            b'{"status": "Error", "mesg": "m", "code": "IDLE"}\n',
            b'{"status": "Error", "mesg": "m", "code": "NEW"}\n',
            b'{"status": "Error"}\n',
            b"\n",
            b"\xff",
            b"[" * 2000,
        ]
    )
    | st.binary(max_size=8),
    max_size=4,
).map(b"".join)


ANSWERS = st.lists(
    st.tuples(st.lists(st.tuples(st.sampled_from([0, 0, 0.1, 3]), PIECES), max_size=3), st.integers(0, 5)),
    min_size=1,
    max_size=10,
)
"""What comes for what has arrived: pieces, each so many seconds later; and 0 if the connection is closed then."""


class Hostile(Protocol):
    """A server that greets mostly, and then says what a test has drawn."""

    def __init__(self, server: MemoryServer, answers: Iterator[tuple[list[tuple[float, bytes]], int]]) -> None:
        self.server = server
        self.answers = answers
        self.greeted = False

    def dataReceived(self, data: bytes) -> None:
        pieces, closing = next(self.answers)
        if not self.greeted and closing != 5:
            self.greeted = True
            pieces = [(0, b'{"status": "Ok", "result": "PONG"}\n')]
        for pause, piece in pieces:
            self.server.clock.callLater(pause, self._say, piece)
        if not closing:
            assert self.transport is not None
            self.transport.loseConnection()

    def _say(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


@given(st.lists(st.tuples(KINDS | st.just("cancel"), st.floats(0, 4)), min_size=1, max_size=8), ANSWERS)
@RANDOM
def test_whatever_a_server_says_every_error_is_one_of_ours_and_nothing_waits_for_ever(
    asks: list[tuple[str, float]], answers: list[tuple[list[tuple[float, bytes]], int]]
) -> None:
    with capturedLogs() as logged:
        crowd = Crowd()
        crowd.server._factory = Factory.forProtocol(partial(Hostile, crowd.server, cycle(answers)))
        crowd.server.lose_links()
        for kind, pause in asks:
            if kind == "cancel":
                crowd.happen("cancel", int(pause * 9))
            else:
                crowd.begin(kind)
            crowd.server.advance(pause)
        crowd.settle()
        for outcome in crowd.outcomes:
            assert len(outcome) == 1
            if isinstance(outcome[0], BaseException):
                assert isinstance(outcome[0], KvdError | CancelledError | LookupError), repr(outcome[0])
        crowd.server.run(crowd.client.disconnect(), limit=10)
        del crowd
        gc.collect()
    assert [event for event in logged if event["log_level"] is LogLevel.critical] == []


class Echo(Protocol):
    """A server that answers each request with what was asked; and says more after some replies.

    :param more: what, by the number of the request; None: the reply once more.
    """

    def __init__(self, more: dict[int, bytes | None]) -> None:
        self.more = more
        self.number = 0
        self.rest = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            words = json.loads(line)
            reply = json.dumps({"status": "Ok", "result": "PONG" if words == ["PING"] else words[1]}).encode() + b"\n"
            more = self.more.get(self.number, b"")
            self.transport.write(reply + (reply if more is None else more))
            self.number += 1


@given(
    st.dictionaries(st.integers(1, 8), st.sampled_from([None, b"garbage\n", b"\n", b'{"status": "Ok"']), max_size=2),
    st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=8),
    st.integers(0, 1000),
)
@example({1: None}, [[False], [False]], 0)
@example({1: None}, [[True], [False]], 0)
@RANDOM
def test_no_request_gets_what_belongs_to_an_earlier_one(
    more: dict[int, bytes | None], batches: list[list[bool]], seed: int
) -> None:
    rand = random.Random(seed)
    server = MemoryServer()
    server._factory = Factory.forProtocol(partial(Echo, more))
    client = server.connect(timeout=5)
    server.network_delay = lambda from_client: rand.choice([0, 0.01, 0.2])
    found: dict[str, list[Any]] = {}
    for number, batch in enumerate(batches):
        for place, cancelled in enumerate(batch):
            asked = client.get(f"{number}.{place}")
            found[f"{number}.{place}"] = outcome_of(asked)
            if cancelled:
                asked.cancel()
        server.advance(1)
    server.advance(20)
    for key, (value,) in found.items():
        # A second line is known as one when it comes and nothing is under way, but not in the midst of a batch.
        assert isinstance(value, KvdError | CancelledError) or value.split(".")[0] == key.split(".")[0]


def test_a_transaction_inside_another_is_refused_and_not_repeated() -> None:
    crowd = Crowd()
    for _ in range(SIZE):
        crowd.begin("nested")
    crowd.server.advance(0.1)
    assert InTransaction in {type(outcome[0]) for outcome in crowd.outcomes}
