"""A server and its clients as a few lines of Python, right or wrong on purpose; one seed is one history.

The server keeps versions, gives snapshots and refuses what conflicts, as the protocol promises. A fault, by
its name, breaks one of these promises now and then.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Generator, Iterator
from itertools import count
from typing import Any

from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History, Operation, Transaction

FAULTS = (
    "no read check",
    "no range check",
    "deletions missed",
    "late snapshot",
    "no snapshot",
    "torn commit",
    "acknowledged early",
    "swapped replies",
    "aborted write shows",
    "applied twice",
    "lost write",
)

ACCOUNTS = 5
TOTAL = 500
BOUND = 6


class Server:
    """Versioned values; ``None`` is absent."""

    def __init__(self) -> None:
        self.version = 0
        self.values: dict[str, list[tuple[int, Any]]] = {}
        # What was changed under each prefix, as (version, whether it was a deletion).
        self.changes: dict[str, list[tuple[int, bool]]] = {}

    def get(self, key: str, version: int) -> Any:
        values = self.values.get(key, [])
        place = bisect_right(values, version, key=lambda pair: pair[0])
        return values[place - 1][1] if place else None

    def changed(self, key: str, version: int) -> bool:
        values = self.values.get(key, [])
        return bool(values) and values[-1][0] > version

    def range_changed(self, prefix: str, version: int, deletions: bool) -> bool:
        return any(at > version and (deletions or not gone) for at, gone in self.changes.get(prefix, [])[-50:])

    def keys(self, prefix: str, version: int) -> list[str]:
        return [key for key in self.values if key.startswith(prefix) and self.get(key, version) is not None]

    def write(self, writes: dict[str, Any]) -> None:
        if writes:
            self.version += 1
        for key, value in writes.items():
            self.values.setdefault(key, []).append((self.version, value))
            if "/" in key:
                self.changes.setdefault(key[: key.index("/") + 1], []).append((self.version, value is None))


class Simulation:
    """One history in the making.

    :param fault: one of :data:`FAULTS`, or empty for a right server.
    :param kinds: what clients do: any of ``appends``, ``predicates``, ``bank``, ``plain``.
    """

    def __init__(
        self, seed: int, fault: str = "", kinds: tuple[str, ...] = ("appends",), unknown: float = 0.03
    ) -> None:
        self.random = random.Random(seed)
        self.fault = fault
        self.kinds = kinds
        self.unknown = unknown
        ticks = count(1)
        self.history = History(lambda: next(ticks) / 1000)
        self.server = Server()
        self.server.write({f"account{number}": TOTAL // ACCOUNTS for number in range(ACCOUNTS)})
        self.numbers = count(1)
        self.clients = count(1)
        self.lists = [f"list{number}" for number in range(5)]
        self.lengths: dict[str, int] = {}
        self.late: list[dict[str, Any]] = []  # writes that a fault will apply at some time

    def run(self, transactions: int, clients: int = 5) -> History:
        crowd = [self.client() for _ in range(clients)]
        while len(self.history.transactions) < transactions:
            next(self.random.choice(crowd))
            if self.late and self.random.random() < 0.05:
                self.server.write(self.late.pop(0))
        for _ in range(400):
            next(self.random.choice(crowd))  # nobody is cut off in the middle, or hardly anybody
        return self.history

    def strikes(self, fault: str, chance: float = 0.3) -> bool:
        return self.fault == fault and self.random.random() < chance

    def client(self) -> Iterator[None]:
        number = next(self.clients)
        while True:
            kind = self.random.choice(self.kinds)
            if kind == "plain":
                known = yield from self.plain(number)
            else:
                known = yield from self.transaction(number, kind)
            if not known:
                number = next(self.clients)

    def transaction(self, number: int, kind: str) -> Generator[None, None, bool]:
        record = self.history.begin(number)
        yield
        at = self.server.version
        yield
        self.history.started(record)
        yield
        if self.fault == "late snapshot":
            at = self.server.version
        view = View(self, record, at)
        yield from {"appends": self.appends, "predicates": self.predicates, "bank": self.bank}[kind](view)
        if self.random.random() < 0.1:
            if self.strikes("aborted write shows"):
                self.server.write(view.writes)
            self.history.end(record, ROLLED_BACK)
            return True
        return (yield from self.commit(view))

    def commit(self, view: View) -> Generator[None, None, bool]:
        server, record = self.server, view.record
        yield
        lost = self.random.random() < self.unknown
        if lost and self.random.random() < 0.3:
            self.history.end(record, UNKNOWN)
            yield
            if self.random.random() < 0.5:
                return False
            for _ in range(self.random.randrange(5)):
                yield
        if view.writes and self.conflicts(view):
            if record.completed is None:
                self.history.end(record, UNKNOWN if lost else ROLLED_BACK, "CONFLICT")
            return not lost
        if self.strikes("acknowledged early") and not lost:
            self.history.end(record, COMMITTED)
            for _ in range(8):
                yield
        if self.strikes("torn commit") and len(view.writes) > 1:
            keys = list(view.writes)
            server.write({key: view.writes[key] for key in keys[:1]})
            for _ in range(3):
                yield
            server.write({key: view.writes[key] for key in keys[1:]})
        elif not self.strikes("lost write", 0.1):
            server.write(view.writes)
            if self.strikes("applied twice", 0.1):
                self.late.append(view.writes)
        yield
        if record.completed is None:
            self.history.end(record, UNKNOWN if lost else COMMITTED)
        return not lost

    def conflicts(self, view: View) -> bool:
        server = self.server
        if not self.strikes("no read check", 0.5) and any(server.changed(key, view.at) for key in view.reads):
            return True
        if self.strikes("no range check", 0.5):
            return False
        deletions = not self.strikes("deletions missed", 0.7)
        return any(server.range_changed(prefix, view.at, deletions) for prefix in view.ranges)

    def appends(self, view: View) -> Iterator[None]:
        for _ in range(self.random.randint(1, 4)):
            key = self.random.choice(self.lists)
            values = view.get(key) or ()
            view.record.operations.append(Operation("read", key, None, list(values)))
            yield
            if self.random.random() < 0.5:
                element = next(self.numbers)
                view.record.operations.append(Operation("append", key, element))
                view.writes[key] = (*values, element)
                self.lengths[key] = self.lengths.get(key, 0) + 1
                if self.lengths[key] >= 40 and key in self.lists:
                    self.lists[self.lists.index(key)] = f"list{next(self.numbers)}"
                yield
        reads = [index for index, each in enumerate(view.record.operations) if each.verb == "read"]
        if self.strikes("swapped replies", 0.1) and len(reads) > 1:
            first, second = self.random.sample(reads, 2)
            one, other = view.record.operations[first], view.record.operations[second]
            view.record.operations[first] = one._replace(result=other.result)
            view.record.operations[second] = other._replace(result=one.result)

    def predicates(self, view: View) -> Iterator[None]:
        operations = view.record.operations
        block = len(self.history.transactions) // 200
        deleting = self.random.random() < 0.6
        prefix = f"shift{block}/" if deleting else f"room{block}/"
        keys = view.scan(prefix)
        if deleting or self.random.random() < 0.3:
            operations.append(Operation("scan", prefix, None, keys))
        else:
            operations.append(Operation("count", prefix, [0, BOUND], len(keys)))
        yield
        if deleting and len(keys) > 1 and self.random.random() < 0.5:
            key = self.random.choice(keys)
            operations.append(Operation("delete", key, prefix))
            view.writes[key] = None
            yield
        elif len(keys) < BOUND:
            key = f"{prefix}{next(self.numbers)}"
            operations.append(Operation("insert", key, prefix))
            view.writes[key] = ""
            yield

    def bank(self, view: View) -> Iterator[None]:
        balances = {}
        for number in range(ACCOUNTS):
            balances[f"account{number}"] = view.get(f"account{number}")
            yield
        view.record.operations.append(Operation("balances", "bank", TOTAL, dict(balances)))
        if self.random.random() < 0.7:
            one, other = self.random.sample(sorted(balances), 2)
            for account, balance in ((one, balances[one] - 1), (other, balances[other] + 1)):
                view.record.operations.append(Operation("deposit", account, balance))
                view.writes[account] = balance

    def plain(self, number: int) -> Generator[None, None, bool]:
        records = []
        for _ in range(self.random.choice([1, 1, 3])):
            record = self.history.begin(number)
            record.operations.append(self.any_command())
            records.append(record)
            yield
        lost = self.random.random() < self.unknown
        for record in records:
            if lost and self.random.random() < 0.3:
                break
            self.run_command(record)
            yield
        for record in records:
            self.history.end(record, UNKNOWN if lost else COMMITTED)
            yield
        return not lost

    def any_command(self) -> Operation:
        key = f"register{self.random.randrange(4)}.{len(self.history.transactions) // 500}"
        value, old = str(self.random.randrange(6)), self.random.choice([None, *"012345"])
        return self.random.choice(
            [
                Operation("PUT", key, value),
                Operation("GET", key),
                Operation("GET", key),
                Operation("DEL", key),
                Operation("INCR", key, 1),
                Operation("CAS", key, [old, value]),
            ]
        )

    def run_command(self, record: Transaction) -> None:
        verb, key, argument, _ = record.operations[0]
        server = self.server
        stale = 2 if self.strikes("no snapshot", 0.1) else 0
        value = server.get(key, server.version - stale)
        result: Any = None
        if verb == "GET":
            result = value
        elif verb == "PUT":
            server.write({key: argument})
        elif verb == "DEL":
            server.write({key: None})
        elif verb == "INCR":
            result = int(value or 0) + argument
            for _ in range(2 if self.strikes("applied twice", 0.1) else 1):
                server.write({key: str(int(server.get(key, server.version) or 0) + argument)})
        else:
            result = value == argument[0]
            if result:
                server.write({key: argument[1]})
        record.operations[0] = Operation(verb, key, argument, result)


class View:
    """A transaction on the simulated server."""

    def __init__(self, simulation: Simulation, record: Transaction, at: int) -> None:
        self.simulation = simulation
        self.record = record
        self.at = at
        self.reads: dict[str, None] = {}
        self.ranges: dict[str, None] = {}
        self.writes: dict[str, Any] = {}

    def now(self) -> int:
        if self.simulation.strikes("no snapshot"):
            return self.simulation.server.version
        return self.at

    def get(self, key: str) -> Any:
        if key in self.writes:
            return self.writes[key]
        self.reads[key] = None
        return self.simulation.server.get(key, self.now())

    def scan(self, prefix: str) -> list[str]:
        self.ranges[prefix] = None
        return self.simulation.server.keys(prefix, self.now())
