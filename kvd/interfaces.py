"""What a store must do, with units, errors and promises: what the author of a store reads and imports.

A store may answer at once, by returning the answer, or later, by returning a :class:`Later` in its place; it may do
either from call to call. The core knows nothing of Deferreds: only :mod:`kvd.daemon.stream` waits for one.

Keys and values are ``str`` without surrogates. Keys are ordered by code point, which is the order of their UTF-8 bytes.

Transactions are validated as in H. T. Kung and J. T. Robinson, "On Optimistic Methods for Concurrency Control", ACM
TODS 6(2), 1981: optimistic concurrency control with backward validation, over snapshots; the first to commit wins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Any, Final, Generic, NamedTuple, TypeVar

from kvd.accounts import Budget, memory_of
from kvd.compiler import mypyc_attr

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class CannotOpen(Exception):
    """The store can't be opened. The message tells the user why, and what to do, in one line."""


class TimedOut(Exception):
    """A Deferred did not fire in time. It is thrown into the steps that wait for it."""


class Later(Generic[T_co]):
    """An answer that is not there yet.

    :param steps: a generator that returns the answer. It yields each Deferred that it has to wait for, and is sent what
        that fires with, or thrown what it fails with. It yields None to let other clients have their turn.
    """

    __slots__ = ("steps",)

    def __init__(self, steps: Generator[Any, Any, T_co]) -> None:
        self.steps: Final = steps


def later(deferred: Any) -> Later[Any]:
    """The answer that a Deferred will fire with. If it is cancelled, nobody wants the answer any more."""
    return Later(_wait(deferred))


def _wait(deferred: Any) -> Generator[Any, Any, Any]:
    return (yield deferred)


# What is stored.


class Ending(NamedTuple):
    """A value whose key ends.

    :ivar end: when, in milliseconds since 1970 UTC: from that instant on there is no such key.
    """

    value: str
    end: int


Stored = str | Ending
"""What a key holds: a value, with an end if it has one."""

END_BYTES: Final = 200  # an Ending, and its place in the order of the ends


def text_in(stored: Stored | None) -> str | None:
    """The value alone."""
    return stored if stored is None or isinstance(stored, str) else stored.value


def stored_bytes(stored: Stored | None) -> int:
    """What a value, or None, takes in memory, with its end."""
    # The compiler makes nothing of a test for str, but a call of one for a named tuple.
    return memory_of(stored) if stored is None or isinstance(stored, str) else memory_of(stored.value) + END_BYTES


class ServerClock:
    """The clock by which keys end, in milliseconds since 1970 UTC; it never goes back.

    :param ticks: counts milliseconds, from any beginning.
    :param start: what time it is.
    """

    def __init__(self, ticks: Callable[[], int], start: int) -> None:
        self._ticks: Final = ticks
        self._shift = start - ticks()

    def now(self) -> int:
        """The time."""
        return self._ticks() + self._shift

    def not_before(self, time: int) -> None:
        """Go on from a time, if it is later than now."""
        self._shift += max(0, time - self.now())


# What is read.


class Range(NamedTuple):
    """The keys from ``low`` on, up to but without ``high`` (``None``: no upper end).

    ``descending`` says from which end it was read; a conflict names the key that was met first.
    """

    low: str
    high: str | None
    descending: bool = False

    def holds(self, key: str) -> bool:
        """Whether ``key`` lies in the range."""
        return self.low <= key and (self.high is None or key < self.high)


class Scan(NamedTuple):
    """The pairs of a range, in order, as far as they fit into one page.

    :ivar range: where to look; ``descending`` gives the order.
    :ivar limit: the most pairs of a page, at least 1.
    :ivar keys_only: whether values are left out; they then do not count for ``PAGE_BYTES`` either.
    :ivar without: keys that the store must leave out.
    :ivar ends: whether a value is wanted with its end.
    """

    range: Range
    limit: int
    keys_only: bool = False
    without: Collection[str] = ()
    ends: bool = False


class Ends(NamedTuple):  # what some keys hold, with their ends
    keys: list[str]


class Count(NamedTuple):
    """How many keys a range holds, leaving out those in ``without``."""

    range: Range
    without: Collection[str] = ()


PAGE_BYTES: Final = 1024 * 1024
"""A page ends once its items have come to so many bytes of UTF-8."""


