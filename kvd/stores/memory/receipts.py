"""Receipts: which COMMITs have happened, and which never will.

They are remembered for a time, and for less when they reach their share of memory; but always for longer than a
transaction may live, or a client could be told "never" of a COMMIT that happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvd.accounts import Account
from kvd.errors import OutOfMemory, ReceiptUsed
from kvd.interfaces import Outcome, Receipt
from kvd.wire import shown

RECEIPT_BYTES: Final = 320
"""What a receipt takes in memory: its name of up to 64 bytes, its record, and its place."""

SHARE: Final = 4
"""Receipts may take one part in so many of the memory limit."""


class _Record:
    """What is known of a receipt."""

    __slots__ = ("at", "committed", "number")

    def __init__(self, committed: bool, at: float, number: int) -> None:
        self.committed: Final = committed
        self.at: Final = at
        self.number: Final = number


class Receipts:
    """The receipts of a store.

    :param account: holds the memory that they take.
    :param seconds: tells the time.
    :param times: for how many seconds receipts are remembered, and for how many at least.
    :ivar complete_since: the time from which on every receipt is known.
    """

    def __init__(self, account: Account, seconds: Callable[[], float], times: tuple[float, float]) -> None:
        self._account: Final = account
        self._seconds: Final = seconds
        self._time: Final = times[0]
        self._least: Final = times[1]
        self._known: dict[Receipt, _Record] = {}  # the oldest first
        self._under_way: dict[Receipt, None] = {}
        self.complete_since = seconds()

    def begin(self, receipt: Receipt) -> None:
        """A COMMIT with a receipt begins, and is not done at once.

        :raise ReceiptUsed: there is one, or there was one.
        """
        self.check(receipt)
        self._under_way[receipt] = None

    def end(self, receipt: Receipt) -> None:
        """It is done, one way or another."""
        self._under_way.pop(receipt, None)

    def is_under_way(self, receipt: Receipt) -> bool:
        """Whether it is not done yet."""
        return receipt in self._under_way

    def check(self, receipt: Receipt) -> None:
        """See that a receipt may be used, and that there is room to remember it.

        :raise ReceiptUsed: it is used already, or settled.
        :raise OutOfMemory: there is no room.
        """
        known = self._known.get(receipt)
        if known is not None or receipt in self._under_way:
            why = "is settled: it never happens" if known is not None and not known.committed else "is used already"
            raise ReceiptUsed(f"the receipt {shown(receipt.name)} {why}; nothing was stored, take another one")
        self._make_room()

    def add(self, receipt: Receipt, committed: bool, number: int, at: float | None = None) -> None:
        """Remember a receipt.

        :param number: of the commit that it came with.
        :param at: when that was; now, if it is not given.
        """
        self._known[receipt] = _Record(committed, self._seconds() if at is None else at, number)
        self._account.set(self._account.held + RECEIPT_BYTES)

    def restore(self, receipt: Receipt, committed: bool, number: int, age: float) -> None:
        """Remember a receipt of an earlier run, younger than those that were restored before."""
        if age <= self._time:
            self._known[receipt] = _Record(committed, self._seconds() - age, number)
            self._account.set(self._account.held + RECEIPT_BYTES)

    def restored(self, complete: float) -> None:
        """All receipts of some last seconds were restored; forget those for which there is no room."""
        self.complete_since = self._seconds() - complete
        most = self._account.share.budget.limit // SHARE
        while self._account.held > most:
            oldest = next(iter(self._known))
            self.complete_since = max(self.complete_since, self._known.pop(oldest).at)
            self._account.set(self._account.held - RECEIPT_BYTES)

    def known(self, receipt: Receipt) -> tuple[Outcome, int] | None:
        """What became of a COMMIT, and the number of the commit that says so; None if there was none."""
        record = self._known.get(receipt)
        return None if record is None else (Outcome(record.committed, self.kept()), record.number)

    def kept(self) -> float:
        """For how many seconds back every receipt is known."""
        return min(self._time, self._seconds() - self.complete_since)

    def _make_room(self) -> None:
        now = self._seconds()
        most = self._account.share.budget.limit // SHARE
        while self._known:
            oldest = next(iter(self._known))
            at = self._known[oldest].at
            if now - at <= self._time:
                if self._account.held < most:
                    return
                if now - at <= self._least:
                    raise OutOfMemory(
                        f"there is no room to remember another receipt: the {len(self._known)} of the last "
                        f"{now - at:.0f} seconds must be kept for {self._least:g} seconds; COMMIT without one, or wait"
                    )
                self.complete_since = max(self.complete_since, at)
            del self._known[oldest]
            self._account.set(self._account.held - RECEIPT_BYTES)
