"""A load on a store under which the power may be lost at any time, and what must be there afterwards.

Each writer makes commits of several writes, one after another, and notes each that is acknowledged. Of what it has
written, its newest commit alone decides what there is: so a lost, a half or a stale commit shows.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from twisted.internet.task import Clock

from kvd.interfaces import CannotOpen, Receipt, text_in
from kvd.stores.memory.store import MemoryStore
from tests.support.daemon import Client, Daemon, wait_for
from tests.support.disk import Disk, Record
from tests.support.hosts import host
from tests.support.power import losses
from tests.support.sqlite import sqlite_store

WRITERS: Final = ("anna", "bert", "cleo")

KEYS: Final = 13
"""Each writer writes so many keys in turn, and a key with the number of its newest commit."""

AHEAD: Final = 4
"""Commits that a writer sends before it reads a reply."""

EAGER: Final = {
    "journal.WAL_BYTES": 100_000,
    "journal.LOOK_EVERY": 0,
    "folding.FEW": 20,
    "folding.PIECE": 2,
    "folding.LOOK": 10,
}
"""Folds and checkpoints all the time."""


def _value(number: int) -> str:
    return f"{number}-" + "x" * (number * 997 % 3000)


def expected(writer: str, number: int) -> dict[str, str]:
    """What there is of a writer after so many of its commits."""
    pairs = {}
    for earlier in range(max(1, number - KEYS + 1), number + 1):
        pairs[f"{writer}/{earlier % KEYS}"] = _value(earlier)
    pairs.update(
        (f"{writer}/kept/{earlier}", "") for earlier in range(4, number + 1, 4)
    )  # written once, by every fourth
    if number:
        pairs[f"{writer}/last"] = str(number)
        for earlier in range(max(1, number - KEYS // 2), number + 1):  # each commit removes what an older one wrote
            pairs.pop(f"{writer}/{(earlier + KEYS // 2 + 1) % KEYS}", None)
    return pairs


def receipt_of(writer: str, number: int) -> str | None:
    """Every other commit has a receipt."""
    return f"{writer}-{number}" if number % 2 else None


class Writer(threading.Thread):
    """A client of a daemon that goes on where it, or another of its name, had stopped.

    :param count: of its commits.
    """

    def __init__(self, disk: Disk, daemon: Daemon, name: str, count: int) -> None:
        super().__init__(name=name, daemon=True)
        self._disk = disk
        self._client: Client = daemon.client()
        self._count = count
        self.acknowledged = 0

    def run(self) -> None:
        """Write until it is done, or the daemon is gone."""
        with suppress(OSError, json.JSONDecodeError, EOFError):
            found = json.loads(self._client.ask(f"GET {self.name}/last"))["result"]
            first = int(found or 0) + 1
            self._acknowledged(first - 1)
            for number in range(first, first + self._count + AHEAD):
                if number < first + self._count:
                    self._client.send(self._commit(number))
                if number - AHEAD >= first:
                    self._await(number - AHEAD)

    def _commit(self, number: int) -> bytes:
        lines = [
            "START",
            f"PUT {self.name}/last {number}",
            f"PUT {self.name}/{number % KEYS} {_value(number)}",
            f"DEL {self.name}/{(number + KEYS // 2 + 1) % KEYS}",
            f"PUT {self.name}/kept/{number} " if number % 4 == 0 else "PING",
            f"COMMIT {receipt_of(self.name, number) or ''}".strip(),
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    def _await(self, number: int) -> None:
        for _ in range(6):
            reply = self._client.line()
            if not reply:
                raise EOFError
            assert json.loads(reply)["status"] == "Ok", reply
        self._acknowledged(number)

    def _acknowledged(self, number: int) -> None:
        self.acknowledged = number
        self._disk.note(f"{self.name} {number}")


def write(disk: Disk, daemon: Daemon, count: int) -> list[Writer]:
    """Have all writers make so many commits.

    :return: they have begun.
    """
    writers = [Writer(disk, daemon, name, count) for name in WRITERS]
    for writer in writers:
        writer.start()
    return writers


def wait_for_commits(writers: list[Writer], number: int) -> None:
    """Wait until each has had so many acknowledged."""
    wait_for(lambda: min(writer.acknowledged for writer in writers) >= number, "the writers")


def finish(writers: list[Writer]) -> None:
    """Wait until they are done."""
    for writer in writers:
        writer.join(30)
        assert not writer.is_alive()


# What must be there.


class _Hasty(sqlite3.Connection):
    """A connection that syncs nothing."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute("PRAGMA synchronous = OFF" if "synchronous" in sql else sql, *parameters)


@contextmanager
def _hasty() -> Iterator[None]:
    """Sync nothing, which takes most of the time of these checks: here the power is not lost once more."""
    with ExitStack() as stack:
        stack.enter_context(patch("sqlite3.connect", partial(sqlite3.connect, factory=_Hasty)))
        for name in ("fsync", "fdatasync"):
            stack.enter_context(patch(f"os.{name}", lambda descriptor: None))
        yield


def opened(path: Path) -> MemoryStore:
    """The store in a file, as it is found."""
    store = sqlite_store(path, Clock())
    store.start(host())
    return store


def accusations(records: list[Record], directory: Path, seed: int, how_many: int, after: int = 0) -> list[str]:
    """Lose the power at so many random moments, and say what is wrong with what is found then.

    :param after: the record before which the power is not lost.
    """
    random = Random(seed)
    acknowledged = dict.fromkeys(WRITERS, 0)
    read = 0
    found = []
    for number, (moment, platter) in enumerate(losses(records, random, how_many, after)):
        for record in records[read:moment]:
            if record.kind == "A":
                writer, _, newest = record.data.decode().partition(" ")
                acknowledged[writer] = int(newest)
        read = moment
        (directory / str(number)).mkdir()
        path = directory / str(number) / "kvd.db"
        platter.lose_power(path)
        for time in ("first", "second"):
            with _hasty():
                wrong = faults(path, acknowledged)
            for fault in wrong:
                found.append(f"power loss {number} before record {moment}, {time} start: {fault}")
            if number % 4:
                break
    return found


def faults(path: Path, acknowledged: dict[str, int]) -> list[str]:
    """What is wrong with a store that was found."""
    try:
        store = opened(path)
    except CannotOpen as error:
        return [f"it is refused: {error}"]
    found = []
    pairs: dict[str, dict[str, str]] = {writer: {} for writer in WRITERS}
    for key in store.data.keys_from("", 10_000):
        pairs[key.partition("/")[0]][key] = text_in(store.data.values.get(key)) or ""
    for writer, newest in acknowledged.items():
        last = int(pairs[writer].get(f"{writer}/last", 0))
        if last < newest:
            found.append(f"{writer}'s newest commit is {last}, and {newest} was acknowledged")
        if pairs[writer] != expected(writer, last):
            found.append(f"{writer}'s pairs are not those of commit {last}")
        for number in range(1, last + AHEAD + 1):
            receipt = receipt_of(writer, number)
            if receipt is not None:
                known = store.data.receipts.known(Receipt(None, receipt))
                if (known is not None and known[0].committed) != (number <= last):
                    found.append(f"the receipt {receipt} is {known}, and {writer}'s newest commit is {last}")
    store.stop()
    return found
