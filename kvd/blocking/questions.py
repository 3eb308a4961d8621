"""What can be asked of a server: requests with their words checked, and what the results must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kvd import requests, wire
from kvd.errors import BadRequest, KvdError, TooLarge
from kvd.requests import Page, a_value, integer, text, unfit

T = TypeVar("T")


class Request(Generic[T]):
    """A request, ready to be sent.

    :param line: its line, with the line's end.
    :param name: the command's name in capitals; ROLLBACK TO is one.
    :param changing: whether it may change what is stored.
    :param shape: makes what the caller gets of the reply's ``result``, or raises Internal if that can't be the answer
        to this request. None: the caller gets the whole reply, an Error too.
    """

    __slots__ = ("changing", "line", "name", "shape")

    def __init__(self, line: bytes, name: str, changing: bool, shape: Callable[[Any], T] | None) -> None:
        self.line = line
        self.name = name
        self.changing = changing
        self.shape = shape


def ask(shape: Callable[[Any], T], *words: wire.Word) -> Request[T]:
    """The request for a command.

    :param words: its name and its arguments.
    :raise kvd.errors.BadArguments: they can't be sent.
    :raise kvd.errors.TooLarge: they are too long for a line.
    """
    line = requests.encode(*words)
    command = _command(str(words[0]), words[1:])
    return Request(line, command, requests.changes(command), shape)


def typed(line: str) -> Request[dict[str, Any]]:
    """The request for a line as it would be typed into telnet; it is answered with the reply as it is.

    :raise kvd.errors.BadRequest: it is blank, or more than one line, and so would not get one reply.
    :raise kvd.errors.BadArguments: it is not text.
    :raise kvd.errors.TooLarge: it is too long.
    """
    data = text("line", line).encode()
    if "\n" in line or not line.removesuffix("\r").strip(" "):
        raise BadRequest("a command is one line, and not a blank one")
    if len(data) > wire.MAX_LINE:
        raise TooLarge(f"the line is {len(data)} bytes; at most {wire.MAX_LINE} bytes are allowed")
    try:
        command = _command(*wire.parse(line.removesuffix("\r")))
    except KvdError:  # the server may be of a later version, and understand it
        return Request(data + b"\n", "", True, None)
    return Request(data + b"\n", command, requests.changes(command), None)


def _command(name: str, words: Any) -> str:
    name = name.upper() if name.isascii() else name
    if name == "ROLLBACK" and words and isinstance(words[0], str) and words[0].upper() == "TO":
        return "ROLLBACK TO"
    return name


def text_or_none(what: str, value: Any) -> str | None:
    """An argument that must be text or None; else it raises as :func:`text` does."""
    return None if value is None else text(what, value)


def anything(found: Any) -> Any:
    """Any result."""
    return found


def nothing(found: Any) -> None:
    """The result of a command that answers Ok and no more."""
    if found is not None:
        raise unfit(found)


def a_number(found: Any) -> int:
    """A result that must be a whole number."""
    if not isinstance(found, int) or isinstance(found, bool):
        raise unfit(found)
    return found


def seconds_or_none(found: Any) -> float | None:
    """A result that must be a number or null."""
    if found is not None and (not isinstance(found, int | float) or isinstance(found, bool)):
        raise unfit(found)
    return found


def a_flag(found: Any) -> bool:
    """A result that must be true or false."""
    if not isinstance(found, bool):
        raise unfit(found)
    return found


def an_object(found: Any) -> dict[str, Any]:
    """A result that must be an object."""
    if not isinstance(found, dict):
        raise unfit(found)
    return found


def values(number: int) -> Callable[[Any], list[str | None]]:
    """A result that must be a list of so many strings and nulls."""

    def shape(found: Any) -> list[str | None]:
        if not isinstance(found, list) or len(found) != number:
            raise unfit(found)
        return [a_value(value) for value in found]

    return shape


# The commands.


def put(key: str, value: str, seconds: float | None = None) -> Request[None]:
    end = [] if seconds is None else [requests.seconds(seconds)]
    return ask(nothing, "PUT", text("key", key), text("value", value), *end)


def get(key: str) -> Request[str | None]:
    return ask(a_value, "GET", text("key", key))


def delete(key: str) -> Request[None]:
    return ask(nothing, "DEL", text("key", key))


def mget(keys: tuple[str, ...]) -> Request[list[str | None]]:
    """Without keys it asks for nothing, and the result is empty all the same."""
    return ask(values(len(keys)), "MGET", *[text("key", key) for key in keys]) if keys else ask(lambda _: [], "PING")


def exists(key: str) -> Request[bool]:
    return ask(a_flag, "EXISTS", text("key", key))


def incr(key: str, delta: int) -> Request[int]:
    return ask(a_number, "INCR", text("key", key), integer("delta", delta))


def cas(key: str, expected: str | None, new: str | None) -> Request[bool]:
    expected, new = text_or_none("expected value", expected), text_or_none("new value", new)
    return ask(a_flag, "CAS", text("key", key), expected, new)


def expire(key: str, seconds: float) -> Request[bool]:
    return ask(a_flag, "EXPIRE", text("key", key), requests.seconds(seconds))


def expire_at(key: str, milliseconds: int) -> Request[bool]:
    return ask(a_flag, "EXPIREAT", text("key", key), integer("time", milliseconds))


def persist(key: str) -> Request[bool]:
    return ask(a_flag, "PERSIST", text("key", key))


def ttl(key: str) -> Request[float | None]:
    return ask(seconds_or_none, "TTL", text("key", key))


def scan(
    prefix: str, start: str | None, end: str | None, limit: int | None, reverse: bool, keys_only: bool
) -> Request[Page[Any]]:
    text("prefix", prefix)
    start, end = text_or_none("start", start), text_or_none("end", end)
    limit = None if limit is None else integer("limit", limit)
    words = wire.scan_words(prefix, start, end, limit, bool(reverse), bool(keys_only))
    return ask(requests.page_of_keys if keys_only else requests.page_of_pairs, *words)


def count(prefix: str) -> Request[int]:
    return ask(a_number, "COUNT", "PREFIX", text("prefix", prefix))


def savepoint(name: str) -> Request[None]:
    return ask(nothing, "SAVEPOINT", text("name", name))


def rollback_to(name: str) -> Request[None]:
    return ask(nothing, "ROLLBACK", "TO", text("name", name))


def release(name: str) -> Request[None]:
    return ask(nothing, "RELEASE", text("name", name))


def check() -> Request[dict[str, Any]]:
    return ask(an_object, "CHECK")


def start(read_only: bool) -> Request[None]:
    return ask(nothing, "START", *["READONLY"] * bool(read_only))


def commit(receipt: str | None) -> Request[None]:
    return ask(nothing, "COMMIT", *([] if receipt is None else [receipt]))


def outcome(receipt: str) -> Request[dict[str, Any]]:
    """It is answered with the whole reply, for :func:`kvd.receipts.outcome`."""
    line = requests.encode("OUTCOME", text("receipt", receipt))
    return Request(line, "OUTCOME", requests.changes("OUTCOME"), None)


def roll_back() -> Request[None]:
    return ask(nothing, "ROLLBACK")


def ping(said: str | None) -> Request[str]:
    """Its result must be the same text, or PONG."""
    expected = "PONG" if said is None else text("text", said)

    def pong(found: Any) -> str:
        if found != expected:
            raise unfit(found)
        return expected

    return ask(pong, "PING", *([] if said is None else [expected]))


def info(section: str | None) -> Request[dict[str, Any]]:
    return ask(an_object, "INFO", *([] if section is None else [text("section", section)]))


def help_about(command: str | None) -> Request[Any]:
    return ask(anything, "HELP", *([] if command is None else text("command", command).split()))


def leave() -> Request[None]:
    return ask(nothing, "QUIT")
