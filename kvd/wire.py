"""The line protocol, pure: a line -> a request; a reply -> a line. No transport, no state.

A request is one line, in one of two forms::

    PUT key any text, to the end of the line
    ["PUT", "any key", "any\\nvalue"]

A reply is one line of ASCII JSON that ends in ``\\n``, as ``docs/protocol.md`` describes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from math import floor
from typing import Any, Final, NoReturn

from kvd.errors import BY_CODE, BadRequest, KvdError, SpeaksHttp, TooLarge

Word = str | int | None
"""One argument of a request; only the JSON form has numbers and nulls."""

MAX_LINE: Final = 6 * 1024 * 1024 + 8 * 1024
"""Bytes of a request: what the largest value can need in the JSON form."""

MAX_REPLY: Final = 16 * 1024 * 1024
"""Bytes of a reply."""

MAX_WORDS: Final = 10_000
"""Arguments of a request: this many are answered in a few milliseconds."""

_LONG: Final = 64 * 1024

quote: Final[Callable[[str], str]] = encode_basestring_ascii


# Not with a tuple of both, which compiled code would build at each call.


def begins_as_http(line: str) -> bool:
    return line.startswith("POST ") or line.startswith("Host:")


def ends_as_http(line: str) -> bool:
    return line.endswith(" HTTP/1.1") or line.endswith(" HTTP/1.0")


def speaks_http() -> SpeaksHttp:
    """The error for a line that a browser sent, or a web page through it."""
    return SpeaksHttp("this is not an HTTP server; it speaks the kvd line protocol, and closes this connection")


def parse(line: str) -> tuple[str, list[Word]]:
    """Take a request apart.

    :param line: one line without its end.
    :return: the command's name in capitals, which is empty for a blank line, and its arguments.
    :raise SpeaksHttp: if the line is part of a request to a web server.
    :raise BadRequest: if the line begins with ``[`` but is not a JSON array of words.
    :raise TooLarge: if there are more than ``MAX_WORDS`` arguments.
    """
    if ends_as_http(line):
        raise speaks_http()
    parts = line.split(" ", 2)
    name = parts[0]
    # Nearly all requests have one of these two forms. (A constant has its hash already.)
    if len(parts) == 3 and name == "PUT" and parts[1]:
        return "PUT", [parts[1], parts[2]]
    if len(parts) == 2 and name == "GET" and parts[1]:
        return "GET", [parts[1]]
    if begins_as_http(line):
        raise speaks_http()
    line = line.lstrip(" ")
    if line[:1] == "[":
        return _parse_json(line)
    name, space, rest = line.partition(" ")
    name = _capitals(name)
    if name == "PUT":  # the value is everything after the one space that follows the key
        key, space, value = rest.lstrip(" ").partition(" ")
        if space:
            return name, [key, value]
        return name, [key] if key else []
    if name == "PING":
        return name, [rest] if space else []
    if len(rest) > _LONG:
        rest = " ".join(_first_words(rest))
    words: list[Word] = []
    words += rest.split(" ")
    if "" in words:
        words = [word for word in words if word]
    if len(words) > MAX_WORDS:
        raise too_many_words()
    return name, words


def _first_words(text: str) -> list[str]:
    """The words of a long text, up to one too many: there could be millions of them, or of the spaces between."""
    words: list[str] = []
    place = 0
    while len(words) <= MAX_WORDS:
        spaces = _spaces(text, place)
        word = _word(text, place if spaces is None else spaces.end())
        if word is None:
            break
        words.append(word[0])
        place = word.end()
    return words


def too_many_words() -> TooLarge:
    """The error for a request with too many arguments."""
    return TooLarge(f"the request has more than {MAX_WORDS} arguments; send several requests")


_spaces: Final = re.compile(" +").match
_word: Final = re.compile("[^ ]+").match


def _capitals(name: str) -> str:
    # Outside ASCII, other letters have A to Z for their capitals ("ſ" has "S").
    return name.upper() if len(name) < 64 and name.isascii() else name


_BIGGEST_DIGITS: Final = 20


def _integer(digits: str) -> int:
    # Python refuses to convert very long numbers; any number over 64 bits is as wrong as this one.
    return int(digits) if len(digits) <= _BIGGEST_DIGITS else 10**_BIGGEST_DIGITS


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


_decode: Final = json.JSONDecoder(parse_int=_integer, parse_constant=_no_constant).raw_decode
_blank: Final = re.compile(r"[ \t\r]*").match


def _after_blanks(line: str, place: int) -> int:
    found = _blank(line, place)
    return found.end() if found is not None else place


def _parse_json(line: str) -> tuple[str, list[Word]]:
    """Take a JSON array apart, element by element: a line could hold a million of them, or be nested that deep."""
    words: list[Word] = []
    place = _after_blanks(line, line.index("[") + 1)
    if line[place : place + 1] == "]":
        raise BadRequest('the array is empty; put the command\'s name first, as in ["GET", "key"]')
    while True:
        word, place = _element(line, place, len(words))
        words.append(word)
        if len(words) > MAX_WORDS + 1:
            raise too_many_words()
        place = _after_blanks(line, place)
        separator = line[place : place + 1]
        place = _after_blanks(line, place + 1)
        if separator == "]" and place == len(line):
            break
        if separator != ",":
            raise BadRequest(f"the line begins with [ but is not a JSON array: see character {place}")
    name = words.pop(0)
    if not isinstance(name, str):
        raise BadRequest('the array must begin with the command\'s name, as in ["GET", "key"]')
    return _capitals(name), words


def _element(line: str, place: int, number: int) -> tuple[Word, int]:
    if line[place : place + 1] in ("[", "{"):
        raise BadRequest(f"element {number} of the array is nested; elements are strings")
    try:
        word, end = _decode(line, place)
    except ValueError as error:
        raise BadRequest(f"the line begins with [ but is not a JSON array: {error}") from None
    if isinstance(word, str):
        if not word.isascii() and _has_surrogate(word):
            raise BadRequest(f"element {number} of the array holds half of a surrogate pair, which is not text")
    elif word is not None and type(word) is not int:
        raise BadRequest(
            f"element {number} of the array is {json.dumps(word)}; "
            "elements are strings (or whole numbers, or null for CAS)"
        )
    return word, end


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


OK: Final = '{"status": "Ok"}\n'


def text_result(value: str | None) -> str:
    """The reply whose result is a string, or null."""
    if value is None:
        return '{"status": "Ok", "result": null}\n'
    return f'{{"status": "Ok", "result": {_quoted(value)}}}\n'


def _quoted(text: str) -> str:
    return quote(text) if len(text) < _LONG_TEXT else _quote_long(text)


_LONG_TEXT: Final = 1024
_PIECE: Final = 16 * 1024  # a size that stays in the processor's cache
_PLAIN: Final = bytes([code for code in range(0x20, 0x7F) if code not in b'"\\'])


def _quote_long(text: str) -> str:
    """Like quote, which looks at each character by itself; most long texts have none that must be escaped."""
    return f'"{text}"' if text.isascii() and _is_plain(text) else quote(text)


def _is_plain(text: str) -> bool:
    for start in range(0, len(text), _PIECE):
        if text[start : start + _PIECE].encode("ascii").translate(None, _PLAIN):
            return False
    return True


def result(value: Any) -> str:
    """The reply whose result is any JSON value."""
    return '{"status": "Ok", "result": ' + json.dumps(value) + "}\n"


def outcome_result(committed: bool, kept: float) -> str:
    """The reply to OUTCOME. What is kept is rounded down: more must never be promised."""
    found = "committed" if committed else "never"
    return f'{{"status": "Ok", "result": "{found}", "kept": {json.dumps(floor(kept * 1000) / 1000)}}}\n'


def values_result(values: list[str | None]) -> str:
    """The reply whose result is a list of strings and nulls.

    :raise TooLarge: as soon as the reply is over its limit.
    """
    size = sum([len(value) for value in values if value is not None])
    if size > MAX_REPLY:
        too_large_reply()
    parts = []
    size = 0
    for value in values:
        part = "null" if value is None else _quoted(value)
        size += len(part) + 2
        if size > MAX_REPLY:
            too_large_reply()
        parts += [", ", part]
    parts[:1] = ['{"status": "Ok", "result": [']  # all is joined at once, because each copy of 16 MiB takes long
    parts.append("]}\n")
    return "".join(parts)


def too_large_reply() -> NoReturn:
    raise TooLarge(f"the reply is over {MAX_REPLY} bytes; ask for less at once")


def error(error: KvdError) -> str:
    """The reply that tells a client about an error."""
    return json.dumps({"status": "Error", "mesg": error.mesg, "code": error.code, **error.fields}) + "\n"


def shown(text: str, limit: int = 40) -> str:
    """What a client sent, for use in a message: quoted, and cut if it is long."""
    return f"'{text}'" if len(text) <= limit else f"'{text[:limit]}...'"


# The client's side of the same two lines.


def request(*words: Word) -> bytes:
    """The line for a request, in the JSON form, which can hold any key and any value."""
    return json.dumps(words).encode("ascii") + b"\n"


def error_from(reply: dict[str, Any]) -> KvdError:
    """The error that a reply tells about, as the class for its code."""
    fields = {name: value for name, value in reply.items() if name not in ("status", "mesg", "code")}
    return BY_CODE.get(reply["code"], KvdError)(reply["mesg"], **fields)


def scan_words(
    prefix: str, start: str | None, end: str | None, limit: int | None, reverse: bool, keys_only: bool
) -> list[Word]:
    """The words of a SCAN."""
    words: list[Word] = ["SCAN"]
    for option, value in (("PREFIX", prefix or None), ("FROM", start), ("TO", end), ("LIMIT", limit)):
        if value is not None:
            words += [option, value]
    return words + ["REVERSE"] * reverse + ["KEYS"] * keys_only
