"""What the clients do, chosen so that a fault of the server can be seen in what they read.

Each workload has its own keys. It moves on to new ones before the record of a key gets long, so that clients meet on
few keys and the checks stay quick.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred

from kvd.verify.client import OPEN, Client, Reply, Txn
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, Operation
from kvd.verify.ranges import Flags, Rooms, Shifts
from kvd.verify.space import READ_ONLY, Space, Workload


def elements(value: str | None) -> list[Any]:
    """The elements of a list; what is not a number stays as it is."""
    return [int(word) if word.isdecimal() else word for word in value.split(" ")] if value else []


def text_of(values: list[Any]) -> str | None:
    """The value for a list of elements; an empty list is an absent key."""
    return " ".join(map(str, values)) if values else None


class Lists:
    """Transactions that read lists and append to them. Four lists are in use at a time."""

    GROUP: Final = 4
    APPENDS: Final = 60
    """Appends to a group of lists before the next group is taken."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._group = 0
        self._appends = 0

    def _lists(self, group: int) -> list[str]:
        return [f"lists{group}/{number}" for number in range(self.GROUP)]

    async def turn(self, client: Client) -> None:
        """One transaction, or a compare-and-set of one list."""
        group = self._group
        if client.random.random() < 0.1:
            await self._plain(client, client.random.choice(self._lists(group)))
        else:
            read_only = client.random.random() < READ_ONLY
            await client.transact(self._space.history, lambda txn: self._work(txn, group), read_only)

    async def _work(self, txn: Txn, group: int) -> None:
        lists = txn.random.sample(self._lists(group), txn.random.choice((1, 2, 2, 3)))
        txn.then.append(lambda: self._look(txn.client, group))
        known: dict[str, list[Any]] = {}
        for part in [lists] if txn.random.random() < 0.6 else [[each] for each in lists]:
            known.update(await self._read(txn, group, part))
            await txn.pause(0.2)
        if txn.read_only:
            return
        for key in lists:
            if txn.random.random() < 0.6:
                await self._append(txn, key, known[key])
                await txn.pause(0.05)
        if txn.random.random() < 0.1:
            await self._read(txn, group, lists)

    async def _read(self, txn: Txn, group: int, lists: list[str]) -> dict[str, list[Any]]:
        keys = [self._space.key(key) for key in lists]
        way = txn.random.random()
        if way < 0.5:
            values = await txn.ask(*[("GET", key) for key in keys])
        elif way < 0.85:
            (values,) = await txn.ask(("MGET", *keys))
        else:
            (page,) = await txn.ask(("SCAN", "PREFIX", self._space.key(f"lists{group}/")))
            found = self._from_page(group, page)
            for key, values in found.items():
                txn.did("read", key, None, list(values))
            return found
        known = {key: elements(value) for key, value in zip(lists, values, strict=True)}
        for key, held in known.items():
            txn.did("read", key, None, list(held))
        return known

    def _from_page(self, group: int, page: Any) -> dict[str, list[Any]]:
        """All lists of a group, and whatever else the server tells, which it should not."""
        there = {self._space.name(key): elements(value) for key, value in page["items"]}
        return {key: [] for key in self._lists(group)} | there

    async def _append(self, txn: Txn, key: str, known: list[Any]) -> None:
        element = next(self._space.numbers)
        old, new = text_of(known), text_of([*known, element])
        way = txn.random.random()
        if way < 0.05:
            await self._append_and_drop(txn, key, element, new)
        elif way < 0.15:
            (done,) = await txn.ask(("CAS", self._space.key(key), old, new))
            if done:
                txn.did("append", key, element)
                known.append(element)
            else:
                txn.client.note_odd(txn.record, ("CAS", key, old, "expecting what was read"), "false")
        else:
            txn.did("append", key, element)
            known.append(element)
            txn.tell("PUT", self._space.key(key), new)
        self._appends += 1
        if self._appends >= self.APPENDS:
            self._appends = 0
            self._group += 1

    async def _append_and_drop(self, txn: Txn, key: str, element: int, value: str | None) -> None:
        """Append after a savepoint, and go back to it; the record of that is a transaction that was rolled back."""
        dropped = txn.history.begin(txn.client.number)
        dropped.operations.append(Operation("append", key, element))
        txn.history.end(dropped, ROLLED_BACK)
        txn.tell("SAVEPOINT", "s")
        txn.tell("PUT", self._space.key(key), value)
        await txn.pause(0.3)
        txn.tell("ROLLBACK", "TO", "s")
        (values,) = await txn.ask(("GET", self._space.key(key)))
        txn.did("read", key, None, elements(values))

    async def _plain(self, client: Client, key: str) -> None:
        """Append with a plain CAS to what a plain GET has shown."""
        history = self._space.history
        reply = await client.read(
            history,
            lambda value: [Operation("read", key, None, elements(value))],
            *("GET", self._space.key(key)),
        )
        if reply.code:
            return
        known, element = elements(reply.result), next(self._space.numbers)
        record = history.begin(client.number)
        record.operations.append(Operation("append", key, element))

        def answered(reply: Reply) -> None:
            if reply.code:
                history.end(record, UNKNOWN if reply.code in OPEN else ROLLED_BACK, reply.code)
                return
            if reply.result:
                record.operations.insert(0, Operation("read", key, None, known))
            history.end(record, COMMITTED if reply.result else ROLLED_BACK)

        new = text_of([*known, element])
        await client.send(record, "CAS", self._space.key(key), reply.result, new).addCallback(answered)

    def _look(self, client: Client, group: int) -> Deferred[Reply]:
        lists = self._lists(group)
        if client.random.random() < 0.3:
            return client.read(
                self._space.history,
                lambda page: [
                    Operation("read", key, None, values) for key, values in self._from_page(group, page).items()
                ],
                *("SCAN", "PREFIX", self._space.key(f"lists{group}/")),
            )
        return client.read(
            self._space.history,
            lambda found: [
                Operation("read", key, None, elements(value)) for key, value in zip(lists, found, strict=True)
            ],
            *("MGET", *map(self._space.key, lists)),
        )

    def look_all(self, client: Client) -> list[Deferred[Reply]]:
        """Read every list."""
        return [self._look(client, group) for group in range(self._group + 1)]


