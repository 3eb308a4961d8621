"""The contract suite, on every store that there is, and on stores that answer later."""

from __future__ import annotations

from twisted.internet.task import Clock

from kvd.interfaces import Store
from kvd.stores.memory.store import MemoryStore
from kvd.testing.contract import StoreContract
from kvd.testing.stores import SlowStore


class TestMemory(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return MemoryStore()


class TestSlow(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return SlowStore(clock, 1)


class TestSlowWithOtherDelays(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return SlowStore(clock, 2)
