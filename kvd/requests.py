"""What both clients share: what a reply says, what a request without a reply may have done, when to try again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from kvd import wire
from kvd.errors import BadArguments, Internal, KvdError, OutcomeUnknown, TooLarge, Unavailable

CHANGING = frozenset(["PUT", "DEL", "INCR", "CAS", "COMMIT"])
"""The commands that may have been carried out if the connection ends before their reply."""


# fmt: off
READING = frozenset(
    [
        "GET", "MGET", "EXISTS", "SCAN", "COUNT", "TTL", "CHANGES",
        "START", "ROLLBACK", "SAVEPOINT", "RELEASE", "CHECK",
        "PING", "INFO", "HELP", "CLIENTS", "TXNS", "WHOAMI", "AUTH", "QUIT",
    ]
)
# fmt: on
"""The commands that store nothing, whatever becomes of their reply."""


def may_store(name: str) -> bool:
    """Whether a command may have stored something if its reply never comes. A command that is not known here may."""
    return name not in READING


def name(words: tuple[wire.Word, ...]) -> str:
    """The name of the command that a request asks for; empty if there is none."""
    first = words[0] if words else None
    return first.upper() if isinstance(first, str) else ""


def line(words: tuple[wire.Word, ...]) -> bytes:
    """The line for a request that the server can read, whatever it then answers.

    The server must be able to read it: a START that it can't read leaves an aborted transaction open.

    :raise kvd.errors.BadArguments: a word is neither a string, an integer of 64 bits, nor None; or there is no name.
    :raise kvd.errors.TooLarge: there are too many words, or they are too long.
    """
    if not words or not isinstance(words[0], str):
        raise BadArguments("a request begins with the command's name, a string")
    if len(words) > wire.MAX_WORDS + 1:
        raise wire.too_many_words()
    for place, word in enumerate(words):
        if type(word) is str:
            if not word.isascii():
                _check_text(word, place)
        elif word is not None:
            _check_odd(word, place)
    line = wire.request(*words)
    if len(line) > wire.MAX_LINE:
        raise TooLarge(f"the request is {len(line)} bytes; at most {wire.MAX_LINE} bytes are allowed")
    return line


def _check_text(word: str, place: int) -> None:
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise BadArguments(
            f"{_which(place)} can't be sent: character {error.start} is half of a surrogate pair, which is not text"
        ) from None


def _check_odd(word: object, place: int) -> None:
    """Check a word that is neither None nor a plain string."""
    if isinstance(word, str):
        _check_text(word, place)
    elif not isinstance(word, int) or isinstance(word, bool):
        raise BadArguments(f"{_which(place)} must be a string, an integer or None, not {type(word).__name__}")
    elif not -(2**63) <= word < 2**63:
        raise BadArguments(f"{_which(place)} is an integer that does not fit in 64 bits")


def _which(place: int) -> str:
    return f"argument {place}" if place else "the command's name"


Item = TypeVar("Item")


class _Page(NamedTuple):
    items: list[Any]
    next: str | None


class Page(_Page, Generic[Item]):  # in two steps, because Python 3.10 has no generic NamedTuple
    """What a scan answers.

    :ivar items: pairs of key and value, or with ``keys_only`` keys alone.
    :ivar next: what ``start`` (with ``reverse``: ``end``) must be for the page after this one, or None.
    """

    __slots__ = ()
    items: list[Item]


def page(found: Any, keys_only: bool) -> Page[Any]:
    """The page that the result of a SCAN holds.

    :raise kvd.errors.Internal: it holds none.
    """
    if (
        isinstance(found, dict)
        and isinstance(found.get("items"), list)
        and isinstance(found.get("next", 0), str | None)
    ):
        items, following = found["items"], found["next"]
        if keys_only and all(isinstance(key, str) for key in items):
            return Page(items, following)
        if not keys_only and all(map(_is_pair, items)):
            return Page([(key, value) for key, value in items], following)
    raise Internal(f"this is not a page of a scan: {str(found)[:40]}")


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and isinstance(item[1], str)


def reply(line: bytes) -> dict[str, Any]:
    """The reply that a line holds.

    :raise kvd.errors.Internal: it holds none.
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


def lost(problem: str, changing: bool) -> KvdError:
    """The error of a request whose reply will never come.

    :param problem: what ended the connection.
    :param changing: whether the request may have stored something.
    """
    if changing:
        return OutcomeUnknown(f"{problem}; the change may or may not have been stored")
    return Unavailable(f"{problem}; nothing was stored")


RETRY_FOR = 30.0
"""Seconds for which a transaction that met a conflict is tried again."""

CONFLICT_PAUSES = (0.01, 1.0)
"""Seconds: the limit of the pause behind the first conflict, which doubles with each further one, and its highest."""


def full_jitter(attempt: int, first: float, most: float, rand: Callable[[], float]) -> float:
    """How long to wait before trying again, in seconds: anything between nothing and a limit that doubles.

    From Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: of the ways to spread
    clients that compete, this one needs the least work and nearly the least time.

    :param attempt: how many tries have failed, from 1 on.
    :param first: the limit behind the first of them, and ``most`` the highest.
    """
    return rand() * min(most, first * 2.0 ** min(attempt - 1, 60))
