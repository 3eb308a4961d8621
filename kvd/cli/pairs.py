"""A pair as a line of JSON: ``["key", "value"]``; with the end of a key that ends, ``["key", "value", 1767225600000]``.

The end is a point of time in whole milliseconds since 1970 UTC, or null.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, NamedTuple

_odd = re.compile("[\x80-\x9f\u2028\u2029]").search
"""What JSON may hold as it is, but some programs take for the end of a line, and terminals for a command."""


class Pair(NamedTuple):
    """A pair.

    :ivar end: when its key ends, in milliseconds since 1970 UTC; None: never.
    """

    key: str
    value: str
    end: int | None


def line(pair: Pair) -> str:
    """The line for a pair, with its end."""
    key, value, end = pair
    return f"[{_quoted(key)}, {_quoted(value)}]\n" if end is None else f"[{_quoted(key)}, {_quoted(value)}, {end}]\n"


def _quoted(text: str) -> str:
    quoted: str = encode_basestring(text) if text.isascii() or not _odd(text) else encode_basestring_ascii(text)
    return quoted


def pair(line: bytes) -> Pair:
    """The pair of a line.

    :raise ValueError: the line is none; the error says why.
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
    key, value, end = found if len(found) == 3 else (*found, None)
    for name, part in (("key", key), ("value", value)):
        if not isinstance(part, str):
            raise ValueError(f"the {name} is not a string")
        if not part.isascii():
            try:
                part.encode()
            except UnicodeEncodeError:
                raise ValueError(f"the {name} holds half of a surrogate pair, which is not text") from None
    if not key:
        raise ValueError("the key is empty")
    if end is not None and type(end) is not int:
        raise ValueError("the end is neither null nor a whole number of milliseconds")
    return Pair(key, value, end)


def counted(number: int) -> str:
    """A number of pairs, in words."""
    return "1 pair" if number == 1 else f"{number:,} pairs"
