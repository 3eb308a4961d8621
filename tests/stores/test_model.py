"""Random commands of several clients against a model: a plain dict, copied whole where the server keeps versions."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock

from kvd.stores.memory.data import pair_bytes
from kvd.testing.conversations import Server, short
from kvd.testing.stores import SlowStore
from tests.support.sqlite import sqlite_store

CLIENTS = st.integers(1, 3)
KEYS = st.sampled_from(["a", "aa", "b", "c", "é", "\0", "\U0010ffff"])
VALUES = st.sampled_from(["", "1", "x", "-7"])
NAMES = st.sampled_from(["s", "t"])
BOUNDS = st.one_of(st.none(), KEYS)


@dataclass
class Open:
    """A transaction, as the model sees it."""

    snapshot: dict[str, str]
    began: int
    writes: dict[str, str | None] = field(default_factory=dict)
    read: list[Any] = field(default_factory=list)  # functions: was this key read?
    saved: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    aborted: bool = False

    def view(self) -> dict[str, str]:
        seen = {**self.snapshot, **self.writes}
        return {key: value for key, value in seen.items() if value is not None}


class Model(RuleBasedStateMachine):
    """The server beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.server = self.make_server()
        self.data: dict[str, str] = {}
        self.changes: list[str] = []  # the keys that commits changed, in order
        self.open: dict[int, Open] = {}

    def make_server(self) -> Server:
        return Server()

    def say(self, client: int, expected: str, *words: Any) -> None:
        reply = self.server.client(client).ask(json.dumps(words))
        assert short(reply) == expected, (client, words, reply)

    def data_command(self, client: int, words: list[Any], read: Any, act: Any) -> None:
        """Say a data command, and hold the reply against the model.

        :param read: whether a key is read by it, as a function; or None.
        :param act: what it answers and writes, as a function of all that it can see.
        """
        txn = self.open.get(client)
        if txn is not None and txn.aborted:
            self.say(client, "ABORTED", *words)
            return
        answer, writes = act(self.data if txn is None else txn.view())
        self.say(client, answer, *words)
        if txn is None:
            self.store(writes)
            return
        if read is not None:
            own = set() if words[0] in ("SCAN", "COUNT") else set(txn.writes)
            txn.read.append(lambda key: read(key) and key not in own)
        txn.writes.update(writes)
        txn.aborted = answer.isupper()

    def store(self, writes: dict[str, str | None]) -> None:
        for key, value in writes.items():
            if value is not None:
                self.data[key] = value
                self.changes.append(key)
            elif self.data.pop(key, None) is not None:
                self.changes.append(key)

    @rule(client=CLIENTS, key=KEYS, value=VALUES)
    def put(self, client: int, key: str, value: str) -> None:
        self.data_command(client, ["PUT", key, value], None, lambda seen: ("ok", {key: value}))

    @rule(client=CLIENTS, key=KEYS)
    def delete(self, client: int, key: str) -> None:
        self.data_command(client, ["DEL", key], None, lambda seen: ("ok", {key: None}))

    @rule(client=CLIENTS, key=KEYS)
    def get(self, client: int, key: str) -> None:
        self.data_command(client, ["GET", key], key.__eq__, lambda seen: (json.dumps(seen.get(key)), {}))

    @rule(client=CLIENTS, keys=st.lists(KEYS, min_size=1, max_size=4))
    def mget(self, client: int, keys: list[str]) -> None:
        self.data_command(
            client, ["MGET", *keys], keys.__contains__, lambda seen: (json.dumps([seen.get(key) for key in keys]), {})
        )

    @rule(client=CLIENTS, key=KEYS)
    def incr(self, client: int, key: str) -> None:
        def act(seen: dict[str, str]) -> tuple[str, dict[str, str | None]]:
            if seen.get(key, "0") in ("", "x"):
                return "NOT_A_NUMBER", {}
            number = int(seen.get(key, "0")) + 1
            return str(number), {key: str(number)}

        self.data_command(client, ["INCR", key], key.__eq__, act)

    @rule(client=CLIENTS, key=KEYS, expected=st.none() | VALUES, new=st.none() | VALUES)
    def cas(self, client: int, key: str, expected: str | None, new: str | None) -> None:
        def act(seen: dict[str, str]) -> tuple[str, dict[str, str | None]]:
            return ("true", {key: new}) if seen.get(key) == expected else ("false", {})

        self.data_command(client, ["CAS", key, expected, new], key.__eq__, act)

    @rule(client=CLIENTS, low=BOUNDS, high=BOUNDS, limit=st.integers(1, 4), reverse=st.booleans())
    def scan(self, client: int, low: str | None, high: str | None, limit: int, reverse: bool) -> None:
        words: list[Any] = ["SCAN", "LIMIT", limit] + ["REVERSE"] * reverse
        words += ["FROM", low] * (low is not None) + ["TO", high] * (high is not None)
        met: list[str] = []

        def inside(key: str) -> bool:
            return (low is None or low <= key) and (high is None or key < high)

        def act(seen: dict[str, str]) -> tuple[str, dict[str, str | None]]:
            keys = sorted(filter(inside, seen), reverse=reverse)
            page, met[:] = keys[:limit], keys[limit : limit + 1]
            following = None if not met else page[-1] if reverse else met[0]
            return json.dumps({"items": [[key, seen[key]] for key in page], "next": following}), {}

        def read(key: str) -> bool:
            return inside(key) and (not met or (key >= met[0] if reverse else key <= met[0]))

        self.data_command(client, words, read, act)

    @rule(client=CLIENTS, prefix=st.sampled_from(["", "a", "\U0010ffff"]))
    def count(self, client: int, prefix: str) -> None:
        def inside(key: str) -> bool:
            return key.startswith(prefix)

        self.data_command(client, ["COUNT", "PREFIX", prefix], inside, lambda seen: (str(sum(map(inside, seen))), {}))

    @rule(client=CLIENTS)
    def start(self, client: int) -> None:
        txn = self.open.get(client)
        if txn is None:
            self.say(client, "ok", "START")
            self.open[client] = Open(dict(self.data), len(self.changes))
        else:
            self.say(client, "ABORTED" if txn.aborted else "IN_TRANSACTION", "START")
            txn.aborted = True

    def conflicts(self, txn: Open) -> bool:
        return any(read(key) for read in txn.read for key in self.changes[txn.began :])

    @rule(client=CLIENTS)
    def commit(self, client: int) -> None:
        txn = self.open.pop(client, None)
        if txn is None:
            self.say(client, "NO_TRANSACTION", "COMMIT")
        elif txn.aborted:
            self.say(client, "ABORTED", "COMMIT")
        elif txn.writes and self.conflicts(txn):
            self.say(client, "CONFLICT", "COMMIT")
        else:
            self.say(client, "ok", "COMMIT")
            self.store(txn.writes)

    @rule(client=CLIENTS)
    def rollback(self, client: int) -> None:
        self.say(client, "NO_TRANSACTION" if self.open.pop(client, None) is None else "ok", "ROLLBACK")

    @precondition(lambda self: self.open)
    @rule(client=CLIENTS)
    def check(self, client: int) -> None:
        txn = self.open.get(client)
        if txn is not None:
            told = self.server.client(client).ask("CHECK")["result"]
            conflicting = bool(txn.writes) and self.conflicts(txn)
            assert told["commits"] == (not conflicting and not txn.aborted)
            assert bool(told["conflicts"]) == conflicting

    @precondition(lambda self: self.open)
    @rule(client=CLIENTS, name=NAMES, command=st.sampled_from(["SAVEPOINT", "ROLLBACK TO", "RELEASE"]))
    def savepoints(self, client: int, name: str, command: str) -> None:
        words = [*command.split(), name]
        txn = self.open.get(client)
        if txn is None:
            self.say(client, "NO_TRANSACTION", *words)
        elif txn.aborted and command != "ROLLBACK TO":
            self.say(client, "ABORTED", *words)
        elif command == "SAVEPOINT":
            self.say(client, "ok", *words)
            txn.saved.append((name, dict(txn.writes)))
        elif name not in [each for each, _ in txn.saved]:
            self.say(client, "NO_SAVEPOINT", *words)
            txn.aborted = True
        else:
            self.say(client, "ok", *words)
            while txn.saved[-1][0] != name:
                txn.saved.pop()
            if command == "RELEASE":
                txn.saved.pop()
            else:
                txn.writes = dict(txn.saved[-1][1])
                txn.aborted = False

    @invariant()
    def nothing_is_remembered_that_nobody_can_see(self) -> None:
        if not self.open:
            assert self.server.service.store.info()["old_values"] == 0

    def teardown(self) -> None:
        for client in list(self.open):
            self.say(client, "ok", "ROLLBACK")
        info = self.server.service.store.info()
        assert (info["keys"], info["old_values"], info["old_values_bytes"]) == (len(self.data), 0, 0)
        for client in (1, 2, 3):
            self.server.client(client).transport.loseConnection()
        # Every byte that the budget still holds belongs to a pair, or to a commit that is not folded.
        pairs = sum(pair_bytes(key, value) for key, value in self.data.items())
        assert self.server.service.core.budget.used == pairs + self.held_for_the_disk()

    def held_for_the_disk(self) -> int:
        return 0


