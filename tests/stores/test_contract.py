"""The contract suite, on every store that there is, and on stores that answer later."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from twisted.internet.task import Clock

from kvd.interfaces import Store
from kvd.stores.memory.store import MemoryStore
from kvd.testing.contract import StoreContract
from kvd.testing.stores import FickleStore, SlowStore, slow_sync_store
from tests.support.sqlite import sqlite_store


class TestMemory(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return MemoryStore()


class TestFickle(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return FickleStore(clock, 1)


class TestFickleInOtherWays(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return FickleStore(clock, 2)


class TestSlowSync(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        store, _ = slow_sync_store(clock)
        return store


class TestSqlite(StoreContract):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def make_store(self, clock: Clock) -> Store:
        return sqlite_store(self.path / f"{uuid4().hex}.db", clock)


class TestSlow(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return SlowStore(clock, 1)


class TestSlowWithOtherDelays(StoreContract):
    def make_store(self, clock: Clock) -> Store:
        return SlowStore(clock, 2)
