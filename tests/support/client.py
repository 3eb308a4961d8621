"""What several of these tests do."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from kvd.client import Client, Transaction
from kvd.testing import MemoryServer


def outcome_of(deferred: Deferred[Any]) -> list[Any]:
    """A list that will hold the result, or the exception, once it is there."""
    found: list[Any] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


def connections(server: MemoryServer, client: Client) -> tuple[int, int]:
    """How many connections there are, and how many there have been."""
    clients = server.run(client.info("clients"))
    return clients["connected"], clients["accepted"]


async def add_one(txn: Transaction, key: str) -> int:
    number = int(await txn.get(key) or 0) + 1
    await txn.put(key, str(number))
    return number


async def transfer(txn: Transaction, source: str, target: str, amount: int) -> None:
    have = int(await txn.get(source) or 0)
    await txn.put(source, str(have - amount))
    await txn.put(target, str(int(await txn.get(target) or 0) + amount))
