"""Deterministic simulation: server, clients and network in one process; one seed decides all that happens.

Chance, by the seed, sets the network's delays, splits, merges and breaks, what clients do and how they leave, the
store's delays and failures, limits and time-outs, and whether the server stops under load. At the end the history
must be strictly serializable, each reply must have been the right one, and nothing may be left behind.

A seed replays exactly, with a log of every packet::

    python -m tests.support.simulation SEED

and new seeds run for some time, until one fails::

    python -m tests.support.simulation --for SECONDS
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.core.limits import Limits
from kvd.daemon.service import StoreService
from kvd.interfaces import Store, text_in
from kvd.protocols.line import factory as line_factory
from kvd.stores.memory.data import pair_bytes
from kvd.stores.memory.receipts import RECEIPT_BYTES
from kvd.stores.memory.store import MemoryStore
from kvd.testing.stores import FlakyStore, StoreBroke
from kvd.verify.check import check, told
from tests.support.lying_stores import STORES, swapping_factory
from tests.support.simulated_clients import START_DATA, Crowd
from tests.support.simulated_network import BusyClock, Network
from tests.support.simulated_typists import HALF_LINE, Typist

LIMIT = 7200.0
"""Seconds of virtual time within which every run must end."""

LIES = [*STORES, "replies swapped"]


class Outcome(NamedTuple):
    """What came of one seed.

    :ivar problems: what no right server does, each with the kind of check that found it before a colon: ``order``
        (of replies), ``history``, ``end`` (what is left behind), ``turns`` (fairness), ``fault`` (an exception).
    :ivar requests: how many the server answered.
    :ivar counts: how many transactions and plain commands had which outcome.
    :ivar log: all that happened, if it was asked for.
    """

    seed: int
    problems: list[str]
    requests: int
    counts: dict[str, int]
    log: list[str]

    def __str__(self) -> str:
        return "\n".join(
            [*self.problems, f"seed {self.seed}: to see all of it run  python -m tests.support.simulation {self.seed}"]
        )


class Simulation:
    """One run.

    :cvar in_file: the store is in a file.
    :param lie: one of :data:`LIES`, or empty for the real server.
    :param logged: whether to keep a log.
    """

    in_file = False
    _sync = 0.0

    def __init__(self, seed: int, lie: str = "", logged: bool = False) -> None:
        self.problems: list[str] = []
        self.log: list[str] = []
        self._seed = seed
        self._rand = rand = random.Random(seed)
        self._clock = clock = BusyClock(rand.choice([1e-7, 2e-6, 3e-5]))
        self._memory = STORES[lie]() if lie in STORES else self._open_store()
        store: Store = self._memory
        self._at_once = rand.random() < 0.5
        if not self._at_once and not self.in_file:
            store = FlakyStore(clock, rand.getrandbits(32), self._memory, rand.choice([0.0, 0.01, 0.1]))
        self._limits = Limits(
            clients=rand.choice([10_000, 10_000, 5]),
            line_time=rand.choice([60.0, 1.0]),
            transaction_idle=rand.choice([60.0, 60.0, 0.5]),
            transaction_time=rand.choice([600.0, 600.0, 1.0]),
            memory=rand.choice([0, 0, 80_000]),
            store_wait=rand.choice([30.0, 0.1]),
        )
        self._service = self._serve(store)
        factory = swapping_factory if lie == "replies swapped" else line_factory
        tell: Callable[[str], None] = self.log.append if logged else _nothing
        self._network = Network(clock, rand, factory(self._service), tell)
        self._crowd = Crowd(clock, rand, self._network, self.problems)
        self._at_work: Deferred[Any] | None = None
        self._stopped: Deferred[None] | None = None

    def _open_store(self) -> MemoryStore:
        return MemoryStore()

    def _serve(self, store: Store) -> StoreService:
        service = StoreService(store, self._clock, self._limits, sync=self._sync)
        service.core.fault = self._fault
        return service

    def _start_service(self) -> None:
        self._service.startService()
        if self._service._memory_watch.running:  # it looks at the real process, for which no seed can speak
            self._service._memory_watch.stop()

    def run(self) -> Outcome:
        """Let everything happen, and check it."""
        observer = _Observer(self.problems)
        globalLogPublisher.addObserver(observer)
        try:
            with patch("kvd.receipts.new", lambda: f"{self._rand.getrandbits(128):032x}"):  # else no seed would replay
                self._play()
        except Exception:
            self.problems.append(f"fault: {traceback.format_exc()}")
        finally:
            globalLogPublisher.removeObserver(observer)
        counts = self._check_history()
        self.log += [f"problem: {problem}" for problem in self.problems]
        self.log.append(f"{counts} in {self._clock.rightNow:.6f} seconds of virtual time")
        return Outcome(self._seed, self.problems, self._network.answered, counts, self.log)

    def _play(self) -> None:
        rand, crowd = self._rand, self._crowd
        self._start_service()
        self._memory.data.apply({**START_DATA}, 0)
        crowds = [crowd.office(rand.randint(2, 5)) for _ in range(rand.randint(1, 2))]
        crowds += [Typist(crowd).work() for _ in range(rand.randint(0, 3))]
        self._at_work = gatherResults([Deferred.fromCoroutine(each).addErrback(self._failed) for each in crowds])
        if rand.random() < 0.5:
            self._cut(crowd.patience * rand.choice([20, 200]))
        if rand.random() < 0.3:
            self._clock.callLater(crowd.patience * rand.uniform(10, 200), self._stop)
        self._go_on_until(lambda: self._at_work is not None and bool(self._at_work.called), "all clients are done")
        self._go_on_until(lambda: not self._pending(), "nothing is under way any more")
        self._check_end()
        crowd.audit({key: text_in(self._memory.data.values.get(key)) or "" for key in self._memory.data.order})

    def _go_on_until(self, condition: Callable[[], bool], what: str) -> None:
        clock = self._clock
        while not condition():
            if not clock.calls or clock.rightNow > LIMIT:
                raise AssertionError(f"it never came about that {what}; {self._pending()} are pending")
            clock.advance(max(0.0, clock.calls[0].getTime() - clock.rightNow))

    def _pending(self) -> list[str]:
        """What is to be called some time, but for the service's watch."""
        watch = self._service._watch
        return [str(call.func) for call in self._clock.calls if call.func is not watch]

    def _cut(self, mean: float) -> None:
        if self._at_work is not None and not self._at_work.called:
            self._network.cut()
            self._clock.callLater(self._rand.expovariate(1 / mean), self._cut, mean)

    def _stop(self) -> None:
        """The server stops, as twistd stops it."""
        self._network.tell("the server stops")
        self._network.reachable = False
        self._crowd.stopping = True
        self._stopped = self._service.stopService()

    # What must not be.

    def _fault(self) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, StoreBroke):
            self.problems.append(f"fault: {traceback.format_exc()}")

    def _failed(self, failure: Failure) -> None:
        self.problems.append(f"fault: a client met what it should not: {failure.getTraceback()}")

    def _held_for_the_disk(self) -> int:
        return 0

    def _check_end(self) -> None:
        memory, shared = self._memory, self._service.core
        kept = sum(pair_bytes(key, memory.data.values.get(key) or "") for key in memory.data.order)
        kept += len(memory.data.receipts._known) * RECEIPT_BYTES + self._held_for_the_disk()
        found = {
            "connections": (len(shared.sessions), 0),
            "links": ([end.name for end in self._network.links], []),
            "open transactions": (shared.transactions["open"], 0),
            "open snapshots": (memory.data.history.newest is not None, False),
            "old values": (memory.info()["old_values"], 0),
            "dead keys": (list(memory.data.dead), []),
            "bytes in use": (shared.budget.used, kept),
            "bytes of buffers": (shared.budget.buffers.used, 0),
            "lines that were not whole, stored": (memory.data.values.get(HALF_LINE.split()[1].decode()), None),
        }
        self.problems += [
            f"end: {what}: {value}, not {right}" for what, (value, right) in found.items() if value != right
        ]
        if self._stopped is None:
            self._stop()
        if self._stopped is None or not self._stopped.called or self._clock.calls:
            self.problems.append(f"end: the service has not stopped; {self._clock.calls} are pending")
        if not self.in_file:  # there, replies to several turns may wait for one sync
            self.problems += [f"turns: {problem}" for problem in self._network.unfair(self._at_once)]

    def _check_history(self) -> dict[str, int]:
        history = self._crowd.history
        try:
            verdict = check(history)
        except (ValueError, TypeError) as error:  # no server of ours answers what the checks can't even read
            self.problems.append(f"history: {error!r}")
            return {}
        self.problems += [f"history: {violation.anomaly}" for violation in verdict.violations]
        if verdict.violations:
            self.log.append(told(history, verdict))
        return {**verdict.outcomes, "undecided": len(verdict.undecided)}


@implementer(ILogObserver)
class _Observer:
    """Whoever logs a failure has met what it did not expect."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") == LogLevel.critical:
            self._problems.append(f"fault: logged: {event.get('log_failure') or event.get('log_format')}")


def _nothing(line: str) -> None:
    pass


def main(arguments: list[str]) -> int:
    """Replay a seed, or try new ones for some seconds."""
    if arguments[:1] != ["--for"]:
        outcome = Simulation(int(arguments[0]), " ".join(arguments[1:]), logged=True).run()
        print("\n".join(outcome.log))
        return 1 if outcome.problems else 0
    begun = time.monotonic()
    seeds = requests = 0
    while time.monotonic() - begun < float(arguments[1]):
        outcome = Simulation(random.SystemRandom().getrandbits(32)).run()
        if outcome.problems:
            print(outcome)
            return 1
        seeds += 1
        requests += outcome.requests
    minutes = (time.monotonic() - begun) / 60
    print(f"{seeds} seeds, {seeds / minutes:.0f} a minute, {requests / max(seeds, 1):.0f} requests each")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
