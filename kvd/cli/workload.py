"""The load that ``kvd bench`` puts on a server: what is sent, in which phases, over which connections."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, takewhile
from typing import Any, Final

from twisted.internet.defer import DeferredList
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from kvd import requests
from kvd.cli.batches import ERROR, Batch, Connection, Kind, connect

GROUPS: Final = {"get": "text", "put": "text", "incr": "count", "transaction": "own"}
"""The kinds of requests, and the group of keys that each of them uses."""

KINDS: Final = tuple(GROUPS)

PREPARED: Final = 100_000
"""The most requests of a kind that are prepared, and the most bytes."""
PREPARED_BYTES: Final = 32 * 1024 * 1024

FILL: Final = 64 * 1024
"""Bytes of requests that go out at once while keys are stored or removed."""

STALL: Final = 60.0
"""Seconds without a single reply after which a connection is given up."""


@dataclass
class Load:
    """What to do.

    :ivar clients: connections.
    :ivar pipeline: requests that a connection sends before it waits for the replies; a transaction is sent alone.
    :ivar requests: how many in all; a transaction counts as one.
    :ivar mix: some of :data:`KINDS`. Each connection sends one batch of each in turn.
    :ivar value_size: bytes of a value.
    :ivar keys: how many keys there are. INCR and transactions have as many of their own, and each client's
        transactions have a share of these to themselves, so that nothing conflicts.
    :ivar prefix: what all keys begin with.
    """

    clients: int = 50
    pipeline: int = 1
    requests: int = 100_000
    mix: tuple[str, ...] = KINDS
    value_size: int = 3
    keys: int = 10_000
    prefix: str = "kvd-bench:"


@dataclass
class Result:
    """What was measured.

    :ivar seconds: wall time.
    :ivar cpu_seconds: processor time that the benchmark itself took meanwhile.
    :ivar errors: how many replies were errors, by their code.
    :ivar examples: one reply with each of these codes.
    """

    kinds: list[Kind]
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return sum(kind.requests for kind in self.kinds)

    def note_errors(self, replies: bytes) -> None:
        """Count the errors among whole replies."""
        for line in replies.splitlines():
            if line.startswith(ERROR):
                code = requests.reply(line)["code"]
                self.errors[code] = self.errors.get(code, 0) + 1
                self.examples.setdefault(code, line.decode("ascii", "backslashreplace"))


class Bench:
    """A benchmark: connections, and the phases that they go through.

    Every phase raises what ended a connection, if one is lost.

    :param reactor: the reactor; the asyncio reactor is the fastest.
    :ivar connections: those that are open, and those that were lost.
    :ivar result: what was measured so far.
    """

    def __init__(self, reactor: Any, endpoint: IStreamClientEndpoint, load: Load) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._load = load
        self._left = load.requests
        self._groups = {GROUPS[name] for name in load.mix}
        self.connections: list[Connection] = []
        self.result = Result([Kind(name) for name in dict.fromkeys(load.mix)])

    async def connect(self) -> None:
        """Open all connections."""
        for _ in range(self._load.clients):
            self.connections.append(await connect(self._reactor, self._endpoint, Connection(self.result.note_errors)))

    async def fill(self) -> None:
        """Store every key that will be read."""
        value = "x" * self._load.value_size
        requests = (f"PUT {key} {value}\n" for key in self._keys(self._groups - {"count"}))
        await self._everywhere(takewhile(lambda _: self._left > 0, requests))

    async def run(self) -> Result:
        """Do what is measured."""
        prepared: dict[str, Iterator[Batch]] = {}
        for kind in self.result.kinds:
            if kind.name != "transaction":
                prepared[kind.name] = cycle(self._prepared(kind))
        works = [(connection, self._work(number, prepared)) for number, connection in enumerate(self.connections)]
        gc.collect()
        gc.disable()  # nothing here makes cycles, and a pause of ours is not the server's
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        try:
            await self._all(works)
        finally:
            gc.enable()
            self.result.seconds = time.perf_counter() - seconds
            self.result.cpu_seconds = time.process_time() - cpu_seconds
        return self.result

    def stop(self) -> None:
        """Store and measure nothing more."""
        self._left = 0

    async def remove(self) -> None:
        """Remove every key that was stored."""
        await self._everywhere(f"DEL {key}\n" for key in self._keys(self._groups))

    def close(self) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()

    async def _all(self, works: Iterable[tuple[Connection, Iterator[Batch]]]) -> None:
        """Have connections do their work, and wait for all of them, even if one is lost."""

        def lost(failure: Failure) -> Failure:
            self.stop()
            return failure

        ended = [connection.work(batches).addErrback(lost) for connection, batches in works]
        watch = LoopingCall(self._give_up_stalled, {})
        watch.clock = self._reactor
        watch.start(1.0)
        try:
            outcomes = await DeferredList(ended, consumeErrors=True)
        finally:
            watch.stop()
        for _, failure in outcomes:
            if failure is not None:
                failure.raiseException()

    def _give_up_stalled(self, seen: dict[Connection, tuple[Any, float]]) -> None:
        """Give up connections on which nothing has come for too long; they are asked now and then, not timed.

        :param seen: the progress of each connection, and when it was first seen.
        """
        now = self._reactor.seconds()
        for connection in self.connections:
            progress = connection.progress
            before, since = seen.get(connection, (None, now))
            if progress is None or progress != before:
                seen[connection] = progress, now
            elif now - since >= STALL:
                connection.connection_lost(TimeoutError(f"no reply within {STALL:g} seconds"))
                connection.close()

    async def _everywhere(self, requests: Iterator[str]) -> None:
        batches = _batches(requests)
        await self._all([(connection, batches) for connection in self.connections if connection.lost is None])
        if next(batches, None) is not None:
            raise ConnectionError("all connections are lost")

    # What is sent.

    def _key(self, group: str, number: int) -> str:
        return f"{self._load.prefix}{group}:{number:06}"

    def _keys(self, groups: set[str]) -> Iterator[str]:
        for group in sorted(groups):
            for number in range(self._load.keys):
                yield self._key(group, number)

    def _work(self, number: int, prepared: dict[str, Iterator[Batch]]) -> Iterator[Batch]:
        """The batches of one connection, until all connections together have sent enough."""
        kinds = {kind.name: kind for kind in self.result.kinds}
        sources = [prepared.get(name) or self._transactions(number, kinds[name]) for name in self._load.mix]
        turn = number % len(sources)
        for source in cycle(sources[turn:] + sources[:turn]):
            if self._left <= 0:
                return
            batch = next(source)
            self._left -= batch.requests
            yield batch

    def _prepared(self, kind: Kind) -> list[Batch]:
        """Batches of one kind, for all connections: keys at random."""
        load = self._load
        make: dict[str, Callable[[int], str]] = {
            "get": lambda number: f"GET {self._key('text', number)}\n",
            "put": lambda number: f"PUT {self._key('text', number)} {'x' * load.value_size}\n",
            "incr": lambda number: f"INCR {self._key('count', number)}\n",
        }
        request = make[kind.name]
        requests = min(PREPARED, PREPARED_BYTES // len(request(0)), load.requests)
        return [
            Batch(
                kind,
                load.pipeline,
                "".join(request(random.randrange(load.keys)) for _ in range(load.pipeline)).encode(),
            )
            for _ in range(max(2, requests // load.pipeline))
        ]

    def _transactions(self, number: int, kind: Kind) -> Iterator[Batch]:
        """Read two keys and write two, in two round trips; each client has keys of its own, so nothing conflicts."""
        load = self._load
        value = "x" * load.value_size
        first = number * load.keys // load.clients
        end = max((number + 1) * load.keys // load.clients, first + 1)
        while True:
            one = self._key("own", random.randrange(first, end))
            other = self._key("own", random.randrange(first, end))
            reads = f"START\nGET {one}\nGET {other}\n".encode()
            yield Batch(kind, 1, reads, f"PUT {one} {value}\nPUT {other} {value}\nCOMMIT\n".encode())


def _batches(requests: Iterator[str]) -> Iterator[Batch]:
    """Requests that are not measured, as many in a batch as :data:`FILL` allows."""
    kind = Kind("")
    lines: list[str] = []
    size = 0
    for line in requests:
        lines.append(line)
        size += len(line)
        if size >= FILL:
            yield Batch(kind, len(lines), "".join(lines).encode())
            lines, size = [], 0
    if lines:
        yield Batch(kind, len(lines), "".join(lines).encode())
