"""The account of memory: whoever keeps bytes for clients has an account, and sets it to what it keeps now.

Accounts of one kind share a total. Old values, transactions and buffers may each take a quarter of the limit: so nobody
who only holds such things can keep others from storing something. When that is passed, or when somebody wants to store
something and there is no room, the largest accounts are evicted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvd.errors import OutOfMemory

MIB: Final = 1024 * 1024

NO_LIMIT: Final = 2**62


def memory_of(text: str | None) -> int:
    """The bytes that a text, or None, takes in memory."""
    return text.__sizeof__()  # what sys.getsizeof gives, in half its time


def spare(limit: int) -> int:
    """Bytes by which a limit may be passed before anything is evicted, and which are kept free for what is not data."""
    return min(8 * MIB, limit // 16)


class Share:
    """What all accounts of one kind hold.

    :param most: bytes that they may hold together.
    :ivar used: bytes that they hold.
    """

    def __init__(self, budget: Budget, most: int) -> None:
        self.budget: Final = budget
        self.most: Final = most
        self.used = 0


class Account:
    """What one owner keeps for clients.

    :param share: the share that it belongs to.
    :param evict: gives up what is held, or some of it, for the reason given; None if this owner can't.
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
    :ivar calm: while no more bytes than this are used, nothing has to be evicted or refused.
    :ivar data, past, transactions, buffers, sessions, receipts: the shares: pairs; old values; reads and writes;
        input and output; what a connection takes that does nothing; and receipts.
    """

    def __init__(self, limit: int) -> None:
        self.limit: Final = limit or NO_LIMIT
        self.used = 0
        self.room = 0
        self.calm = 0
        self.crowded = False
        quarter = self.limit // 4
        self.data: Final = Share(self, self.limit)
        self.past: Final = Share(self, quarter)
        self.transactions: Final = Share(self, quarter)
        self.buffers: Final = Share(self, quarter)
        self.sessions: Final = Share(self, self.limit)
        self.receipts: Final = Share(self, self.limit)
        self._spare: Final = spare(self.limit)
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
        self.room = 0 if crowded else self.limit - self._spare
        self.calm = 0 if crowded else self.limit // 4

    def over(self, share: Share) -> bool:
        """Whether a share has passed its quarter by more than the spare."""
        return share.used > share.most + self._spare

    def relieve(self) -> None:
        """Evict the largest accounts until the limits hold."""
        if self.used <= self.calm:
            return
        for share in (self.buffers, self.transactions):
            while self.over(share) and self._evict_largest(share):
                pass
        while self.past.used > self.past.most and self._evict_largest(self.past):
            pass
        while self.used > self.limit + self._spare and self._evict_largest(None):
            pass

    def make_room(self, grown: int) -> None:
        """Find room for what somebody wants to store: evict the largest accounts, as far as that helps.

        :param grown: bytes.
        :raise kvd.errors.OutOfMemory: there is none.
        """
        # Half of a share is left alone: who fills the memory with data must not end everybody's transactions.
        while self.used + grown > self.room and not self.crowded and self._passing() > self.limit // 8:
            if not self._evict_largest(None):
                break
        if self.used + grown > self.room:
            raise self.exceeded()

    def give_up(self) -> bool:
        """Evict the largest account, because the process takes too much; whether there was one that is not small."""
        return self._passing() > self.limit // 64 and self._evict_largest(None)

    def _passing(self) -> int:
        """What can be evicted."""
        return self.past.used + self.transactions.used + self.buffers.used

    def _evict_largest(self, share: Share | None) -> bool:
        """Evict the largest account of a share, or of all.

        :return: whether that gave anything up.
        """
        largest: Account | None = None
        for account in self._evictable:
            if (share is None or account.share is share) and (largest is None or account.held > largest.held):
                largest = account
        if largest is None or largest.evict is None:
            return False
        held = largest.held
        largest.evict(f"it held {held} bytes of memory, more than any other, and memory was short")
        return largest.held < held

    def exceeded(self) -> OutOfMemory:
        """The error for what would grow, at the limit."""
        holes = " (and the process takes more, because freed memory is fragmented)" * self.crowded
        return OutOfMemory(
            f"the server is at its memory limit: {self.used} of {self.limit} bytes are used{holes}; "
            "reading, DEL, and overwriting with something no larger still work"
        )
