"""The account of memory: whoever keeps bytes for clients has an account, and sets it to what it keeps now.

Accounts of one kind share a total, so that no kind can crowd out the others: old values, transactions and buffers each
have a share of the limit. What is over its share is evicted, largest first. A limit of 0 means: none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvd.errors import OutOfMemory

MIB: Final = 1024 * 1024

SPARE: Final = 8 * MIB
"""Bytes by which everything together, or buffers alone, may be over the limit before the largest account is evicted."""

NO_LIMIT: Final = 2**62


def memory_of(text: str | None) -> int:
    """The bytes that a text, or None, takes in memory."""
    return text.__sizeof__()  # what sys.getsizeof gives, in half its time


class Share:
    """What all accounts of one kind hold.

    :ivar used: bytes.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget: Final = budget
        self.used = 0


class Account:
    """What one owner keeps for clients.

    :param share: the share that it belongs to.
    :param evict: gives up everything that is held, for the reason given; None if this owner can't.
    :ivar held: bytes of memory.
    """

    def __init__(self, share: Share, evict: Callable[[str], None] | None = None) -> None:
        self.share: Final = share
        self.evict = evict
        self.held = 0

    def set(self, size: int) -> None:
        """Hold this many bytes, from now on."""
        share = self.share
        held = self.held
        self.held = size
        share.used += size - held
        share.budget.used += size - held
        if self.evict is not None and (size == 0) != (held == 0):
            share.budget.enter(self)

    def close(self) -> None:
        """Hold nothing, and never again."""
        self.set(0)
        self.evict = None


class Budget:
    """All accounts of a server.

    :param limit: bytes of memory that they may hold together; 0: no limit.
    :ivar used: bytes that they hold.
    :ivar room: bytes that may be used by what grows. The rest of the limit is for old values, so that what is
        overwritten at the limit does not end every open transaction at once.
    :ivar data, past, transactions, buffers, sessions: the shares: pairs; old values; reads and writes; input and
        output; and what a connection takes that does nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit or NO_LIMIT
        self.used = 0
        self.room = 0
        self.crowded = False
        self.data: Final = Share(self)
        self.past: Final = Share(self)
        self.transactions: Final = Share(self)
        self.buffers: Final = Share(self)
        self.sessions: Final = Share(self)
        self._evictable: dict[Account, None] = {}  # those that hold something
        self.set_crowded(False)

    def enter(self, account: Account) -> None:
        """Remember which accounts can be evicted."""
        if account.held:
            self._evictable[account] = None
        else:
            self._evictable.pop(account, None)

    def set_crowded(self, crowded: bool) -> None:
        """Tell whether the process takes more memory than the limit, though less may be used; then nothing may grow."""
        self.crowded = crowded
        self.room = 0 if crowded else self.limit - min(SPARE, self.limit // 16)

    def strained(self) -> bool:
        """Whether the largest of transactions and buffers has to go."""
        return self.used > self.limit + SPARE or self.buffers.used > self.limit // 4 + SPARE

    def relieve(self) -> None:
        """Evict the largest accounts until the limits hold."""
        while self.strained() and self._evictable:
            largest = max(self._evictable, key=_held)
            _evict(largest)

    def exceeded(self) -> OutOfMemory:
        """The error for what would grow, at the limit."""
        holes = " (and the process takes more, because freed memory is fragmented)" * self.crowded
        return OutOfMemory(
            f"the server is at its memory limit: {self.used} of {self.limit} bytes are used{holes}; "
            "reading, DEL, and overwriting with something no larger still work"
        )


def _held(account: Account) -> int:
    return account.held


def _evict(account: Account) -> None:
    evict = account.evict
    if evict is not None:
        evict(f"it held {account.held} bytes of memory, more than any other")
    account.set(0)  # whatever its owner did
