"""Pure checks: the words of a request -> arguments that a handler can rely on.

Each check takes the usage of the command, for the message, and the words after its name. It returns
the arguments as the handler wants them, or raises BadArguments or TooLarge.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from kvd.errors import BadArguments, TooLarge
from kvd.interfaces import Range, Scan
from kvd.wire import Word, shown

MAX_KEY: Final = 1024
MAX_VALUE: Final = 1024 * 1024
MAX_NAME: Final = 64  # savepoints and receipts
MAX_PAGE: Final = 10_000
DEFAULT_PAGE: Final = 100
MAX_SECONDS: Final = 315_360_000  # ten years of 365 days
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**63 - 1


def bad_arguments(usage: str, problem: str) -> BadArguments:
    """The error for wrong arguments, with the usage."""
    return BadArguments(f"{problem}; usage: {usage}")


def _wrong_number(usage: str, words: list[Word]) -> BadArguments:
    number = len(words)
    return bad_arguments(usage, f"got {number or 'no'} argument{'s' * (number != 1)}{_about_quotes(words)}")


def _about_quotes(words: list[Word]) -> str:
    """A hint for somebody who has put quotes around several words."""
    for word in words:
        if type(word) is str and word[:1] == '"':
            return ' (quotes do not join words; for a key with a space, write ["GET", "a key"])'
    return ""


def text(usage: str, what: str, word: Word, limit: int) -> str:
    """A string of at most ``limit`` bytes of UTF-8."""
    if type(word) is not str:
        kind = "null" if word is None else "a number"
        raise bad_arguments(usage, f"the {what} must be a string, not {kind}")
    # No character takes more than four bytes; most texts are far too short to be worth counting.
    if len(word) * 4 > limit:
        size = len(word) if word.isascii() else len(word.encode())
        if size > limit:
            raise TooLarge(f"the {what} is {size} bytes; at most {limit} bytes are allowed")
    return word


def a_key(usage: str, word: Word) -> str:
    """A key: 1 to 1,024 bytes."""
    if word == "":
        raise bad_arguments(usage, f"the key is empty; a key has 1 to {MAX_KEY} bytes")
    return text(usage, "key", word, MAX_KEY)


def an_integer(usage: str, what: str, word: Word) -> int:
    """A number, or a decimal string, of signed 64 bits."""
    number = word if type(word) is int else integer_in(word) if type(word) is str else None
    if number is None or not MIN_INTEGER <= number <= MAX_INTEGER:
        seen = shown(word) if type(word) is str else "null" if word is None else str(word)
        raise bad_arguments(usage, f"{what} must be a 64-bit integer, not {seen}")
    return number


def integer_in(word: str) -> int | None:
    """The integer that a text spells, ``-?[0-9]+`` of 64 bits, or None."""
    digits = word[1:] if word[:1] == "-" else word
    if not (digits.isascii() and digits.isdigit()):
        return None
    digits = digits.lstrip("0") or "0"
    if len(digits) > 19:
        return None
    number = -int(digits) if word[:1] == "-" else int(digits)
    return number if MIN_INTEGER <= number <= MAX_INTEGER else None


def no_arguments(usage: str, words: list[Word]) -> None:
    """No arguments."""
    if words:
        raise _wrong_number(usage, words)


def one_key(usage: str, words: list[Word]) -> list[Word]:
    """``key``, as a list of one"""
    if len(words) != 1:
        raise _wrong_number(usage, words)
    a_key(usage, words[0])
    return words


def key_and_value(usage: str, words: list[Word]) -> list[Word]:
    """``key value``, as a list of two"""
    if len(words) != 2:
        if len(words) == 1:
            raise bad_arguments(usage, "the value is missing (for an empty one, end the line with a space)")
        raise _wrong_number(usage, words)
    a_key(usage, words[0])
    text(usage, "value", words[1], MAX_VALUE)
    return words


def key_value_and_seconds(usage: str, words: list[Word]) -> tuple[str, str, int]:
    """``key value seconds``, the time in milliseconds"""
    key, value, time = words
    return a_key(usage, key), text(usage, "value", value, MAX_VALUE), seconds(usage, time)


def key_and_seconds(usage: str, words: list[Word]) -> tuple[str, int]:
    """``key seconds``, the time in milliseconds"""
    if len(words) != 2:
        raise _wrong_number(usage, words)
    return a_key(usage, words[0]), seconds(usage, words[1])


def key_and_time(usage: str, words: list[Word]) -> tuple[str, int]:
    """``key milliseconds``"""
    if len(words) != 2:
        raise _wrong_number(usage, words)
    return a_key(usage, words[0]), an_integer(usage, "the time", words[1])


def seconds(usage: str, word: Word) -> int:
    """A time in seconds, ``[0-9]+`` or ``[0-9]+.[0-9]+``, as milliseconds, rounded up."""
    spelled = str(word) if type(word) is int else word if type(word) is str else ""
    found = _decimal(spelled) if len(spelled) <= MAX_KEY else None
    time = 0
    if found is not None:
        decimals = found[2] or ""
        whole = found[1].lstrip("0")
        if len(whole) <= len(str(MAX_SECONDS)):
            time = int(whole or "0") * 1000 + int(decimals[:3].ljust(3, "0")) + (decimals[3:].strip("0") != "")
    if not 0 < time <= MAX_SECONDS * 1000:
        seen = shown(word) if type(word) is str else "null" if word is None else str(word)
        raise bad_arguments(
            usage, f"the time must be more than 0 and at most {MAX_SECONDS} seconds, such as 60 or 1.5, not {seen}"
        )
    return time


_decimal: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII).fullmatch


def keys(usage: str, words: list[Word]) -> list[str]:
    """``key...``"""
    if not words:
        raise _wrong_number(usage, words)
    return [a_key(usage, word) for word in words]


def key_and_delta(usage: str, words: list[Word]) -> tuple[str, int]:
    """``key [delta]``"""
    if not 1 <= len(words) <= 2:
        raise _wrong_number(usage, words)
    delta = an_integer(usage, "the delta", words[1]) if len(words) == 2 else 1
    return a_key(usage, words[0]), delta


class Swap(NamedTuple):
    """What CAS is to do. For a value, None means absent."""

    key: str
    expected: str | None
    new: str | None


def key_and_two_values(usage: str, words: list[Word]) -> Swap:
    """``key expected new``; null is allowed for both values."""
    if len(words) != 3:
        raise _wrong_number(usage, words)
    expected, new = [
        None if word is None else text(usage, what, word, MAX_VALUE)
        for what, word in (("expected value", words[1]), ("new value", words[2]))
    ]
    return Swap(a_key(usage, words[0]), expected, new)


def one_name(usage: str, words: list[Word]) -> str:
    """``name`` of a savepoint"""
    if len(words) != 1:
        raise _wrong_number(usage, words)
    name = text(usage, "name", words[0], MAX_NAME)
    if not name:
        raise bad_arguments(usage, f"the name is empty; a name has 1 to {MAX_NAME} bytes")
    return name


def receipt(usage: str, words: list[Word]) -> str | None:
    """``[receipt]``"""
    return one_name(usage, words) if words else None


def to_name(usage: str, words: list[Word]) -> str:
    """``TO name``"""
    if not words or not _is_option(words[0], "TO"):
        raise bad_arguments(usage, "ROLLBACK takes nothing, or TO and the name of a savepoint")
    return one_name(usage, words[1:])


def start_options(usage: str, words: list[Word]) -> bool:
    """``[READONLY]``: whether it is there."""
    if not words:
        return False
    if len(words) > 1 or not _is_option(words[0], "READONLY"):
        raise bad_arguments(usage, "START takes nothing, or the word READONLY")
    return True


def any_text(usage: str, words: list[Word]) -> str | None:
    """``[text]``"""
    if not words:
        return None
    if len(words) > 1:
        raise _wrong_number(usage, words)
    word = words[0]
    if type(word) is not str:
        raise bad_arguments(usage, "the text must be a string, not a number or null")
    return word


def topic(usage: str, words: list[Word]) -> str | None:
    """``[word...]``: the words as one, in capitals."""
    given = []
    for word in words:
        if type(word) is not str:
            raise bad_arguments(usage, "a name must be a string, not a number or null")
        given.append(word.upper())
    return " ".join(given) or None


def _is_option(word: Word, option: str) -> bool:
    return type(word) is str and word.isascii() and word.upper() == option


def _options(usage: str, words: list[Word], with_value: tuple[str, ...], flags: tuple[str, ...]) -> dict[str, Any]:
    """Options in any order, each at most once: a word, and its value where it takes one."""
    found: dict[str, Any] = {}
    place = 0
    while place < len(words):
        word = words[place]
        option = word.upper() if type(word) is str and word.isascii() else ""
        if option in found:
            raise bad_arguments(usage, f"{option} is given twice")
        if option in flags:
            found[option] = True
            place += 1
        elif option in with_value:
            if place + 1 == len(words):
                raise bad_arguments(usage, f"{option} needs a value")
            found[option] = words[place + 1]
            place += 2
        else:
            seen = shown(word) if type(word) is str else "null" if word is None else str(word)
            raise bad_arguments(usage, f"{seen} is not an option of this command{_about_quotes(words)}")
    return found


def scan_options(usage: str, words: list[Word]) -> Scan:
    """``[PREFIX p] [FROM key] [TO key] [LIMIT n] [REVERSE] [KEYS or ENDS]``"""
    found = _options(usage, words, ("PREFIX", "FROM", "TO", "LIMIT"), ("REVERSE", "KEYS", "ENDS"))
    if "KEYS" in found and "ENDS" in found:
        raise bad_arguments(usage, "KEYS and ENDS exclude each other")
    limit = an_integer(usage, "LIMIT", found.get("LIMIT", DEFAULT_PAGE))
    if not 1 <= limit <= MAX_PAGE:
        raise bad_arguments(usage, f"LIMIT must be 1 to {MAX_PAGE}, not {limit}")
    low, high = prefix_range(bound(usage, "PREFIX", found))
    low = max(low, bound(usage, "FROM", found))
    if "TO" in found:
        end = bound(usage, "TO", found)
        high = end if high is None else min(high, end)
    return Scan(Range(low, high, "REVERSE" in found), limit, "KEYS" in found, (), "ENDS" in found)


def count_options(usage: str, words: list[Word]) -> Range:
    """``[PREFIX p]``"""
    found = _options(usage, words, ("PREFIX",), ())
    return Range(*prefix_range(bound(usage, "PREFIX", found)))


def bound(usage: str, option: str, found: dict[str, Any]) -> str:
    """The key after an option; empty if the option is not given."""
    return text(usage, f"key after {option}", found.get(option, ""), MAX_KEY)


def prefix_range(prefix: str) -> tuple[str, str | None]:
    """The range of the keys that begin with a prefix."""
    # It ends before the next text of that length: the last character that has a next one, replaced by it.
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return prefix, None
    next_character = ord(stem[-1]) + 1
    if next_character == 0xD800:  # surrogates are no text
        next_character = 0xE000
    return prefix, stem[:-1] + chr(next_character)
