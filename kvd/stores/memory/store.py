"""The memory store: serves everything from memory; a journal, if it has one, keeps it on a disk as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from kvd.accounts import Account, Budget
from kvd.errors import BadArguments
from kvd.interfaces import Host, Later, Outcome, Receipt, ServerClock, Store, Writes
from kvd.stores.memory.data import Data
from kvd.stores.memory.journal import Journal
from kvd.stores.memory.outcomes import outcome_of
from kvd.stores.memory.receipts import Receipts
from kvd.stores.memory.snapshots import Latest, MemorySnapshot, nobody


class MemoryStore(Store):
    """A store that answers at once, or in pieces where much is asked for.

    :param journal: makes its commits durable; None: nothing does.
    """

    name = "memory"
    promise = "memory only: everything is forgotten on exit"

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal: Final = journal
        if journal is not None:
            self.name = journal.name
        self._synced: Callable[[], None] = _nothing
        budget = Budget(0)
        receipts = Receipts(Account(budget.receipts), _no_time, (3600.0, 600.0))
        self._begin(budget, receipts, at_once, ServerClock(_no_ticks, 0), None)

    def _begin(
        self,
        budget: Budget,
        receipts: Receipts,
        background: Callable[[Iterator[None]], None],
        clock: ServerClock,
        call_later: Callable[..., Any] | None,
    ) -> None:
        self.data = Data(self, self._journal, budget, receipts, background, clock, call_later)
        self._latest = Latest(self.data)

    def start(self, host: Host) -> None:
        receipts = Receipts(Account(host.budget.receipts), host.seconds, host.receipt_times)
        self._begin(host.budget, receipts, host.background, host.clock, host.reactor.callLater)
        self._synced = host.synced
        if self._journal is not None:
            self._journal.start(host, self.data, self.synced)
            self.promise = self._journal.promise

    def stop(self) -> None:
        self.data.ends.stop()
        if self._journal is not None:
            self._journal.stop()

    def synced(self, number: int) -> None:
        """All commits up to that number are durable."""
        self.data.unsynced.synced(number)
        self.durable = number
        self._synced()

    def snapshot(self, ended: Callable[[str], None] = nobody) -> MemorySnapshot:
        return MemorySnapshot(self.data, self.data.begin(ended))

    def latest(self) -> Latest:
        return self._latest

    def admit(self, writes: Writes) -> None:
        self.data.admit(writes)

    def outcome(self, receipt: Receipt) -> Outcome | Later[Outcome]:
        return outcome_of(self.data, receipt)

    def info(self) -> dict[str, Any]:
        history = self.data.history
        return {
            "keys": len(self.data.values),
            "keys_that_end": self.data.ends.size,
            "old_values": history.size,
            "old_values_bytes": history.account.held,
            **({} if self._journal is None else self._journal.info()),
        }


def at_once(steps: Iterator[None]) -> None:
    """Take an iterator to its end."""
    for _ in steps:
        pass


def _nothing() -> None:
    pass


def _no_time() -> float:
    return 0.0


def _no_ticks() -> int:
    return 0


def memory(argument: str) -> MemoryStore:
    """The store of ``--store memory``."""
    if argument:
        raise BadArguments(f"the memory store takes no argument, but was given {argument!r}")
    return MemoryStore()
