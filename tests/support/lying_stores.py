"""Servers that lie: each breaks one promise, so that whoever claims to check the promises can be seen to notice.

All but one are the memory store with a part replaced; the other is a protocol that mixes up replies. They lie
on fixed occasions, not by chance, so that runs repeat. They need the plain build: compiled classes can't be subclassed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kvd.accounts import Budget
from kvd.core.lines import LineCodec
from kvd.daemon.service import StoreService
from kvd.daemon.stream import StreamFactory
from kvd.errors import Conflict
from kvd.interfaces import (
    Changed,
    Count,
    Later,
    Page,
    Range,
    Reads,
    Receipt,
    Scan,
    ServerClock,
    Snapshot,
    Stored,
    Writes,
)
from kvd.stores.memory.data import Data
from kvd.stores.memory.history import Mark
from kvd.stores.memory.receipts import Receipts
from kvd.stores.memory.snapshots import Latest, MemorySnapshot, nobody
from kvd.stores.memory.store import MemoryStore


class LyingData(Data):
    """The data of a store that lies: whatever is to be applied goes through the store first."""

    liar: LyingStore

    def apply(self, writes: Writes, by: int, receipt: Receipt | None = None) -> None:
        """Let the store do what it pleases."""
        self.liar.apply(writes, by, receipt)

    def really_apply(self, writes: Writes, by: int, receipt: Receipt | None) -> None:
        """Store."""
        super().apply(writes, by, receipt)


class LyingSnapshot(MemorySnapshot):
    """A snapshot that its store can make lie."""

    def __init__(self, store: LyingStore, mark: Mark) -> None:
        super().__init__(store.data, mark)
        self._store = store

    def conflicts(self, reads: Reads, limit: int) -> Changed:
        """What the store has left of the truth."""
        kept = [read for read in reads if self._store.checks(read)]
        found = super().conflicts(kept, limit)
        assert not isinstance(found, Later)  # what these stores are asked is little
        return [each for each in found if self._store.tells(each[0], kept)]

    def commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None = None) -> None:
        """Commit, or refuse and store it nevertheless."""
        try:
            super().commit(reads, writes, by, receipt)
        except Conflict:
            self._store.refused(writes, by)
            raise


class LyingStore(MemoryStore):
    """A memory store in which every part that subclasses replace still tells the truth."""

    def _begin(
        self,
        budget: Budget,
        receipts: Receipts,
        background: Callable[[Iterator[None]], None],
        clock: ServerClock,
        call_later: Callable[..., Any] | None,
    ) -> None:
        super()._begin(budget, receipts, background, clock, call_later)
        self.lying_data = LyingData(self, None, budget, receipts, background, clock, call_later)
        self.lying_data.liar = self
        self.data = self.lying_data
        self._latest = Latest(self.data)

    def apply(self, writes: Writes, by: int, receipt: Receipt | None = None) -> None:
        """Store a commit."""
        self.lying_data.really_apply(writes, by, receipt)

    def snapshot(self, ended: Callable[[str], None] = nobody) -> MemorySnapshot:
        """The state as it is now."""
        return LyingSnapshot(self, self.data.begin(ended))

    def checks(self, read: str | Range) -> bool:
        """Whether a commit looks at this that was read."""
        return True

    def tells(self, key: str, reads: list[str | Range]) -> bool:
        """Whether a change of a key that was read is taken for a conflict."""
        return True

    def refused(self, writes: Writes, by: int) -> None:
        """A commit met a conflict."""


class NoReadCheck(LyingStore):
    """Keys that were read may change before the COMMIT."""

    def checks(self, read: str | Range) -> bool:
        """Ranges alone."""
        return not isinstance(read, str)


class NoRangeCheck(LyingStore):
    """Ranges that were scanned or counted may change before the COMMIT."""

    def checks(self, read: str | Range) -> bool:
        """Keys alone."""
        return isinstance(read, str)


class DeletionsMissed(LyingStore):
    """What was deleted from a scanned range is not noticed, as with etcd's range compare."""

    def tells(self, key: str, reads: list[str | Range]) -> bool:
        """All but ranges from which something has gone."""
        return self.data.values.get(key) is not None or key in reads


class LateSnapshot(LyingStore):
    """The snapshot is taken at the first read, not at START."""

    def snapshot(self, ended: Callable[[str], None] = nobody) -> Any:
        """A snapshot of later."""
        return _TakenLate(self, ended)


