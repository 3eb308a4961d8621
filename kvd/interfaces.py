"""What a store must do, with units, errors and promises.

A store may answer at once, by returning the answer, or later, by returning a :class:`Later` in its
place (or :class:`Pieces`, which is one); it may do either from call to call. The parts of kvd between the
protocol and the store know nothing of Deferreds: only :mod:`kvd.daemon.stream` waits for one.

Keys and values are ``str`` without surrogates. Keys are ordered by code point, which is the order
of their UTF-8 bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from kvd.compiler import mypyc_attr
from kvd.core.limits import Budget

T_co = TypeVar("T_co", covariant=True)


class Later(Generic[T_co]):
    """An answer that a store does not have yet.

    :param deferred: a Deferred that fires with the answer, or with what the call would have raised.
        If it is cancelled the answer is not wanted any more; whether a commit happened is then open.
    """

    __slots__ = ("deferred",)

    def __init__(self, deferred: Any) -> None:
        self.deferred: Final = deferred


class Pieces(Later[T_co]):
    """An answer that takes long to work out, and is worked out in pieces between other clients' turns.

    :param steps: a generator that yields None at each pause, and returns the answer.
    """

    __slots__ = ("steps",)

    def __init__(self, steps: Generator[None, None, T_co]) -> None:
        super().__init__(None)
        self.steps: Final = steps


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
    """

    range: Range
    limit: int
    keys_only: bool = False
    without: Collection[str] = ()


class Count(NamedTuple):
    """How many keys a range holds, leaving out those in ``without``."""

    range: Range
    without: Collection[str] = ()


PAGE_BYTES: Final = 1024 * 1024
"""A page ends once its items have come to so many bytes of UTF-8."""


class Page(NamedTuple):
    """The answer to a :class:`Scan`.

    :ivar items: the pairs; with ``keys_only`` the values are empty strings.
    :ivar met: the first key that did not fit, or ``None`` if the page holds all there is.
    """

    items: list[tuple[str, str]]
    met: str | None


Wanted = list[str] | Scan | Count
"""What a command reads: keys, a page, or a number of keys."""

Reads = Iterable[str | Range]
"""What a transaction has read: keys and ranges, in the order in which it first read them."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Snapshot(ABC):
    """The state of a store at one instant, for reading, and for one commit on top of it.

    Whoever takes a snapshot closes it, or commits it, which closes it as well.

    Every method may raise, or fail later with, :class:`kvd.errors.Unavailable`: the store can't be
    reached or can't write, and surely nothing was stored.
    """

    @abstractmethod
    def read(self, keys: list[str]) -> list[str | None] | Later[list[str | None]]:
        """The values of some keys; ``None`` for each that is absent."""

    @abstractmethod
    def scan(self, scan: Scan) -> Page | Later[Page]:
        """One page of a range."""

    @abstractmethod
    def count(self, count: Count) -> int | Later[int]:
        """How many keys a range holds."""

    @abstractmethod
    def conflicts(self, reads: Reads, limit: int) -> list[tuple[str, int | None]] | Later[list[tuple[str, int | None]]]:
        """What of that was changed by other commits since this snapshot was taken.

        :param limit: the most keys that are wanted.
        :return: keys, in the order in which they were read, each with the id of the client that changed
            it (``None`` if unknown); empty if a commit would succeed now.
        """

    @abstractmethod
    def commit(self, reads: Reads, writes: dict[str, str | None], by: int) -> Later[None] | None:
        """Make all writes visible at once, or none of them, and close the snapshot.

        :param reads: what must not have been changed by others since the snapshot was taken.
        :param writes: new values by key; ``None`` removes the key. Not empty.
        :param by: the id of the client, for other clients' conflicts.
        :raise kvd.errors.Conflict: something in ``reads`` was changed; nothing was stored.
        :raise kvd.errors.OutOfMemory: there is no room for the writes; nothing was stored.
        :raise kvd.errors.OutcomeUnknown: it can't be known whether the writes were stored.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the snapshot up. A second call does nothing."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Store(ABC):
    """Where the data is.

    The promise is strict serializability: commits have an order, which agrees with real time, and
    every transaction that commits has read what the commits before its own left behind.

    :cvar name: what ``--store`` calls it.
    :cvar promise: what happens to the data when the server ends, as the start-up log and INFO tell it.
    """

    name: str
    promise: str

    @abstractmethod
    def start(self, budget: Budget) -> None:
        """Open files, or begin to connect. Called once, after twistd has forked.

        :param budget: the account of the server's memory; a store that keeps data in memory holds it there.
        """

    @abstractmethod
    def stop(self) -> Later[None] | None:
        """Close them, with every accepted commit finished. Called once, when no session is left."""

    @abstractmethod
    def snapshot(self, ended: Callable[[str], None]) -> Snapshot | Later[Snapshot]:
        """The state as it is now: every commit that was answered before is in it.

        :param ended: is called, with a reason for people, if the store has to give the snapshot up before its
            owner does, because it pins too much memory. It must not be used any more then.
        """

    @abstractmethod
    def latest(self) -> Snapshot:
        """A snapshot for one plain command, whose instant is that of its first read.

        A store that answers at once returns one and the same object each time: between a read and
        the commit behind it nothing else can run, so there is nothing to remember and nothing to check.
        Other stores return a new one, and their commit may raise Conflict; the command is then repeated.
        """

    @abstractmethod
    def growth(self, writes: dict[str, str | None]) -> int:
        """By how many bytes of memory these writes would make the data grow; 0 or less if they would not."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """Figures for INFO; must answer at once."""


StoreFactory = Callable[[str], Store]
"""Makes a store from what stands behind ``NAME:`` in ``--store NAME:…``. Opens nothing yet."""
