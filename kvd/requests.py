"""What both clients share: what a reply says, what a request without a reply may have done, when to try again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from kvd import wire
from kvd.errors import Internal, KvdError, OutcomeUnknown, Unavailable

CHANGING = frozenset(["PUT", "DEL", "INCR", "CAS", "COMMIT"])
"""The commands that may have been carried out if the connection ends before their reply."""


def name(words: tuple[wire.Word, ...]) -> str:
    """The name of the command that a request asks for."""
    return str(words[0]).upper() if words else ""


class Page(NamedTuple):
    """What a scan answers.

    :ivar items: pairs of key and value, or with ``keys_only`` keys alone.
    :ivar next: what ``start`` (with ``reverse``: ``end``) must be for the page behind this one, or None.
    """

    items: list[Any]
    next: str | None


def page(found: dict[str, Any], keys_only: bool) -> Page:
    """The page that the result of a SCAN holds.

    :raise kvd.errors.Internal: it holds none.
    """
    try:
        items = list(found["items"])
        return Page(items if keys_only else [tuple(item) for item in items], found["next"])
    except (LookupError, TypeError):
        raise Internal(f"this is no page of a scan: {str(found)[:40]}") from None


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
    raise Internal(f"this is no reply of a kvd server: {line[:40]!r}")


def result(line: bytes) -> Any:
    """The ``result`` of a reply; None where it has none.

    :raise kvd.errors.KvdError: the reply is an Error; the class is that of its code.
    """
    found = reply(line)
    if found["status"] != "Ok":
        raise wire.error_from(found)
    return found.get("result")


TURNED_AWAY = frozenset(["BUSY", "IDLE"])
"""The codes of errors that answer no request: the server says why it closes the connection."""


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
