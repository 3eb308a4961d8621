"""What each command does.

A data command is two pure functions: one names what it reads (keys, a page, a number of keys), the other makes the
reply and the writes from its arguments and what was there. The other commands are one function of the session.
"""

from __future__ import annotations

from typing import Any

from kvd import wire
from kvd.arguments import MAX_INTEGER, MIN_INTEGER, Swap, integer_in
from kvd.command import Writes
from kvd.errors import BadArguments, NotANumber
from kvd.interfaces import Count, Page, Range, Scan
from kvd.session import Reply, Session
from kvd.wire import shown

# Data commands: what to answer and what to write, from the arguments and what was read.


def the_keys(keys: list[str]) -> list[str]:
    return keys


def first(args: Any) -> list[str]:
    return [args[0]]


def the_page(scan: Scan) -> Scan:
    return scan


def all_of(within: Range) -> Count:
    return Count(within)


def put(args: tuple[str, str], _: None) -> tuple[str, Writes]:
    return wire.OK, {args[0]: args[1]}


def get(keys: list[str], values: list[str | None]) -> tuple[str, Writes]:
    return wire.text_result(values[0]), None


def delete(keys: list[str], _: None) -> tuple[str, Writes]:
    return wire.OK, {keys[0]: None}


def mget(keys: list[str], values: list[str | None]) -> tuple[str, Writes]:
    return wire.values_result(values), None


def exists(keys: list[str], values: list[str | None]) -> tuple[str, Writes]:
    return wire.result(values[0] is not None), None


def incr(args: tuple[str, int], values: list[str | None]) -> tuple[str, Writes]:
    key, delta = args
    value = values[0]
    number = 0 if value is None else integer_in(value)
    if number is None:
        raise NotANumber(f"the value of {shown(key)} is no integer of 64 bits: {shown(value or '')}")
    number += delta
    if not MIN_INTEGER <= number <= MAX_INTEGER:
        raise NotANumber(f"the sum {number} for {shown(key)} is past 64 bits; nothing was changed")
    return wire.result(number), {key: str(number)}


def cas(swap: Swap, values: list[str | None]) -> tuple[str, Writes]:
    if values[0] != swap.expected:
        return wire.result(False), None
    return wire.result(True), {swap.key: swap.new}


def scan(scan: Scan, page: Page) -> tuple[str, Writes]:
    items: list[Any] = [key for key, _ in page.items] if scan.keys_only else page.items
    following = page.met
    if following is not None and scan.range.descending:
        following = page.items[-1][0]  # TO is not included, so it must be the last one that did fit
    return wire.result({"items": items, "next": following}), None


def count(within: Range, number: int) -> tuple[str, Writes]:
    return wire.result(number), None


# The other commands.


def start(session: Session, read_only: bool) -> Reply:
    return session.start(read_only)


def commit(session: Session, _: None) -> Reply:
    return session.commit()


def rollback(session: Session, _: None) -> Reply:
    return session.rollback()


def savepoint(session: Session, name: str) -> Reply:
    session.opened().savepoint(name)
    return wire.OK


def rollback_to(session: Session, name: str) -> Reply:
    session.opened().rollback_to(name)
    return wire.OK


def release(session: Session, name: str) -> Reply:
    session.opened().release(name)
    return wire.OK


def check(session: Session, _: None) -> Reply:
    return session.check()


def ping(session: Session, text: str | None) -> Reply:
    reply = wire.text_result("PONG" if text is None else text)
    if len(reply) > wire.MAX_REPLY:
        wire.too_large_reply()
    return reply


def info(session: Session, section: str | None) -> Reply:
    sections = session.shared.info()
    if section is None:
        return wire.result(sections)
    if section.lower() not in sections:
        raise BadArguments(f"there is no section {shown(section)}; there are {', '.join(sections)}")
    return wire.result(sections[section.lower()])


def quit(session: Session, _: None) -> Reply:
    session.close()
    session.closing = True
    return wire.OK
