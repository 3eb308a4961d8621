"""Workloads that look at which keys there are, and insert or delete some depending on that."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from kvd.verify.client import Client, Reply, Txn
from kvd.verify.history import Operation
from kvd.verify.space import READ_ONLY, Space


class Rooms:
    """Count the keys under a prefix, and insert one if there is room. One room is in use at a time."""

    BOUND: Final = 6

    def __init__(self, space: Space) -> None:
        self._space = space
        self._room = 0

    async def turn(self, client: Client) -> None:
        """One transaction."""
        room = self._room
        read_only = client.random.random() < READ_ONLY
        await client.transact(self._space.history, lambda txn: self._work(txn, room), read_only)

    async def _work(self, txn: Txn, room: int) -> None:
        prefix = f"rooms{room}/"
        txn.then.append(lambda: self._look(txn.client, room))
        found = 0
        for _ in range(txn.random.choice((1, 1, 2))):
            if txn.random.random() < 0.5:
                names = await self._space.scan(txn, prefix)
                txn.did("scan", prefix, None, names)
                found = len(names)
            else:
                (found,) = await txn.ask(("COUNT", "PREFIX", self._space.key(prefix)))
                txn.did("count", prefix, [0, self.BOUND], found)
            await txn.pause(0.2)
        if found >= self.BOUND:
            self._room = max(self._room, room + 1)
        elif not txn.read_only:
            name = f"{prefix}{next(self._space.numbers)}"
            txn.did("insert", name, prefix)
            txn.tell("PUT", self._space.key(name), "here")

    def _look(self, client: Client, room: int) -> Deferred[Reply]:
        prefix = f"rooms{room}/"
        return client.read(
            self._space.history,
            lambda found: [Operation("count", prefix, [0, self.BOUND], found)],
            *("COUNT", "PREFIX", self._space.key(prefix)),
        )

    def look_all(self, client: Client) -> list[Deferred[Reply]]:
        """Count the keys of every room."""
        return [self._look(client, room) for room in range(self._room + 1)]


class Shifts:
    """Scan the keys of a shift, then either delete some or insert some. One shift is in use at a time."""

    FEW: Final = 3
    MANY: Final = 7
    CHANGES: Final = 30
    """Insertions and deletions before the next shift is used."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._shift = 0
        self._changes = 0

    async def turn(self, client: Client) -> None:
        """One transaction."""
        shift = self._shift
        read_only = client.random.random() < READ_ONLY
        await client.transact(self._space.history, lambda txn: self._work(txn, shift), read_only)

    async def _work(self, txn: Txn, shift: int) -> None:
        prefix = f"shifts{shift}/"
        txn.then.append(lambda: self._look(txn.client, shift))
        names = await self._space.scan(txn, prefix)
        txn.did("scan", prefix, None, names)
        await txn.pause(0.3)
        if txn.random.random() < 0.1:
            (found,) = await txn.ask(("COUNT", "PREFIX", self._space.key(prefix)))
            txn.did("count", prefix, None, found)
        if txn.read_only:
            return
        if len(names) >= self.FEW and (len(names) >= self.MANY or txn.random.random() < 0.65):
            for name in txn.random.sample(names, txn.random.choice((1, 1, 2))):
                txn.did("delete", name, prefix)
                txn.tell("DEL", self._space.key(name))
        else:
            for _ in range(2):
                name = f"{prefix}{next(self._space.numbers)}"
                txn.did("insert", name, prefix)
                txn.tell("PUT", self._space.key(name), "here")
        self._changes += 1
        if self._changes >= self.CHANGES:
            self._changes = 0
            self._shift += 1

    def _look(self, client: Client, shift: int) -> Deferred[Reply]:
        prefix = f"shifts{shift}/"
        return client.read(
            self._space.history,
            lambda page: [Operation("scan", prefix, None, [self._space.name(key) for key in page["items"]])],
            *("SCAN", "PREFIX", self._space.key(prefix), "KEYS", "LIMIT", 1000),
        )

    def look_all(self, client: Client) -> list[Deferred[Reply]]:
        """Scan every shift."""
        return [self._look(client, shift) for shift in range(self._shift + 1)]


def flag(number: int) -> str:
    """The name of a flag; the order of the names is that of the numbers."""
    return f"flags/{number:06}"


