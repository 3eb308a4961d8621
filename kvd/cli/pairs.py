"""A pair as a line of JSON: ``["key", "value"]``; with the end of a key that ends, ``["key", "value", 1767225600000]``.

The end is a point of time in whole milliseconds since 1970 UTC, or null.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, NamedTuple

from kvd.requests import integer, text

_odd = re.compile("[\x7f-\x9f\u2028\u2029]").search
"""What JSON may hold as it is, but some programs take for the end of a line, and terminals for a command."""


class Pair(NamedTuple):
    """A pair.

    :ivar end: when its key ends, in milliseconds since 1970 UTC; None: never.
    """

    key: str
    value: str
    end: int | None


def line(key: str, value: str) -> str:
    """The line for a pair, with its end."""
    return f"[{_quoted(key)}, {_quoted(value)}]\n"


def _quoted(text: str) -> str:
    quoted: str = encode_basestring(text) if text.isascii() or not _odd(text) else encode_basestring_ascii(text)
    return quoted


def pair(line: bytes) -> Pair:
    """The pair of a line.

    :raise kvd.errors.BadArguments: a part of it is of the wrong type, or not text.
    :raise ValueError: the line is anything else than a pair; it says what.
    """
    try:
        found: Any = json.loads(line.decode())
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg}, at character {error.pos + 1}") from None
    except (ValueError, RecursionError):  # a number with thousands of digits, or thousands of brackets
        raise ValueError("it is not JSON that can be read") from None
    if not isinstance(found, list) or not 2 <= len(found) <= 3:
        raise ValueError("it is not a list of a key and a value")
    key, value = text("key", found[0]), text("value", found[1])
    if not key:
        raise ValueError("the key is empty")
    return Pair(key, value, None if len(found) == 2 or found[2] is None else integer("end", found[2]))
