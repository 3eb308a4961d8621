"""Clients of a daemon that is killed under them, what they know of it, and what it must show when it is there again.

A client's requests are run in the order in which it sent them. So what is found of its keys must be what some first
part of its requests leaves, and that part holds all that were acknowledged. Where a commit had a receipt, OUTCOME must
tell the same.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final, NamedTuple

from tests.support.daemon import Client

WRITERS: Final = 4
BANKERS: Final = 2
ACCOUNTS: Final = 6
TOTAL: Final = 600
SHARED: Final = "shared-count"

Seen = dict[str, int]
"""The newest transaction of each writer that anybody has read."""

AHEAD: Final = 8
"""Requests, or transactions, that a writer sends at most before it reads a reply."""

GROUP: Final = 5
"""Keys that a writer's transaction writes together."""

OLD: Final = 10
"""Receipts of earlier rounds that are asked for after each."""


class Request(NamedTuple):
    """What a writer sends at once, and what it stores if it is run.

    :ivar replies: how many it gets.
    :ivar read: takes the result of the last reply.
    """

    lines: list[str]
    writes: dict[str, str | None]
    receipt: str | None = None
    read: Callable[[Any], None] | None = None


@dataclass
class Memory:
    """What a client remembers from round to round.

    :ivar state: its pairs, by all requests that were acknowledged.
    :ivar sent: requests that were sent and not acknowledged.
    :ivar committed: receipts of commits that happened.
    :ivar never: receipts that the server has settled.
    """

    name: str
    state: dict[str, str] = field(default_factory=dict)
    sent: list[Request] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)

    def acknowledge(self) -> None:
        """The oldest request was run."""
        request = self.sent.pop(0)
        apply(self.state, request)
        if request.receipt is not None:
            self.committed.append(request.receipt)
        self.acknowledged += 1


def apply(state: dict[str, str], request: Request) -> None:
    """Run a request on a client's pairs."""
    for key, value in request.writes.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value


class Party(threading.Thread):
    """A client in one round: it does what it does until the daemon is gone."""

    def __init__(self, client: Client, memory: Memory, random: Random) -> None:
        super().__init__(daemon=True)
        self.memory = memory
        self.random = random
        self.client = client

    def run(self) -> None:
        """Go on until the connection ends."""
        with suppress(OSError, EOFError):
            self.work()

    def work(self) -> None:
        """Do what it does."""
        raise NotImplementedError

    def send(self, lines: list[str]) -> None:
        """Send some lines."""
        self.client.send("".join(f"{line}\n" for line in lines).encode())

    def reply(self) -> dict[str, Any]:
        """The next reply."""
        line = self.client.line()
        if not line.endswith("}"):
            raise EOFError
        answer: dict[str, Any] = json.loads(line)
        return answer


class Counts:
    """What all clients know of the number that all of them count up.

    :ivar found: what it was at the start of the round.
    """

    def __init__(self) -> None:
        self.found = 0
        self.sent = 0
        self.acknowledged = 0
        self.newest = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """One more is sent."""
        with self._lock:
            self.sent += 1

    def done(self, number: int) -> None:
        """It was acknowledged."""
        with self._lock:
            self.acknowledged += 1
            self.newest = max(self.newest, number)

    def fault(self, found: int) -> list[str]:
        """What is wrong with what was found; then a new round begins."""
        least, most = max(self.found + self.acknowledged, self.newest), self.found + self.sent
        self.found, self.sent, self.acknowledged = found, 0, 0
        return [] if least <= found <= most else [f"the count is {found}, not between {least} and {most}"]