class Page(NamedTuple):
    """The answer to a :class:`Scan`.

    :ivar items: the pairs; with ``keys_only`` the values are empty strings; with ``ends`` they are :data:`Stored`.
    :ivar met: the first key that did not fit, or ``None`` if the page holds all there is.
    """

    items: list[tuple[str, Any]]
    met: str | None


class PageInMaking:
    """A page that is filled pair by pair."""

    def __init__(self, scan: Scan) -> None:
        self.items: list[tuple[str, Any]] = []
        self._limit: Final = scan.limit
        self._keys_only: Final = scan.keys_only
        self._ends: Final = scan.ends
        self._size = 0

    def add(self, key: str, stored: Stored) -> bool:
        """Add a pair, if it still fits, with as much of it as the scan wants.

        :return: whether it did; if not, the page is complete, and this is the first key that did not fit.
        """
        if len(self.items) == self._limit or self._size >= PAGE_BYTES:
            return False
        value = "" if self._keys_only else text_in(stored) or ""
        self.items.append((key, stored if self._ends else value))
        self._size += text_bytes(key) + text_bytes(value)
        return True


def text_bytes(text: str) -> int:
    """The length of a text in bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


Wanted = list[str] | Ends | Scan | Count
"""What a command reads: the values of keys, or these with their ends, a page, or a number of keys."""

Reads = Iterable[str | Range]
"""A read set: keys and ranges, in the order in which they were first read."""

Writes = dict[str, Stored | None]
"""A write set: by key what it is to hold; None removes the key. An end that has passed removes it, right after that."""

Changed = list[tuple[str, int | None]]
"""Keys that others changed, each with the id of the client that did (0: the key has ended; None: unknown)."""


class Receipt(NamedTuple):
    """What a client calls a COMMIT, so that its outcome can be asked for later.

    :ivar user: whose it is: each user's receipts are names of their own.
    """

    user: str | None
    name: str


class Outcome(NamedTuple):
    """What became of a COMMIT with a receipt.

    :ivar committed: whether it has happened; if not, it never will.
    :ivar kept: for how many seconds back receipts are remembered. That it has not happened counts only for a
        transaction that began within that time.
    """

    committed: bool
    kept: float


@mypyc_attr(allow_interpreted_subclasses=True)
class Snapshot(ABC):
    """The state of a store at one instant, for reading, and for one commit on top of it.

    A key that ends is there until its end, and not from that very millisecond on, by the clock of the :class:`Host`.
    Its end is a change like any other, made by client 0: those who have read the key before are in conflict.

    Whoever takes a snapshot closes it, or commits it, which closes it as well.

    Every method may raise, or fail later with, :class:`kvd.errors.Unavailable`: the store can't be reached or can't
    write, and nothing was stored.
    """

    @abstractmethod
    def read(self, keys: list[str]) -> list[str | None] | Later[list[str | None]]:
        """The values of some keys, in the order asked, one for each; a key may be asked for twice.

        :return: ``None`` for each key that is absent.
        """

    @abstractmethod
    def read_with_ends(self, keys: list[str]) -> list[Stored | None] | Later[list[Stored | None]]:
        """The same, each value with its end if it has one."""

    @abstractmethod
    def scan(self, scan: Scan) -> Page | Later[Page]:
        """One page of a range."""

    @abstractmethod
    def count(self, count: Count) -> int | Later[int]:
        """How many keys a range holds."""

    @abstractmethod
    def conflicts(self, reads: Reads, limit: int) -> Changed | Later[Changed]:
        """Which keys of a read set were changed by other commits since this snapshot was taken.

        :param limit: the most keys that are wanted.
        :return: keys in the order in which they were read; empty if a commit would succeed now.
        """

    @abstractmethod
    def commit(self, reads: Reads, writes: Writes, by: int, receipt: Receipt | None = None) -> Later[None] | None:
        """Make all writes visible at once, or none of them, and close the snapshot.

        :param reads: what must not have been changed by others since the snapshot was taken.
        :param writes: may be empty if there is a receipt.
        :param by: the id of the client, for other clients' conflicts.
        :param receipt: is used from then on, together with the writes.
        :raise kvd.errors.Conflict: something in ``reads`` was changed; nothing was stored.
        :raise kvd.errors.ReceiptUsed: the receipt is another COMMIT's, or was settled; nothing was stored.
        :raise kvd.errors.OutOfMemory: there is no room for the writes; nothing was stored.
        :raise kvd.errors.OutcomeUnknown: it can't be known whether the writes were stored.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the snapshot up. A second call does nothing."""


