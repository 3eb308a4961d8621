"""What both clients share: requests, what their replies say, and what a request without a reply may have done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kvd import wire
from kvd.errors import (
    Aborted,
    AuthRequired,
    BadArguments,
    Conflict,
    Internal,
    KvdError,
    NoTransaction,
    OutcomeUnknown,
    ReceiptUsed,
    TooLarge,
    TransactionExpired,
    Unavailable,
)

T = TypeVar("T")
Item = TypeVar("Item")

CHANGING = frozenset(
    [
        *("PUT", "DEL", "INCR", "CAS", "CLEAR", "APPEND", "GETDEL", "RENAME", "COPY"),
        *("EXPIRE", "EXPIREAT", "PERSIST", "COMMIT", "OUTCOME"),
    ]
)
"""The commands that are known to change something: they may have done so if the connection ends before their reply."""

READING = frozenset(
    [
        *("GET", "MGET", "EXISTS", "SCAN", "COUNT", "TTL", "CHANGES"),
        *("START", "ROLLBACK", "SAVEPOINT", "ROLLBACK TO", "RELEASE", "CHECK"),
        *("CLIENTS", "TXNS", "PING", "INFO", "HELP", "AUTH", "WHOAMI", "QUIT"),
    ]
)
"""The commands that store nothing. Any other may, such as one that only a later version of the server has."""

LEADING = frozenset(["START", "COMMIT", "ROLLBACK", "QUIT"])
"""The commands that begin or end a transaction. (``ROLLBACK TO`` is another command.)"""

OVER = (Conflict, Aborted, TransactionExpired, ReceiptUsed, NoTransaction, AuthRequired)
"""The errors of a COMMIT or a ROLLBACK after which no transaction is open."""

# Requests.


def name(words: tuple[wire.Word, ...]) -> str:
    """The name of the command that a request asks for, in capitals; empty if there is none."""
    first = words[0] if words else None
    return first.upper() if isinstance(first, str) else ""


def changes(name: str) -> bool:
    """Whether a command may change what is stored. In doubt it may."""
    return name not in READING


def encode(*words: wire.Word) -> bytes:
    """The line for a command, in the JSON form, with its end.

    :raise kvd.errors.BadArguments: a word is neither text, nor a 64-bit integer, nor None; or there is no name.
    :raise kvd.errors.TooLarge: the line is too long.
    """
    if not words or not isinstance(words[0], str):
        raise BadArguments("a request begins with the name of a command, which is a str")
    if len(words) > wire.MAX_WORDS + 1:
        raise wire.too_many_words()
    for word in words:
        if isinstance(word, str):
            text("word", word)
        elif isinstance(word, int) and not isinstance(word, bool):
            integer("number", word)
        elif word is not None:
            raise BadArguments(f"the words of a request are of type str, int or None, not {_type(word)}")
    line = wire.request(*words)
    if len(line) > wire.MAX_LINE:
        raise TooLarge(f"the request is {len(line)} bytes; at most {wire.MAX_LINE} bytes are allowed")
    return line


def text(what: str, value: Any) -> str:
    """An argument that must be text.

    :param what: what it is, for the message.
    :raise kvd.errors.BadArguments: it is of another type, or holds half of a surrogate pair.
    """
    if not isinstance(value, str):
        raise BadArguments(f"the {what} must be a str, not {_type(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"the {what} holds half of a surrogate pair, which is not text, at character {error.start}"
            raise BadArguments(problem) from None
    return value


def integer(what: str, value: Any) -> int:
    """An argument that must be an integer of 64 bits.

    :raise kvd.errors.BadArguments: it is of another type, or larger.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadArguments(f"the {what} must be an int, not {_type(value)}")
    if not -(2**63) <= value < 2**63:
        raise BadArguments(f"the {what} does not fit in 64 bits")
    return value


