"""The data: pairs in a dict with their keys in order, and what a commit does to them.

Current values live in a dict (in parts, see :mod:`kvd.stores.memory.split`), and their keys in order in a sorted list.
With no snapshot open a write is one dict store. What open snapshots still see of the past is in
:mod:`kvd.stores.memory.history`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import merge
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from kvd.accounts import MIB, Account, Budget, memory_of
from kvd.interfaces import Range, Receipt, Store, Writes
from kvd.stores.memory.history import History
from kvd.stores.memory.journal import Contents, Journal, Unsynced
from kvd.stores.memory.receipts import Receipts
from kvd.stores.memory.split import SplitDict

PAIR_BYTES: Final = 100
"""What a pair takes in memory beside its key and value: its places in the dict and in the list, and rounding."""

LARGEST: Final = 5 * MIB
"""More bytes than any one pair can take: a string takes up to four bytes for each of its characters."""

HURRY: Final = 10_000
"""Records that are let go of at once where memory is short."""


class Data(Contents):
    """The pairs of a store, and their past as far as snapshots see it.

    :param store: is told what its answers rest on.
    :param journal: makes commits durable; None: nothing does.
    :param budget: the account of the server's memory.
    :param receipts: which COMMITs with a receipt have happened.
    :param background: takes an iterator to its end, a step at a time.
    :ivar order: the keys of ``values``.
    :ivar dead: keys that are not in ``values`` but that an open snapshot sees.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal | None,
        budget: Budget,
        receipts: Receipts,
        background: Callable[[Iterator[None]], None],
    ) -> None:
        self.values: Final = SplitDict()
        self.order: Final = SortedList()
        self.dead: Final = SortedList()
        self.budget: Final = budget
        self.account: Final = Account(budget.data)
        self.history: Final = History(Account(budget.past, self._end_oldest), self._freed, background)
        self.receipts: Final = receipts
        self.journal: Final = journal
        self.unsynced: Final = Unsynced()
        self._store: Final = store

    def sees(self, number: int) -> None:
        """An answer rests on a commit; 0: on none that is not durable."""
        if number > self._store.seen:
            self._store.seen = number

    # What is there.

    def keys_between(self, within: Range, with_dead: bool) -> Iterator[str]:
        """The keys of a range, in its order; with those that only snapshots see, if wanted."""
        low, high, descending = within
        inclusive = (True, False)
        alive = self.order.irange(low, high, inclusive, descending)
        if not with_dead or not self.dead:
            return iter(alive)
        return merge(alive, self.dead.irange(low, high, inclusive, descending), reverse=descending)

    def how_many_between(self, within: Range) -> int:
        """How many keys a range holds now."""
        return _how_many(self.order, within)

    def how_many_dead_between(self, within: Range) -> int:
        """How many keys of a range only snapshots see."""
        return _how_many(self.dead, within)

    # What a commit does.

    def admit(self, writes: Writes) -> None:
        """Refuse what grows at the memory limit.

        :raise OutOfMemory: there is no room.
        """
        if self.budget.used > self.budget.room:
            grown = self.growth(writes)
            if grown > 0:
                self.budget.make_room(grown)

    def growth(self, writes: Writes) -> int:
        """By how many bytes these writes would make the data grow; less than 0 if it would shrink."""
        grown = 0
        for key, value in writes.items():
            old = self.values.get(key)
            if old is not None:
                grown -= pair_bytes(key, old)
            if value is not None:
                grown += pair_bytes(key, value)
        return grown

    def apply(self, writes: Writes, by: int, receipt: Receipt | None = None) -> None:
        """Make writes visible, all as one commit.

        :raise OutOfMemory: there is no room for them; nothing was stored.
        :raise ReceiptUsed: the receipt is used; nothing was stored.
        :raise Unavailable: they can't be written to the disk; nothing was stored.
        """
        budget = self.budget
        if self.journal is not None:
            self.journal.admit(writes)
        if receipt is not None:
            self.receipts.check(receipt)
        if budget.used + LARGEST * len(writes) > budget.room:  # else there is room for sure
            grown = self.growth(writes)
            if grown > 0 and budget.used + grown > budget.room:
                budget.make_room(grown)
        if self.history.open:
            self._remember(writes, by)
        changed = self._store_all(writes)
        number = 0
        if self.journal is not None:
            number = self._write_down(self.journal, writes, by, changed, receipt)
        if receipt is not None:
            self.receipts.add(receipt, True, number)
        if self.history.size and budget.used > budget.calm:
            budget.relieve()

    def _store_all(self, writes: Writes) -> bool:
        """Whether any of them changed anything."""
        grown = 0
        changed = False
        for key, value in writes.items():
            if value is not None:
                changed = True
                old = self.values.put(key, value)
                if old is None:
                    self.order.add(key)
                    if self.dead:
                        self.dead.discard(key)
                    grown += pair_bytes(key, value)
                else:
                    grown += memory_of(value) - memory_of(old)
            else:
                old = self.values.remove(key)
                if old is not None:
                    changed = True
                    self.order.remove(key)
                    grown -= pair_bytes(key, old)
        self.account.set(self.account.held + grown)
        return changed

    def _write_down(self, journal: Journal, writes: Writes, by: int, changed: bool, receipt: Receipt | None) -> int:
        if not changed and receipt is None:  # but that there was nothing to remove may not be durable yet
            self.sees(self.unsynced.of(list(writes)))
            return 0
        number = self.unsynced.committed(writes)
        self.sees(number)
        journal.append(number, writes, by, receipt, True)
        return number

    def settle(self, receipt: Receipt, by: int) -> None:
        """Make sure that no COMMIT with a receipt ever succeeds.

        :raise OutOfMemory: it can't be remembered.
        :raise Unavailable: it can't be written to the disk.
        """
        self.receipts.check(receipt)
        number = 0
        if self.journal is not None:
            self.journal.admit({})
            number = self.unsynced.committed({})
            self.sees(number)
            self.journal.append(number, {}, by, receipt, False)
        self.receipts.add(receipt, False, number)

    def _remember(self, writes: Writes, by: int) -> None:
        history = self.history
        history.commits()
        for watcher in history.watchers:
            watcher.extend(writes)
        for key, value in writes.items():
            old = self.values.get(key)
            if old is None and value is None:
                continue  # removing what is not there changes nothing
            history.replaced(key, old, by)
            if value is None:
                self.dead.add(key)

    # What the journal asks for.

    def restore(self, pairs: Iterator[list[tuple[str, str]]]) -> None:
        keys: list[str] = []
        for piece in pairs:
            grown = 0
            for key, value in piece:
                self.values.put(key, value)
                keys.append(key)
                grown += pair_bytes(key, value)
            self.account.set(self.account.held + grown)
        self.order.update(keys)  # at once, which is quick

    def repeat(self, writes: Writes) -> None:
        self._store_all(writes)

    def remember(self, receipt: Receipt, committed: bool, number: int, age: float) -> None:
        self.receipts.restore(receipt, committed, number, age)

    def restored(self, number: int, complete: float) -> None:
        self.unsynced.number = self.unsynced.durable = self._store.durable = number
        self.receipts.restored(complete)

    def size(self) -> tuple[int, int]:
        return len(self.values), self.account.held

    def value(self, key: str) -> str | None:
        return self.values.get(key)

    def keys_from(self, low: str, most: int) -> list[str]:
        return list(islice(self.order.irange(low), most))

    # What the history asks for.

    def _freed(self, key: str) -> None:
        """No open snapshot sees anything but the present of a key."""
        if self.dead and self.values.get(key) is None:
            self.dead.discard(key)

    def _end_oldest(self, why: str) -> None:
        """End the oldest snapshots, until old values take less memory than now."""
        history = self.history
        held = history.account.held
        mark = history.oldest
        while mark is not None and history.account.held >= held:
            following = mark.newer
            if not mark.closed and not mark.busy:
                history.close(mark)
                history.hurry(mark, HURRY)
                mark.ended(f"the old values that it and others could see took {held} bytes of memory, too much")
            mark = following


def _how_many(keys: SortedList, within: Range) -> int:
    low, high, _ = within
    start: int = keys.bisect_left(low)
    end: int = len(keys) if high is None else keys.bisect_left(high)
    return max(0, end - start)


def pair_bytes(key: str, value: str) -> int:
    """What a pair takes in memory."""
    return memory_of(key) + memory_of(value) + PAIR_BYTES
