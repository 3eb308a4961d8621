"""What the workloads of one window share: the history, and the place for their keys."""

from __future__ import annotations

from itertools import count
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from kvd import wire
from kvd.verify.client import Client, Reply, Txn
from kvd.verify.history import History

READ_ONLY: Final = 0.15
"""The share of transactions that only read."""


class Workload(Protocol):
    """One kind of work."""

    async def turn(self, client: Client) -> None:
        """Let a client do one transaction, or a few plain commands."""

    def look_all(self, client: Client) -> list[Deferred[Reply]]:
        """Read everything that it has written, with plain commands."""


class Space:
    """What the workloads of one window share.

    :param prefix: what all its keys begin with on the server; the history leaves it out.
    """

    def __init__(self, history: History, prefix: str) -> None:
        self.history = history
        self.prefix = prefix
        self.numbers = count(1)

    def key(self, name: str) -> str:
        """The key on the server for a name in the history."""
        return self.prefix + name

    def name(self, key: str) -> str:
        """The name in the history for a key on the server."""
        return key.removeprefix(self.prefix)

    async def scan(self, txn: Txn, prefix: str) -> list[str]:
        """The names under a prefix as a transaction sees them, read page by page in either direction."""
        backwards = txn.random.random() < 0.3
        words: list[wire.Word] = ["SCAN", "PREFIX", self.key(prefix), "KEYS"]
        words += ["LIMIT", txn.random.choice((1, 3))] if txn.random.random() < 0.3 else []
        words += ["REVERSE"] if backwards else []
        found: list[str] = []
        following: list[wire.Word] = []
        for _ in range(100):
            (page,) = await txn.ask((*words, *following))
            found += map(self.name, page["items"])
            if page["next"] is None:
                break
            following = ["TO" if backwards else "FROM", page["next"]]
        return found