class Flags:
    """Look at whether single keys are there, then either remove one that is, or insert one that is not.

    In the history, each key is a prefix of its own. Four are in use at a time, and each is inserted once.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._used = 0
        self._fresh: set[str] = set()  # nobody has tried to insert these
        self._flags = [self._next() for _ in range(4)]

    def _next(self) -> str:
        self._used += 1
        name = flag(self._used)
        self._fresh.add(name)
        return name

    async def turn(self, client: Client) -> None:
        """One transaction."""
        flags = client.random.sample(self._flags, client.random.choice((2, 2, 3)))
        changed: list[tuple[str, bool]] = []
        read_only = client.random.random() < READ_ONLY
        done = await client.transact(self._space.history, lambda txn: self._work(txn, flags, changed), read_only)
        for name, inserted in changed:
            if inserted != done and name in self._flags:  # it is gone, or will never be there
                self._flags[self._flags.index(name)] = self._next()

    async def _work(self, txn: Txn, flags: list[str], changed: list[tuple[str, bool]]) -> None:
        keys = [self._space.key(name) for name in flags]
        txn.then.append(lambda: self._look(txn.client, flags[0]))
        if txn.random.random() < 0.25 and not txn.read_only:
            await self._remove_if_there(txn, flags[0], changed)
            del flags[0], keys[0]
        way = txn.random.random()
        if way < 0.3:
            there = dict(zip(flags, await txn.ask(*[("EXISTS", key) for key in keys]), strict=True))
        elif way < 0.5:
            values = await txn.ask(*[("GET", key) for key in keys])
            there = {name: value is not None for name, value in zip(flags, values, strict=True)}
        elif way < 0.7:
            (values,) = await txn.ask(("MGET", *keys))
            there = {name: value is not None for name, value in zip(flags, values, strict=True)}
        else:
            there = await self._walk(txn)
        for name, is_there in there.items():
            txn.did("scan", name, None, [name] * is_there)
        await txn.pause(0.4)
        if txn.read_only:
            return
        fresh = [name for name, is_there in there.items() if not is_there and name in self._fresh]
        present = [name for name, is_there in there.items() if is_there]
        if fresh and (not present or txn.random.random() < 0.6):
            name = txn.random.choice(fresh)
            self._fresh.remove(name)
            changed.append((name, True))
            txn.did("insert", name, name)
            txn.tell("PUT", self._space.key(name), "up")
        elif present:
            name = txn.random.choice(present)
            changed.append((name, False))
            txn.did("delete", name, name)
            txn.tell("DEL", self._space.key(name))
        elif txn.random.random() < 0.2 and flags[0] in self._flags:  # nobody knows its state
            self._flags[self._flags.index(flags[0])] = self._next()

    async def _walk(self, txn: Txn) -> dict[str, bool]:
        """Scan one key; a scan that is cut short tells what is there up to and including the key that comes next."""
        flags = sorted(self._flags)
        low = txn.random.choice(flags[:2])
        words = ("SCAN", "PREFIX", self._space.key("flags/"), "FROM", self._space.key(low), "LIMIT", 1, "KEYS")
        (page,) = await txn.ask(words)
        found = [self._space.name(key) for key in page["items"]]
        met = None if page["next"] is None else self._space.name(page["next"])
        return {name: name in found or name == met for name in flags if low <= name and (met is None or name <= met)}

    async def _remove_if_there(self, txn: Txn, name: str, changed: list[tuple[str, bool]]) -> None:
        """Remove a key with CAS, which tells whether it was there, even if nothing changes."""
        (removed,) = await txn.ask(("CAS", self._space.key(name), "up", None))
        txn.did("scan", name, None, [name] * removed)
        if removed:
            changed.append((name, False))
            txn.did("delete", name, name)

    def _look(self, client: Client, name: str) -> Deferred[Reply]:
        return client.read(
            self._space.history,
            lambda is_there: [Operation("scan", name, None, [name] * is_there)],
            *("EXISTS", self._space.key(name)),
        )

    def look_all(self, client: Client) -> list[Deferred[Reply]]:
        """Look at every flag."""
        return [self._look(client, flag(number + 1)) for number in range(self._used)]