class Host(NamedTuple):
    """What the daemon offers to its store.

    :ivar reactor: Twisted's reactor, or a Clock.
    :ivar seconds: tells the time; it never goes back.
    :ivar budget: the account of the server's memory; what a store keeps in memory is held there.
    :ivar soon: has a function called in the event loop's next turn.
    :ivar from_thread: the same, and may be called in any thread.
    :ivar tell: logs a line for people.
    :ivar sync: seconds for which a commit may wait for the disk; 0: it is answered when it is there.
    :ivar receipt_times: for how many seconds receipts are remembered, and for how many at least, because a
        transaction may live that long.
    :ivar synced: to be called each time :attr:`Store.durable` has grown.
    :ivar failed: to be called, with a reason for people, when what was applied can't be made durable. The daemon then
        tells nobody of what was not durable, and ends.
    :ivar background: takes an iterator to its end, a step at a time, between the turns of clients: for work that
        nobody waits for.
    :ivar clock: the time by which keys end. A store on disk sees to it that this never goes back over a restart.
    """

    reactor: Any
    seconds: Callable[[], float]
    soon: Callable[[Callable[[], None]], object]
    from_thread: Callable[[Callable[[], None]], object]
    tell: Callable[[str], None]
    sync: float
    budget: Budget
    receipt_times: tuple[float, float]
    synced: Callable[[], None]
    failed: Callable[[str], None]
    background: Callable[[Iterator[None]], None]
    clock: ServerClock


@mypyc_attr(allow_interpreted_subclasses=True)
class Store(ABC):
    """Where the data is.

    The promise is strict serializability: commits have an order, which agrees with real time, and every transaction
    that commits has read what the commits before its own left behind.

    A store may **apply** a commit, and answer it, before it is **durable**. It then numbers its commits, raises
    ``seen`` to the number of the newest one that an answer rests on, and calls ``synced`` when more of them are
    durable. Until ``durable`` has reached what a client has seen, the daemon holds the replies to that client. A commit
    rests on itself; so does every value, absence, count, conflict and false CAS on the commits that made it so. A store
    whose answers are durable, or that never is, leaves both at 0.

    :cvar name: what ``--store`` calls it.
    :cvar promise: what happens to the data when the server ends, as the start-up log and INFO tell it.
    :ivar seen: the number of the newest commit, not yet durable, that answers rest on; whoever asks resets it to 0.
    :ivar durable: the number of the newest commit that is durable, with all before it.
    """

    name: str
    promise: str

    seen: int = 0
    durable: int = 0

    @abstractmethod
    def start(self, host: Host) -> Later[None] | None:
        """Open files, or begin to connect. Called once, after twistd has forked.

        :raise CannotOpen: there is no way to serve what is there.
        """

    @abstractmethod
    def stop(self) -> Later[None] | None:
        """Close them, with every accepted commit finished and durable. Called once, when no session is left."""

    @abstractmethod
    def snapshot(self, ended: Callable[[str], None]) -> Snapshot | Later[Snapshot]:
        """The state as it is now: every commit that was answered before is in it.

        :param ended: is called, with a reason for people, if the store gives the snapshot up before its owner
            does, because it pins too much memory. It must not be used any more then.
        """

    @abstractmethod
    def latest(self) -> Snapshot:
        """A snapshot for one plain command, whose instant is that of its first read.

        A store that reads and commits at once returns one and the same object each time: between a read and the
        commit after it nothing else can run, so there is nothing to remember and nothing to validate. Other
        stores return a new one, and validate its commit; the command is repeated after a Conflict.
        """

    @abstractmethod
    def admit(self, writes: Writes) -> None:
        """Refuse writes for which there is no room, when a transaction makes them and not only when it commits.

        It is asked only while memory may be short.

        :raise kvd.errors.OutOfMemory: the data would grow, and must not.
        """

    @abstractmethod
    def outcome(self, receipt: Receipt) -> Outcome | Later[Outcome]:
        """What became of the COMMIT with a receipt; it is waited for if it is under way.

        If there was none, the receipt is settled: no COMMIT with it can succeed any more. Settling is durable like a
        commit.

        :raise kvd.errors.OutOfMemory: it can't be remembered.
        """

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Figures for INFO, by name; JSON values. Must answer at once."""


StoreFactory = Callable[[str], Store]
"""Makes a store from what follows ``NAME:`` in ``--store NAME:…``. Opens nothing yet."""