class Writer(Party):
    """Writes its own keys in every way, reads what others wrote, and counts."""

    def __init__(
        self,
        client: Client,
        memory: Memory,
        random: Random,
        numbers: Iterator[int],
        counts: Counts,
        seen: dict[str, int],
    ) -> None:
        super().__init__(client, memory, random)
        self._numbers = numbers
        self._counts = counts
        self._seen = seen
        self._mine = int(memory.state.get(f"{memory.name}/mine", 0))
        self._last = int(memory.state.get(f"{memory.name}/last", 0))

    def work(self) -> None:
        """Send some, read the replies, and again."""
        makers = [self._put, self._del, self._group, self._group, self._incr, self._shared, self._look]
        while True:
            batch = [self.random.choice(makers)() for _ in range(self.random.randint(1, AHEAD))]
            self.memory.sent += batch
            self.send([line for request in batch for line in request.lines])
            for request in batch:
                for _ in request.lines:
                    answer = self.reply()
                    if answer["status"] != "Ok":
                        self.memory.faults.append(f"{request.lines} is answered {answer}")
                        return
                if request.read is not None:
                    request.read(answer.get("result"))
                self.memory.acknowledge()

    def _value(self) -> str:
        return f"{next(self._numbers)}-" + "x" * self.random.choice([0, 10, 100, 3000])

    def _key(self, kind: str) -> str:
        return f"{self.memory.name}/{kind}{self.random.randrange(20)}"

    def _put(self) -> Request:
        key, value = self._key("pair"), self._value()
        return Request([f"PUT {key} {value}"], {key: value})

    def _del(self) -> Request:
        key = self._key("pair")
        return Request([f"DEL {key}"], {key: None})

    def _group(self) -> Request:
        """A transaction: all keys of a group are stored, or removed, and its number."""
        group, value, receipt = self._key("group"), self._value(), f"r{next(self._numbers)}"
        self._last += 1
        writes: dict[str, str | None] = {f"{self.memory.name}/last": str(self._last)}
        gone = self.random.random() < 0.2
        writes |= {f"{group}/{member}": None if gone else value for member in range(GROUP)}
        lines = [f"DEL {key}" if value is None else f"PUT {key} {value}" for key, value in writes.items()]
        return Request(["START", *lines, f"COMMIT {receipt}"], writes, receipt)

    def _incr(self) -> Request:
        self._mine += 1
        key = f"{self.memory.name}/mine"
        return Request([f"INCR {key}"], {key: str(self._mine)})

    def _shared(self) -> Request:
        self._counts.begin()
        return Request([f"INCR {SHARED}"], {}, None, self._counts.done)

    def _look(self) -> Request:
        other = f"writer{self.random.randrange(WRITERS)}"

        def read(result: Any) -> None:
            self._seen[other] = max(self._seen.get(other, 0), int(result or 0))

        return Request([f"GET {other}/last"], {}, None, read)


