"""The commands that a client and a transaction have in common, as methods."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, Literal, TypeVar, overload

from twisted.internet.defer import Deferred, succeed

from kvd import requests, wire
from kvd.client.waiting import wait_for
from kvd.errors import Internal
from kvd.requests import Page

Item = TypeVar("Item")

MOST_PER_PAGE = 1000
"""Items that :meth:`Commands.scan_all` asks for at once."""


class Commands:
    """A method for each data command.

    Each returns a Deferred. It fails with the class of :mod:`kvd.errors` that stands for the server's error code; with
    BadArguments or TooLarge if an argument can't be sent; and if no reply comes, with OutcomeUnknown or Unavailable.
    """

    def call(self, *words: wire.Word) -> Deferred[Any]:
        """Send any command: its name, and its arguments.

        :return: a Deferred of the ``result`` of its reply (None where it has none).
        """
        raise TypeError("a subclass says how")

    def put(self, key: str, value: str, seconds: float | None = None) -> Deferred[None]:
        """Store a value; overwrite what was there.

        :param seconds: after which the key ends; None: it does not.
        """
        return self.call("PUT", key, value, *([] if seconds is None else [requests.seconds(seconds)]))

    def get(self, key: str) -> Deferred[str | None]:
        """The value, or None."""
        return self.call("GET", key)

    def delete(self, key: str) -> Deferred[None]:
        """Remove a key; no error if there is none."""
        return self.call("DEL", key)

    def mget(self, *keys: str) -> Deferred[list[str | None]]:
        """The values of several keys, from one instant; None for each that is absent."""
        if not keys:
            return succeed([])
        return self.call("MGET", *keys)

    def exists(self, key: str) -> Deferred[bool]:
        """Whether there is such a key."""
        return self.call("EXISTS", key)

    def incr(self, key: str, delta: int = 1) -> Deferred[int]:
        """Add to an integer, and return the sum; an absent key counts as 0.

        The Deferred fails with NotANumber if the value is not an integer, or the sum does not fit in 64 bits.
        """
        return self.call("INCR", key, delta)

    def cas(self, key: str, expected: str | None, new: str | None) -> Deferred[bool]:
        """Store ``new`` if the key holds ``expected``, and return whether it did.

        ``expected`` None means that the key is absent, ``new`` None removes it.
        """
        return self.call("CAS", key, expected, new)

    def expire(self, key: str, seconds: float) -> Deferred[bool]:
        """Have a key end that many seconds from now, and return whether there is one."""
        return self.call("EXPIRE", key, requests.seconds(seconds))

    def expire_at(self, key: str, milliseconds: int) -> Deferred[bool]:
        """Have a key end at a time in milliseconds since 1970 UTC, and return whether there is one."""
        return self.call("EXPIREAT", key, milliseconds)

    def persist(self, key: str) -> Deferred[bool]:
        """Have a key not end, and return whether it would have."""
        return self.call("PERSIST", key)

    def ttl(self, key: str) -> Deferred[float | None]:
        """In how many seconds a key ends; None if it does not, or if there is none."""
        return self.call("TTL", key)

    @overload
    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: Literal[False] = False,
    ) -> Deferred[Page[tuple[str, str]]]: ...

    @overload
    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        *,
        keys_only: Literal[True],
    ) -> Deferred[Page[str]]: ...

    @overload
    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Deferred[Page[Any]]: ...

    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Deferred[Page[Any]]:
        """One page of pairs in the order of their keys, from ``start`` up to but without ``end``.

        :param limit: the most items of the page, 1 to 10,000; 100 if not given. A page also ends at 1 MiB.
        :param reverse: from the last key to the first.
        :param keys_only: whether the items are keys, without their values.
        """
        found = self.call(*wire.scan_words(prefix, start, end, limit, bool(reverse), bool(keys_only)))
        return found.addCallback(requests.page, keys_only)

    @overload
    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        keys_only: Literal[False] = False,
    ) -> AsyncIterator[tuple[str, str]]: ...

    @overload
    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        *,
        keys_only: Literal[True],
    ) -> AsyncIterator[str]: ...

    @overload
    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> AsyncIterator[Any]: ...

    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> AsyncIterator[Any]:
        """All pairs, for ``async for key, value in …``; the arguments are those of :meth:`scan`.

        They are asked for page by page. Outside a transaction each page is from its own instant.
        """
        return _Items(self, prefix, start, end, reverse, keys_only)

    def count(self, prefix: str = "") -> Deferred[int]:
        """How many keys there are that begin with ``prefix``."""
        return self.call("COUNT", "PREFIX", prefix)


class _Items(AsyncIterator[Item], Generic[Item]):
    """The items of all pages of a scan.

    Not an async generator: the one that a ``break`` leaves behind must be closed by somebody.
    """

    def __init__(
        self, commands: Commands, prefix: str, start: str | None, end: str | None, reverse: bool, keys_only: bool
    ) -> None:
        self._commands = commands
        self._prefix = prefix
        self._start = start
        self._end = end
        self._reverse = reverse
        self._keys_only = keys_only
        self._items: deque[Item] = deque()
        self._over = False

    async def __anext__(self) -> Item:
        while not self._items:
            if self._over:
                raise StopAsyncIteration
            await self._read_on()
        return self._items.popleft()

    async def _read_on(self) -> None:
        page: Page[Item] = await wait_for(
            self._commands.scan(
                self._prefix, self._start, self._end, MOST_PER_PAGE, self._reverse, keys_only=self._keys_only
            )
        )
        if page.next is None:
            self._over = True
        elif page.next == (self._end if self._reverse else self._start):
            raise Internal("this is not a page of a scan: it ends where it began")
        elif self._reverse:
            self._end = page.next
        else:
            self._start = page.next
        self._items.extend(page.items)
