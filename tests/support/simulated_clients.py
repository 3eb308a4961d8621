"""What the clients of a simulation do, and the record of it for the checks of :mod:`kvd.verify`.

They run transactions and plain commands through :mod:`kvd.client`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from kvd import wire
from kvd.client import Client, Transaction, connect
from kvd.errors import Internal, KvdError, OutcomeUnknown
from kvd.verify import history
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History, Operation
from tests.support.simulated_network import BusyClock, Network

ACCOUNTS = [f"account{number}" for number in range(4)]
TOTAL = 400
BOUND = 5
START_DATA = dict.fromkeys(ACCOUNTS, str(TOTAL // len(ACCOUNTS)))


class Abandoned(Exception):
    """The client thinks better of its transaction."""


class Plain(NamedTuple):
    """A plain command.

    :ivar take: puts its result into the history, and tells its outcome.
    """

    words: tuple[wire.Word, ...]
    record: history.Transaction
    take: Callable[[Any], str]


class Crowd:
    """All clients, and what they have seen.

    :param problems: where they write down what no right server does.
    """

    def __init__(self, clock: BusyClock, rand: random.Random, network: Network, problems: list[str]) -> None:
        self.history = History(clock.seconds)
        self.clock = clock
        self.rand = rand
        self.network = network
        self.problems = problems
        self.stopping = False  # the server stops, or has
        self.numbers = count(1)  # of clients
        self.elements = count(1)  # of everything that is stored
        self.lists = [f"list{number}" for number in range(rand.randint(1, 4))]
        self.registers = [f"register{number}" for number in range(rand.randint(1, 3))]
        self.seen: dict[str, list[int]] = {}  # what lists held lately
        self.rooms = [f"room{number}/" for number in range(rand.randint(1, 2))]
        self.shifts = [f"shift{number}/" for number in range(rand.randint(1, 2))]
        kinds = [self.append, self.transfer, self.book]
        self.kinds = rand.sample(kinds, rand.randint(1, len(kinds)))
        self.plainness = rand.choice([0.1, 0.3, 0.7])  # how likely a client sends a plain command
        self.patience = rand.choice([0.001, 0.01, 0.1])  # seconds between what a client does

    def pause(self) -> Deferred[None]:
        """Do nothing for some time."""
        pause = self.rand.expovariate(1 / self.patience)
        return deferLater(self.clock, pause if self.rand.random() < 0.99 else pause + 3)

    # Clients that use kvd.client.

    async def office(self, workers: int) -> None:
        """Some workers who share one client."""
        client = None
        while client is None:
            try:
                pool = self.rand.randint(1, workers)
                client = await connect(self.clock, self.network, pool=pool, rand=self.rand.random)
            except KvdError:
                if self.stopping:
                    return
                await deferLater(self.clock, 0.5)
        at_work = [Deferred.fromCoroutine(self._work(client)) for _ in range(workers)]
        for worker in at_work:
            await worker
        await client.disconnect()

    async def _work(self, client: Client) -> None:
        number = next(self.numbers)
        for _ in range(self.rand.randint(10, 40)):
            await self.pause()
            if self.stopping:
                return
            if self.rand.random() < self.plainness:
                plain = self.plain(number)
                record = plain.record
                try:
                    self.history.end(record, plain.take(await client.call(*plain.words)))
                except KvdError as error:
                    self.failed(record, error, True)
            else:
                record = self.history.begin(number)
                await self._transaction(client, record)
            if record.outcome == UNKNOWN:
                number = next(self.numbers)  # it may take effect later than what this worker does next

    async def _transaction(self, client: Client, record: history.Transaction) -> None:
        read_only = self.rand.random() < 0.15
        committing = False
        try:
            async with client.transaction(read_only) as txn:
                self.history.started(record)
                for _ in range(self.rand.randrange(4)):
                    await self.pause()
                await self.rand.choice(self.kinds)(txn, record, read_only)
                if self.rand.random() < 0.1:
                    raise Abandoned
                committing = True
        except Abandoned:
            self.history.end(record, ROLLED_BACK)
        except KvdError as error:
            self.failed(record, error, committing)
        else:
            self.history.end(record, COMMITTED)

    def failed(self, record: history.Transaction, error: KvdError, may_be_stored: bool) -> None:
        """Record that something ended with an error."""
        unknown = isinstance(error, OutcomeUnknown) or (may_be_stored and isinstance(error, Internal))
        self.history.end(record, UNKNOWN if unknown else ROLLED_BACK, error.code)

    # Transactions.

    async def append(self, txn: Transaction, record: history.Transaction, read_only: bool) -> None:
        """Append to some lists."""
        for _ in range(self.rand.randint(1, 3)):
            key = self.rand.choice(self.lists)
            values = listed(await txn.get(key))
            record.operations.append(Operation("read", key, None, values))
            if read_only or self.rand.random() < 0.3:
                continue
            await self.pause()
            if self.rand.random() < 0.1:  # what is taken back is recorded nowhere, and must be seen by nobody
                await txn.savepoint("here")
                await txn.put(f"{self.shifts[0]}{next(self.elements)}", "")
                await txn.put(key, joined([*values, next(self.elements)]))
                await txn.rollback_to("here")
            element = next(self.elements)
            record.operations.append(Operation("append", key, element))
            await txn.put(key, joined([*values, element]))

    async def transfer(self, txn: Transaction, record: history.Transaction, read_only: bool) -> None:
        """Move money."""
        if self.rand.random() < 0.5:
            values = await txn.mget(*ACCOUNTS)
        else:
            values = [await txn.get(account) for account in ACCOUNTS]
        balances = dict(zip(ACCOUNTS, map(number_in, values), strict=True))
        record.operations.append(Operation("balances", "bank", TOTAL, balances))
        if not read_only:
            amount = self.rand.randint(1, 9)
            giver, taker = self.rand.sample(ACCOUNTS, 2)
            for account, balance in ((giver, balances[giver] - amount), (taker, balances[taker] + amount)):
                record.operations.append(Operation("deposit", account, balance))
                await txn.put(account, str(balance))
                await self.pause()

    async def book(self, txn: Transaction, record: history.Transaction, read_only: bool) -> None:
        """Take a place in a room if it isn't full; or come to a shift, or leave it if somebody else is there."""
        if self.rand.random() < 0.5:
            prefix = self.rand.choice(self.rooms)
            number = await txn.count(prefix)
            record.operations.append(Operation("count", prefix, [0, BOUND], number))
            if not read_only and number < BOUND:
                await self.pause()
                await self._insert(txn, record, prefix)
            elif number >= BOUND and prefix in self.rooms:
                self.rooms[self.rooms.index(prefix)] = f"room{next(self.elements)}/"
            return
        prefix = self.rand.choice(self.shifts)
        keys = (await txn.scan(prefix, limit=10_000, keys_only=True)).items
        record.operations.append(Operation("scan", prefix, None, keys))
        if read_only:
            return
        await self.pause()
        if len(keys) > 1 and self.rand.random() < 0.6:
            key = self.rand.choice(keys)
            record.operations.append(Operation("delete", key, prefix))
            await txn.delete(key)
        else:
            await self._insert(txn, record, prefix)

    async def _insert(self, txn: Transaction, record: history.Transaction, prefix: str) -> None:
        key = f"{prefix}{next(self.elements)}"
        record.operations.append(Operation("insert", key, prefix))
        await txn.put(key, "")

    # Plain commands.

    def plain(self, number: int) -> Plain:
        """Any plain command, recorded as sent."""
        record = self.history.begin(number)
        what = self.rand.random()
        if what < 0.5:
            return self._on_register(record)
        if what < 0.7:
            return self._on_list(record)
        if what < 0.8:
            return Plain(("MGET", *ACCOUNTS), record, lambda values: self.note_balances(record, values))
        prefix = self.rand.choice(self.shifts)
        words = wire.scan_words(prefix, None, None, 10_000, False, True)
        return Plain(tuple(words), record, lambda page: noted(record, Operation("scan", prefix, None, page["items"])))

    def _on_list(self, record: history.Transaction) -> Plain:
        key = self.rand.choice(self.lists)
        if key not in self.seen or self.rand.random() < 0.3:
            return Plain(("GET", key), record, lambda value: self._note_list(record, key, listed(value)))
        before, element = self.seen[key], next(self.elements)
        record.operations.append(Operation("append", key, element))

        def take(stored: bool) -> str:
            if not stored:
                record.operations.clear()
                return ROLLED_BACK
            record.operations.insert(0, Operation("read", key, None, before))
            self.seen[key] = [*before, element]
            return COMMITTED

        return Plain(("CAS", key, joined(before), joined([*before, element])), record, take)

    def _note_list(self, record: history.Transaction, key: str, values: list[int]) -> str:
        self.seen[key] = values
        return noted(record, Operation("read", key, None, values))

    def _on_register(self, record: history.Transaction) -> Plain:
        operation = self._any_operation(self.rand.choice(self.registers))
        record.operations.append(operation)
        verb, key, argument, _ = operation
        words = [verb, key, *(argument if verb == "CAS" else [] if argument is None else [argument])]

        def take(result: Any) -> str:
            record.operations[0] = operation._replace(result=result)
            return COMMITTED

        return Plain(tuple(words), record, take)

    def _any_operation(self, key: str) -> Operation:
        value = str(next(self.elements))
        old = None if self.rand.random() < 0.3 else str(int(value) - self.rand.randint(1, 8))
        return self.rand.choice(
            [
                Operation("PUT", key, value),
                Operation("GET", key),
                Operation("GET", key),
                Operation("DEL", key),
                Operation("INCR", key, self.rand.randint(1, 5)),
                Operation("CAS", key, [old, self.rand.choice([None, value])]),
            ]
        )

    def note_balances(self, record: history.Transaction, values: list[str | None]) -> str:
        """Record what was read of all accounts."""
        balances = dict(zip(ACCOUNTS, map(number_in, values), strict=True))
        return noted(record, Operation("balances", "bank", TOTAL, balances))

    def audit(self, data: dict[str, str]) -> None:
        """Record what is stored in the end as one last transaction."""
        record = self.history.begin(next(self.numbers))
        prefixes = {
            operation.argument: None
            for each in self.history.transactions
            for operation in each.operations
            if operation.verb == "insert"
        }
        for prefix in prefixes:
            keys = [key for key in data if key.startswith(prefix)]
            record.operations.append(Operation("scan", prefix, None, keys))
        for key in self.lists:
            record.operations.append(Operation("read", key, None, listed(data.get(key))))
        self.note_balances(record, [data.get(account) for account in ACCOUNTS])
        self.history.end(record, COMMITTED)
        for key in self.registers:
            record = self.history.begin(record.client)
            record.operations.append(Operation("GET", key, None, data.get(key)))
            self.history.end(record, COMMITTED)


def noted(record: history.Transaction, operation: Operation) -> str:
    """Record what was read; the outcome of whoever read it."""
    record.operations.append(operation)
    return COMMITTED


def listed(value: str | None) -> list[int]:
    """The elements of a list as it is stored."""
    return [] if not value else [int(element) for element in value.split(",")]


def joined(elements: list[int]) -> str:
    """A list as it is stored."""
    return ",".join(map(str, elements))


def number_in(value: str | None) -> int:
    """A balance; one that is none makes the sum wrong."""
    return int(value) if value is not None else -1