def seconds(value: Any) -> str:
    """A time in seconds, as the server takes it.

    :raise kvd.errors.BadArguments: it is not a number.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadArguments(f"the seconds must be an int or a float, not {_type(value)}")
    return str(value) if isinstance(value, int) else f"{value:.6f}"  # which the server rounds up to the millisecond


def _type(value: Any) -> str:
    return "None" if value is None else type(value).__name__


# Replies.


class Page(tuple[list[Item], "str | None"], Generic[Item]):
    """What a scan answers: the tuple ``(items, next)``.

    :ivar items: pairs of key and value; keys alone with ``keys_only``.
    :ivar next: what ``start`` (with ``reverse``: ``end``) must be for the page after this one. None: this is the last.
    """

    __slots__ = ()

    def __new__(cls, items: list[Item], next: str | None) -> Page[Item]:
        return super().__new__(cls, (items, next))

    def __getnewargs__(self) -> tuple[list[Item], str | None]:
        return self.items, self.next

    @property
    def items(self) -> list[Item]:
        return self[0]

    @property
    def next(self) -> str | None:
        return self[1]

    def __repr__(self) -> str:
        return f"Page(items={self.items!r}, next={self.next!r})"


def a_text(found: Any) -> str:
    """A result, or a part of one, that must be a string."""
    if not isinstance(found, str):
        raise unfit(found)
    return found


def a_value(found: Any) -> str | None:
    """A result, or a part of one, that must be a string or null."""
    return None if found is None else a_text(found)


def page_of_pairs(found: Any) -> Page[tuple[str, str]]:
    """A result that must be a page with values."""
    items, after = _page(found)
    pairs = []
    for item in items:
        if not isinstance(item, list) or len(item) != 2:
            raise unfit(item)
        pairs.append((a_text(item[0]), a_text(item[1])))
    return Page(pairs, after)


def page_with_ends(found: Any) -> Page[tuple[str, str, int | None]]:
    """A result that must be a page with values, and with the ends of their keys."""
    items, after = _page(found)
    pairs: list[tuple[str, str, int | None]] = []
    for item in items:
        if not isinstance(item, list) or len(item) != 3 or not (item[2] is None or type(item[2]) is int):
            raise unfit(item)
        pairs.append((a_text(item[0]), a_text(item[1]), item[2]))
    return Page(pairs, after)


def page_of_keys(found: Any) -> Page[str]:
    """A result that must be a page without values."""
    items, after = _page(found)
    return Page([a_text(item) for item in items], after)


def _page(found: Any) -> tuple[list[Any], str | None]:
    if not isinstance(found, dict) or not isinstance(found.get("items"), list):
        raise unfit(found)
    return found["items"], a_value(found.get("next"))


def unfit(found: Any) -> Internal:
    """The error for a result that can't be the answer to its request."""
    return Internal(f"this is not a kvd server, or the reply is to another request: its result holds {_type(found)}")


def page(found: Any, keys_only: bool) -> Page[Any]:
    """The page that the result of a SCAN holds.

    :raise kvd.errors.Internal: it is not a page.
    """
    return page_of_keys(found) if keys_only else page_of_pairs(found)


def reply(line: bytes) -> dict[str, Any]:
    """The reply that a line holds.

    :raise kvd.errors.Internal: it is not a reply.
    """
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        if found.get("status") == "Ok":
            return found
        if found.get("status") == "Error" and isinstance(found.get("mesg"), str) and isinstance(found.get("code"), str):
            return found
    raise Internal(f"this is not a reply of a kvd server: {line[:40]!r}")


def result(line: bytes) -> Any:
    """The ``result`` of a reply; None where it has none.

    :raise kvd.errors.KvdError: the reply is an Error; the class is that of its code.
    """
    return result_of(reply(line))


def result_of(reply: dict[str, Any]) -> Any:
    """The ``result`` of a reply; None where it has none.

    :raise kvd.errors.KvdError: the reply is an Error; the class is that of its code.
    """
    if reply["status"] != "Ok":
        raise wire.error_from(reply)
    return reply.get("result")


TURNED_AWAY = frozenset(["BUSY", "IDLE"])
"""The codes of errors that answer no request: the server says why it closes the connection."""


# Requests that get no reply.


def lost(problem: str, changing: bool) -> KvdError:
    """The error of a request whose reply will never come.

    :param problem: what ended the connection.
    :param changing: whether the request may have stored something.
    """
    if changing:
        return OutcomeUnknown(f"{problem}; the change may or may not have been stored")
    return Unavailable(f"{problem}; nothing was stored")


def unasked(data: bytes) -> KvdError:
    """The error for a request that is not run, because the server has said something that answers no request.

    :param data: what it has said: BUSY or IDLE, if it is a kvd server.
    """
    line = data.split(b"\n", 1)[0]
    try:
        said = reply(line)
    except Internal:
        said = {}
    if said.get("status") == "Error":
        error = wire.error_from(said)
        return type(error)(f"{error.mesg}; nothing was run", **error.fields)
    return Unavailable(f"the server said something that was not asked for, {line[:40]!r}; nothing was run")


# Trying again.

RETRY_FOR = 30.0
"""Seconds for which a transaction that met a conflict is tried again."""

CONFLICT_PAUSES = (0.01, 1.0)
"""Seconds: the limit of the pause after the first conflict, which doubles with each further one, and its highest."""


def full_jitter(attempt: int, first: float, most: float, rand: Callable[[], float]) -> float:
    """How long to wait before trying again, in seconds: anything between nothing and a limit that doubles.

    From Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: of the ways to spread
    clients that compete, this one needs the least work and nearly the least time.

    :param attempt: how many tries have failed, from 1 on.
    :param first: the limit after the first of them, and ``most`` the highest.
    """
    return rand() * min(most, first * 2.0 ** min(attempt - 1, 60))
