"""What both clients share: what a reply says, and what a request may have done when no reply comes."""

from __future__ import annotations

import json
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
    """The page that the result of a SCAN holds."""
    return Page(found["items"] if keys_only else [tuple(item) for item in found["items"]], found["next"])


def result(line: bytes) -> Any:
    """The ``result`` of a reply; None where it has none.

    :raise kvd.errors.KvdError: the reply is an Error; the class is that of its code.
    """
    try:
        reply: dict[str, Any] = json.loads(line)
        error = None if reply["status"] == "Ok" else wire.error_from(reply)
    except (ValueError, LookupError, TypeError):
        raise Internal(f"this is no reply of a kvd server: {line[:40]!r}") from None
    if error is not None:
        raise error
    return reply.get("result")


def lost(problem: str, changing: bool) -> KvdError:
    """The error of a request whose reply will never come.

    :param problem: what ended the connection.
    :param changing: whether the request may have stored something.
    """
    if changing:
        return OutcomeUnknown(f"{problem}; the change may or may not have been stored")
    return Unavailable(f"{problem}; nothing was stored")