class Banker(Party):
    """Moves money between accounts, where others do the same."""

    def __init__(self, client: Client, memory: Memory, random: Random, numbers: Iterator[int]) -> None:
        super().__init__(client, memory, random)
        self._numbers = numbers

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line, and return the reply."""
        self.send([line])
        return self.reply()

    def work(self) -> None:
        """Move, and again."""
        while True:
            one, other = self.random.sample(range(ACCOUNTS), 2)
            self.ask("START")
            held = [int(each) for each in self.ask(f"MGET account{one} account{other}")["result"]]
            sum = self.random.randint(-10, 10)
            receipt = f"r{next(self._numbers)}"
            self.memory.sent.append(Request([], {}, receipt))
            self.send([f"PUT account{one} {held[0] - sum}", f"PUT account{other} {held[1] + sum}", f"COMMIT {receipt}"])
            for _ in range(2):
                self.reply()
            answer = self.reply()
            if answer["status"] == "Ok":
                self.memory.acknowledge()
            else:
                self.memory.sent.clear()
                if answer["code"] != "CONFLICT":
                    self.memory.faults.append(f"a COMMIT is answered {answer}")


class Load:
    """All clients, over all rounds."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._numbers = count(1)
        self._counts = Counts()
        self._seen: Seen = {}
        self.memories = [Memory(f"writer{number}") for number in range(WRITERS)]
        self.memories += [Memory(f"banker{number}") for number in range(BANKERS)]

    def prepare(self, client: Client) -> None:
        """Open the accounts."""
        accounts = " ".join(f"account{number}" for number in range(ACCOUNTS))
        for account in accounts.split():
            assert client.ask(f"PUT {account} {TOTAL // ACCOUNTS}") == '{"status": "Ok"}'

    def begin(self, connect: Callable[[], Client]) -> list[Party]:
        """Have all clients begin a round."""
        parties: list[Party] = []
        for memory in self.memories:
            random = Random(self.random.random())
            if memory.name.startswith("writer"):
                parties.append(Writer(connect(), memory, random, self._numbers, self._counts, self._seen))
            else:
                parties.append(Banker(connect(), memory, random, self._numbers))
        for party in parties:
            party.start()
        return parties

    def acknowledged(self) -> int:
        """How many requests were acknowledged, in all rounds."""
        return sum(memory.acknowledged for memory in self.memories)

    # What must be there.

    def faults(self, client: Client) -> list[str]:
        """What is wrong with what a daemon shows after a round. It is taken for right then."""
        pairs = dict(scan(client))
        found = self._counts.fault(int(pairs.pop(SHARED, 0)))
        money = sum(int(pairs.pop(f"account{number}")) for number in range(ACCOUNTS))
        if money != TOTAL:
            found.append(f"the accounts hold {money}, not {TOTAL}")
        for memory in self.memories:
            found += [f"{memory.name}: {fault}" for fault in memory.faults]
            memory.faults.clear()
            mine = {key: pairs.pop(key) for key in list(pairs) if key.startswith(f"{memory.name}/")}
            found += [f"{memory.name}: {fault}" for fault in self._faults_of(memory, mine, client)]
            last = int(mine.get(f"{memory.name}/last", 0))
            if last < self._seen.get(memory.name, 0):
                found.append(f"{memory.name}: its transaction {self._seen[memory.name]} was read, and {last} is there")
        found += [f"there is a key {key!r} that nobody wrote" for key in pairs]
        return found

    def _faults_of(self, memory: Memory, mine: dict[str, str], client: Client) -> list[str]:
        found = []
        unknown = list(memory.sent)
        if memory.name.startswith("writer"):
            while memory.state != mine and memory.sent:
                memory.acknowledge()
            if memory.state != mine:
                found.append("what is there is not what any first part of its requests leaves")
                memory.state = mine
        run = len(unknown) - len(memory.sent)
        for number, request in enumerate(unknown):
            if request.receipt is not None:
                found += self._fault_of(memory, request, number < run, client)
        memory.sent.clear()
        for receipts, outcome in ((memory.committed, "committed"), (memory.never, "never")):
            for receipt in self.random.sample(receipts, min(OLD, len(receipts))) + receipts[-OLD:]:
                told = outcome_of(client, receipt)
                if told != outcome:
                    found.append(f"the receipt {receipt} is {told}, not {outcome}")
        return found

    def _fault_of(self, memory: Memory, request: Request, happened: bool, client: Client) -> list[str]:
        assert request.receipt is not None
        told = outcome_of(client, request.receipt)
        if told == "never":
            memory.never.append(request.receipt)
            client.ask("START")
            answer = client.ask(f"COMMIT {request.receipt}")
            if '"RECEIPT_USED"' not in answer:
                return [f"a COMMIT with the receipt {request.receipt}, which was never, is answered {answer}"]
        elif request.receipt not in memory.committed:
            memory.committed.append(request.receipt)
        if request.writes and (told == "committed") != happened:
            return [f"the receipt {request.receipt} is {told}, and its keys say {happened}"]
        return []


def scan(client: Client) -> Iterator[list[str]]:
    """All pairs."""
    following: str | None = ""
    while following is not None:
        words = ["SCAN", "LIMIT", 10_000, *(["FROM", following] if following else [])]
        page = json.loads(client.ask(json.dumps(words)))["result"]
        yield from page["items"]
        following = page["next"]


def outcome_of(client: Client, receipt: str) -> str:
    """What OUTCOME tells."""
    told: str = json.loads(client.ask(f"OUTCOME {receipt}"))["result"]
    return told