class Bank:
    """Move money between accounts, whose total is always the same, and add them up."""

    ACCOUNTS: Final = 5
    TOTAL: Final = 500

    def __init__(self, space: Space) -> None:
        self._space = space
        self._opened = False
        self._accounts = [f"bank/{number}" for number in range(self.ACCOUNTS)]

    async def turn(self, client: Client) -> None:
        """One transaction."""
        read_only = self._opened and client.random.random() < 0.3
        work = self._work if self._opened else self._open
        self._opened = await client.transact(self._space.history, work, read_only) or self._opened

    async def _open(self, txn: Txn) -> None:
        values = await txn.ask(*[("GET", self._space.key(account)) for account in self._accounts])
        if values == [None] * self.ACCOUNTS:
            for account in self._accounts:
                self._set(txn, account, self.TOTAL // self.ACCOUNTS)

    def _set(self, txn: Txn, account: str, balance: int) -> None:
        txn.did("deposit", account, balance)
        txn.tell("PUT", self._space.key(account), str(balance))

    async def _work(self, txn: Txn) -> None:
        one, other = txn.random.sample(self._accounts, 2)
        amount = txn.random.randint(1, 9)
        txn.then.append(lambda: self._look(txn.client))
        if txn.random.random() < 0.2 and not txn.read_only:
            for account, change in ((one, -amount), (other, amount)):
                txn.did("deposit", account, f"{change:+}")
                await txn.ask(("INCR", self._space.key(account), change))
            return
        balances = await self._balances(txn)
        txn.did("balances", "bank", self.TOTAL, balances)
        await txn.pause(0.2)
        if txn.read_only or not all(isinstance(balance, int) for balance in balances.values()):
            return
        for account, change in ((one, -amount), (other, amount)):
            self._set(txn, account, balances[account] + change)
            await txn.pause(0.05)

    async def _balances(self, txn: Txn) -> dict[str, Any]:
        keys = [self._space.key(account) for account in self._accounts]
        way = txn.random.random()
        if way < 0.3:
            (values,) = await txn.ask(("MGET", *keys))
        elif way < 0.5:
            values = await txn.ask(*[("GET", key) for key in keys])
        elif way < 0.7:
            (page,) = await txn.ask(("SCAN", "PREFIX", self._space.key("bank/")))
            return self._from_page(page)
        else:
            values = []
            for key in keys:
                values += await txn.ask(("GET", key))
                await txn.pause(0.3)
        return {account: number(value) for account, value in zip(self._accounts, values, strict=True)}

    def _from_page(self, page: Any) -> dict[str, Any]:
        there = {self._space.name(key): number(value) for key, value in page["items"]}
        return dict.fromkeys(self._accounts) | there

    def _look(self, client: Client) -> Deferred[Reply]:
        return client.read(
            self._space.history,
            lambda page: [Operation("balances", "bank", self.TOTAL, self._from_page(page))],
            *("SCAN", "PREFIX", self._space.key("bank/")),
        )

    def look_all(self, client: Client) -> list[Deferred[Reply]]:
        """Add the accounts up once more."""
        return [self._look(client)] if self._opened else []


def number(value: Any) -> Any:
    """A balance as a number; what is not a number stays as it is."""
    return int(value) if isinstance(value, str) and value.removeprefix("-").isdecimal() else value


class Registers:
    """Plain commands on few keys, one at a time or several at once."""

    COMMANDS: Final = 300
    """Commands on a key before a new one takes its place."""

    def __init__(self, space: Space, clients: int) -> None:
        self._space = space
        self._used = 0
        self._commands: dict[str, int] = {}
        self._latest: dict[str, str | None] = {}  # what a key was last seen to hold
        self._keys = [self._next() for _ in range(max(1, clients // 5))]

    def _next(self) -> str:
        self._used += 1
        return f"register{self._used}"

    async def turn(self, client: Client) -> None:
        """One to five commands at once."""
        place = client.random.randrange(len(self._keys))
        waiting = [self._any(client, self._keys[place]) for _ in range(client.random.choice((1, 1, 1, 2, 3, 5)))]
        key = self._keys[place]
        self._commands[key] = self._commands.get(key, 0) + len(waiting)
        codes = [(await each).code for each in waiting]
        # Each unknown outcome doubles the number of possible orders.
        if (self._commands[key] >= self.COMMANDS or not OPEN.isdisjoint(codes)) and self._keys[place] == key:
            self._keys[place] = self._next()

    def _any(self, client: Client, name: str) -> Deferred[Reply]:
        key, dice = self._space.key(name), client.random.random()
        new = str(next(self._space.numbers))
        if dice < 0.4:
            sent = self._get(client, name)
        elif dice < 0.6:
            delta = client.random.choice((1, 1, -1, 7))
            sent = client.command(self._space.history, Operation("INCR", name, delta), "INCR", key, delta)
        elif dice < 0.75:
            value = new if dice < 0.74 else f"not a number {new}"
            sent = client.command(self._space.history, Operation("PUT", name, value), "PUT", key, value)
        elif dice < 0.93:
            old = self._latest.get(name)
            put = client.random.choice((new, new, new, None))
            sent = client.command(self._space.history, Operation("CAS", name, [old, put]), "CAS", key, old, put)
        else:
            sent = client.command(self._space.history, Operation("DEL", name), "DEL", key)
        return sent

    def _get(self, client: Client, name: str) -> Deferred[Reply]:
        def answered(reply: Reply) -> Reply:
            if not reply.code:
                self._latest[name] = reply.result
            return reply

        got = client.command(self._space.history, Operation("GET", name), "GET", self._space.key(name))
        return got.addCallback(answered)

    def look_all(self, client: Client) -> list[Deferred[Reply]]:
        """GET every key."""
        return [self._get(client, f"register{number + 1}") for number in range(self._used)]


def all_of_them(space: Space, clients: int) -> list[Workload]:
    """One workload of each kind."""
    return [Lists(space), Rooms(space), Shifts(space), Flags(space), Bank(space), Registers(space, clients)]