class _TakenLate(Snapshot):
    def __init__(self, store: LyingStore, ended: Callable[[str], None]) -> None:
        self._store = store
        self._ended = ended
        self._taken: MemorySnapshot | None = None

    def _there(self) -> MemorySnapshot:
        if self._taken is None:
            self._taken = LyingStore.snapshot(self._store, self._ended)
        return self._taken

    def read(self, keys: list[str]) -> list[str | None]:
        """The values as they are at the first read."""
        return self._there().read(keys)

    def read_with_ends(self, keys: list[str]) -> list[Stored | None]:
        """The same, with their ends."""
        return self._there().read_with_ends(keys)

    def scan(self, scan: Scan) -> Page | Later[Page]:
        """A page of what is there at the first read."""
        return self._there().scan(scan)

    def count(self, count: Count) -> int | Later[int]:
        """The number of keys as it is at the first read."""
        return self._there().count(count)

    def conflicts(self, reads: Reads, limit: int) -> Changed | Later[Changed]:
        """What was changed since the first read."""
        return self._there().conflicts(reads, limit)

    def commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None = None) -> Later[None] | None:
        """Commit on top of the first read."""
        return self._there().commit(reads, writes, by, receipt)

    def close(self) -> None:
        """Give it up, if it was taken."""
        if self._taken is not None:
            self._taken.close()


class _InTwoSteps(LyingStore):
    """Stores a part of what it acknowledged only some commits or snapshots later."""

    WAIT = 3  # snapshots and commits in between

    def __init__(self) -> None:
        super().__init__()
        self._rest: list[tuple[int, Writes, int]] = []
        self._events = 0

    def later(self, writes: Writes, by: int) -> None:
        """Store something some time later."""
        if writes:
            self._rest.append((self._events + self.WAIT, writes, by))

    def _event(self) -> None:
        self._events += 1
        while self._rest and self._rest[0][0] <= self._events:
            _, writes, by = self._rest.pop(0)
            super().apply(writes, by)

    def snapshot(self, ended: Callable[[str], None] = nobody) -> MemorySnapshot:
        """A snapshot, before which something of earlier may be stored."""
        self._event()
        return super().snapshot(ended)

    def apply(self, writes: Writes, by: int, receipt: Receipt | None = None) -> None:
        """Store what is to be seen at once."""
        self._event()
        writes = dict(writes)
        now = self.at_once(writes)
        if now:
            super().apply(now, by)
        self.later({key: value for key, value in writes.items() if key not in now or self.again(key)}, by)

    def at_once(self, writes: Writes) -> Writes:
        """What of a commit is stored at once."""
        return writes

    def again(self, key: str) -> bool:
        """Whether something that was stored is stored a second time."""
        return False


class TornCommit(_InTwoSteps):
    """Of a commit of several writes, the first is seen before the rest."""

    def at_once(self, writes: Writes) -> Writes:
        """The first."""
        return dict(list(writes.items())[:1])


class AcknowledgedEarly(_InTwoSteps):
    """Every fifth commit is acknowledged before it is stored."""

    _commits = 0

    def at_once(self, writes: Writes) -> Writes:
        """Nothing, each fifth time."""
        self._commits += 1
        return {} if self._commits % 5 == 0 else writes


class AppliedTwice(_InTwoSteps):
    """Every fifth commit is stored twice, as by a retry that doesn't ask whether the first try had succeeded."""

    _commits = 0

    def at_once(self, writes: Writes) -> Writes:
        """All."""
        self._commits += 1
        return writes

    def again(self, key: str) -> bool:
        """Each fifth time."""
        return self._commits % 5 == 0


class AbortedWriteShows(LyingStore):
    """What was refused with CONFLICT is stored nevertheless."""

    def refused(self, writes: Writes, by: int) -> None:
        """Store it."""
        self.apply(writes, by)


STORES: dict[str, type[LyingStore]] = {
    "no read check": NoReadCheck,
    "no range check": NoRangeCheck,
    "deletions missed": DeletionsMissed,
    "snapshot taken late": LateSnapshot,
    "torn commit": TornCommit,
    "acknowledged before stored": AcknowledgedEarly,
    "aborted write shows": AbortedWriteShows,
    "applied twice": AppliedTwice,
}
"""What each lie is called."""


class SwappedReplies(LineCodec):
    """Where a turn has several replies, the first two of them change places."""

    def take(self) -> bytes:
        lines = super().take().splitlines(keepends=True)
        lines[:2] = reversed(lines[:2])
        return b"".join(lines)


def swapping_factory(service: StoreService) -> StreamFactory:
    """Serves lines, with replies that are mixed up."""
    return StreamFactory(service, SwappedReplies)
