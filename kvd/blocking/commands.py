"""A method for each command, for whatever can run requests: a client, or a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, overload

from kvd import wire
from kvd.blocking import questions
from kvd.blocking.link import Answer
from kvd.blocking.pipeline import Pipeline, put_all
from kvd.blocking.questions import Request
from kvd.errors import Internal
from kvd.requests import Page

T = TypeVar("T")

PAGE = 1000
"""Items that :meth:`Commands.scan_all` asks for at a time."""


class Commands(ABC):
    """The data commands. Each raises the class of :mod:`kvd.errors` that belongs to the server's error code.

    Arguments that can't be sent raise :class:`~kvd.errors.BadArguments` or :class:`~kvd.errors.TooLarge`; then
    nothing has been sent, and the connection and its transaction go on.
    """

    @abstractmethod
    def _run(self, asked: list[Request[Any]]) -> list[Answer]:
        """Send requests, and wait for what comes of each."""

    def _ask(self, request: Request[T]) -> T:
        # From the end of _run on there is no call: an exception can come after each, and nobody would know of a START.
        found: T
        found, error = self._run([request])[0]
        if error is not None:
            raise error
        return found

    def call(self, *words: wire.Word) -> Any:
        """Send a command, and return the ``result`` of its reply; None if it has none.

        :param words: the command's name, then its arguments.
        """
        return self._ask(questions.ask(questions.anything, *words))

    def put(self, key: str, value: str, seconds: float | None = None) -> None:
        """Store a value. It replaces the one that is there.

        :param seconds: after which the key ends; None: it does not.
        """
        self._ask(questions.put(key, value, seconds))

    def get(self, key: str) -> str | None:
        """The value, or None if there is no such key."""
        return self._ask(questions.get(key))

    def delete(self, key: str) -> None:
        """Remove a key. It is not an error if there is none."""
        self._ask(questions.delete(key))

    def mget(self, *keys: str) -> list[str | None]:
        """The values of several keys at one instant, in the order of the keys, with None for each that is absent."""
        return self._ask(questions.mget(keys)) if keys else []

    def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return self._ask(questions.exists(key))

    def incr(self, key: str, delta: int = 1) -> int:
        """Add to an integer (an absent key counts as 0), and return the sum.

        :raise kvd.errors.NotANumber: the value is not an integer, or the sum does not fit in 64 bits.
        """
        return self._ask(questions.incr(key, delta))

    def cas(self, key: str, expected: str | None, new: str | None) -> bool:
        """Store ``new`` if the key holds ``expected``, and return whether it did.

        :param expected: None if the key must be absent.
        :param new: None to remove the key.
        """
        return self._ask(questions.cas(key, expected, new))

    def expire(self, key: str, seconds: float) -> bool:
        """Have a key end that many seconds from now, and return whether there is one."""
        return self._ask(questions.expire(key, seconds))

    def expire_at(self, key: str, milliseconds: int) -> bool:
        """Have a key end at a time in milliseconds since 1970 UTC, and return whether there is one."""
        return self._ask(questions.expire_at(key, milliseconds))

    def persist(self, key: str) -> bool:
        """Have a key not end, and return whether it would have."""
        return self._ask(questions.persist(key))

    def ttl(self, key: str) -> float | None:
        """In how many seconds a key ends; None if it does not, or if there is none."""
        return self._ask(questions.ttl(key))

    @overload
    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: Literal[False] = False,
    ) -> Page[tuple[str, str]]: ...

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
    ) -> Page[str]: ...

    @overload
    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Page[Any]: ...

    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Page[Any]:
        """One page of pairs in the order of their keys, from ``start`` up to but without ``end``.

        A page also ends when its items reach 1 MiB. :meth:`scan_all` reads page after page.

        :param limit: the most items of the page, 1 to 10,000; 100 if not given.
        :param reverse: begin at the other end.
        :param keys_only: leave out the values; the items are keys then, and not pairs.
        """
        return self._ask(questions.scan(prefix, start, end, limit, reverse, keys_only))

    @overload
    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        keys_only: Literal[False] = False,
    ) -> Iterator[tuple[str, str]]: ...

    @overload
    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        *,
        keys_only: Literal[True],
    ) -> Iterator[str]: ...

    @overload
    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Iterator[Any]: ...

    def scan_all(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Iterator[Any]:
        """All pairs in the order of their keys, as :meth:`scan` gives them, however many there are.

        They are fetched page by page, as they are used, so the memory that this takes is bounded. Outside a
        transaction each page shows a later instant than the one before it; inside one all of them show the same.
        """
        questions.scan(prefix, start, end, PAGE, reverse, keys_only)  # raises at once what is wrong with the arguments
        return self._pages(prefix, start, end, reverse, keys_only)

    def _pages(self, prefix: str, start: str | None, end: str | None, reverse: bool, keys_only: bool) -> Iterator[Any]:
        while True:
            page = self.scan(prefix, start, end, PAGE, reverse, keys_only)
            yield from page.items
            if page.next is None:
                return
            if page.next >= end if reverse and end is not None else page.next <= (start or "") and not reverse:
                raise Internal("this is not a kvd server: its pages of a scan lead nowhere")
            if reverse:
                end = page.next
            else:
                start = page.next

    def count(self, prefix: str = "") -> int:
        """How many keys there are that begin with ``prefix``."""
        return self._ask(questions.count(prefix))

    def pipeline(self) -> Pipeline:
        """Requests that are sent together at the end of a ``with`` block, to save the waiting for each reply::

            with client.pipeline() as pipe:
                pipe.put("key1", "value1")
                pipe.get("key2")
            print(pipe.results)

        The requests are not a transaction, but those of a transaction's own pipeline belong to it.
        """
        return Pipeline(self._run)

    def put_many(self, pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> None:
        """Store many pairs, in batches that are sent together.

        Only one batch is in memory at a time, so ``pairs`` may be a generator without end in sight. Outside a
        transaction each pair is stored on its own: if this raises, some of them are stored, and it may be repeated.

        :param pairs: a mapping, or an iterable of pairs of key and value.
        """
        put_all(self._run, pairs)


class Savepoints(Commands):
    """The commands that also need an open transaction."""

    def savepoint(self, name: str) -> None:
        """Set a point to go back to."""
        self._ask(questions.savepoint(name))

    def rollback_to(self, name: str) -> None:
        """Drop what was changed after the savepoint, and go on. It heals a transaction that an error has aborted."""
        self._ask(questions.rollback_to(name))

    def release(self, name: str) -> None:
        """Forget the savepoint, and keep the changes."""
        self._ask(questions.release(name))

    def check(self) -> dict[str, Any]:
        """Whether the transaction would commit now: a dict of ``commits conflicts reads writes age``."""
        return self._ask(questions.check())
