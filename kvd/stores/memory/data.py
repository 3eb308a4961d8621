"""The data: pairs in a dict with their keys in order, and what a commit does to them.

Current values live in a dict (in parts, see :mod:`kvd.stores.memory.split`), and their keys in order in a sorted list.
With no snapshot open a write is one dict store. What open snapshots still see of the past is in
:mod:`kvd.stores.memory.history`.

**Keys that end.** A key is gone from the very millisecond of its end on, because whoever reads it compares the end with
the clock, or with the time of its snapshot. It is *swept* afterwards: removed from here, and recorded for the snapshots
that were taken before the end. That happens piece by piece in the background, so it does no harm that a hundred
thousand keys end at once. Who is about to write a key, or wants to know what has changed, sweeps first what matters to
him.

With a journal, an end takes effect by a commit that records only the time. Whoever is told that a key has ended is told
so when that commit is durable: after a crash the clock goes on from there, and nothing that has ended comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any, Final

from sortedcontainers import SortedList

from kvd.accounts import MIB, Account, Budget, memory_of
from kvd.interfaces import Ending, Range, Receipt, ServerClock, Store, Stored, Writes, stored_bytes, text_in
from kvd.stores.memory.ends import Ends
from kvd.stores.memory.history import History, Mark
from kvd.stores.memory.journal import Contents, Journal, Unsynced
from kvd.stores.memory.receipts import Receipts
from kvd.stores.memory.split import SplitDict

PAIR_BYTES: Final = 100
"""What a pair takes in memory beside its key and value: its places in the dict and in the list, and rounding."""

LARGEST: Final = 5 * MIB
"""More bytes than any one pair can take: a string takes up to four bytes for each of its characters."""

SWEEP: Final = 200
"""Keys that have ended and are swept at a time."""

HURRY: Final = 10_000
"""Records that are let go of at once where memory is short."""


class Data(Contents):
    """The pairs of a store, and their past as far as snapshots see it.

    :param store: is told what its answers rest on.
    :param journal: makes commits durable; None: nothing does.
    :param budget: the account of the server's memory.
    :param receipts: which COMMITs with a receipt have happened.
    :param background: takes an iterator to its end, a step at a time.
    :param clock: the time by which keys end.
    :param call_later: calls a function after some seconds; None: nothing is swept while nobody asks.
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
        clock: ServerClock,
        call_later: Callable[..., Any] | None,
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
        self.clock: Final = clock
        self.ends: Final = Ends(clock, call_later, self._sweep_soon)
        self._store: Final = store
        self._background: Final = background
        self._sweeping = False
        self._time = 0  # the newest that a commit has recorded
        self._time_number = 0  # the number of that commit

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

    def begin(self, ended: Callable[[str], None]) -> Mark:
        """Begin to remember what a snapshot sees that is taken now.

        :param ended: is told why, if the snapshot must be given up.
        """
        time = 0
        if self.ends.size:
            time = self.clock.now()
            if self.ends.due(time):
                self.history.commits()
                self.passed(time)
        return self.history.begin(ended, time)

    # Keys that end.

    def passed(self, time: int) -> int:
        """A time has passed, and somebody is told so.

        :return: the number of the commit that has recorded it; 0: nothing is ever recorded.
        """
        if self.journal is None:
            return 0
        if time > self._time:
            self._time = self.clock.now()
            self._time_number = self.unsynced.committed({})
            self.journal.append(self._time_number, {}, 0, None, True)
        return self._time_number

    def sweep(self, most: int) -> bool:
        """Remove some of the keys that have ended, the earliest first.

        :return: whether there are more.
        """
        now = self.clock.now()
        ended = self.ends.ended(now, most)
        if ended:
            self._remove_ended(ended)
        return len(ended) == most and self.ends.due(now)

    def sweep_all(self, until: int) -> Iterator[None]:
        """Remove what has ended up to some time, a piece at a time."""
        while self.ends.due(until):
            if self.sweep(SWEEP) and self.ends.due(until):
                yield None

    def sweep_of(self, keys: Iterable[str]) -> None:
        """Remove those of some keys that have ended."""
        now = self.clock.now()
        if not self.ends.due(now):
            return
        for key in keys:
            stored = self.values.get(key)
            if isinstance(stored, Ending) and stored.end <= now:
                self._remove_ended([(stored.end, key)])

    def _sweep_soon(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._background(self._sweep_in_pieces())

    def _sweep_in_pieces(self) -> Iterator[None]:
        while self.sweep(SWEEP):
            yield None
        self._sweeping = False
        self.ends.wind()

    def _remove_ended(self, ended: list[tuple[int, str]]) -> None:
        number = self.passed(ended[-1][0])
        history = self.history
        known = -1
        place: tuple[Mark, int] | None = None
        grown = 0
        keys = []
        for end, key in ended:
            self.ends.remove(key, end)
            old = self.values.remove(key)
            if old is None:
                continue
            self.order.remove(key)
            keys.append(key)
            grown -= pair_bytes(key, old)
            if history.open:
                if end != known:
                    known = end
                    place = history.before(end)
                if place is not None:
                    history.ended(place, key, old)
                if history.remembers(key):
                    self.dead.add(key)
        self.account.set(self.account.held + grown)
        for watcher in history.watchers:
            watcher.extend(keys)
        if self.journal is not None:
            self.unsynced.also(number, keys)
            self.journal.ended(keys)

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
            if old is not None and value is not None:  # that it ends, or ends no more, is always allowed
                grown += memory_of(text_in(value)) - memory_of(text_in(old))
            elif old is not None:
                grown -= pair_bytes(key, old)
            elif value is not None:
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
        if self.ends.size:
            self.sweep_of(writes)
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
        if self.ends.size:
            self.ends.wind()
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
                    grown += stored_bytes(value) - stored_bytes(old)
                if not isinstance(value, str):
                    self.ends.add(key, value.end)
            else:
                old = self.values.remove(key)
                if old is not None:
                    changed = True
                    self.order.remove(key)
                    grown -= pair_bytes(key, old)
            if old is not None and not isinstance(old, str):
                self.ends.remove(key, old.end)
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

    def now(self) -> int:
        return self.clock.now()

    def restore(self, pairs: Iterator[list[tuple[str, Stored]]]) -> None:
        keys: list[str] = []
        ends: list[tuple[int, str]] = []
        for piece in pairs:
            grown = 0
            for key, value in piece:
                self.values.put(key, value)
                keys.append(key)
                grown += pair_bytes(key, value)
                if isinstance(value, Ending):
                    ends.append((value.end, key))
            self.account.set(self.account.held + grown)
        self.order.update(keys)  # at once, which is quick
        self.ends.update(ends)

    def repeat(self, writes: Writes) -> None:
        self._store_all(writes)

    def remember(self, receipt: Receipt, committed: bool, number: int, age: float) -> None:
        self.receipts.restore(receipt, committed, number, age)

    def restored(self, number: int, complete: float) -> None:
        self.unsynced.number = self.unsynced.durable = self._store.durable = number
        self.receipts.restored(complete)
        self.ends.wind()

    def size(self) -> tuple[int, int]:
        return len(self.values), self.account.held

    def value(self, key: str) -> Stored | None:
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


def pair_bytes(key: str, value: Stored) -> int:
    """What a pair takes in memory, with its end."""
    return memory_of(key) + stored_bytes(value) + PAIR_BYTES