class SlowModel(Model):
    """The same on a store that answers later."""

    def make_server(self) -> Server:
        clock = Clock()
        return Server(SlowStore(clock, 7), clock)


class SqliteModel(Model):
    """The same on a store in a file, which is closed, or left as a killed daemon leaves it, and opened again."""

    def make_server(self) -> Server:
        self.directory = tempfile.TemporaryDirectory()
        return self.open_file()

    def open_file(self) -> Server:
        clock = Clock()
        return Server(sqlite_store(Path(self.directory.name) / "kvd.db", clock), clock)

    @property
    def journal(self) -> Any:
        store: Any = self.server.service.store
        return store._journal

    @rule(cleanly=st.booleans())
    def restart(self, cleanly: bool) -> None:
        if cleanly:
            self.server.service.store.stop()
        else:
            self.journal._file.abandon()
        self.open.clear()
        self.server = self.open_file()

    def held_for_the_disk(self) -> int:
        held: int = self.journal._account.held
        return held

    def teardown(self) -> None:
        super().teardown()
        self.journal._file.abandon()
        self.directory.cleanup()


TestModelOnMemory = Model.TestCase
TestModelOnMemory.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestModelOnSlowStore = SlowModel.TestCase
TestModelOnSlowStore.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestModelOnSqlite = SqliteModel.TestCase
TestModelOnSqlite.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)
