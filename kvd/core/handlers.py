"""What each command does: its arguments, what it reads, its reply, and what it writes."""

from __future__ import annotations

from typing import Any

from kvd import wire
from kvd.core import arguments
from kvd.core.arguments import MAX_INTEGER, MIN_INTEGER, Swap, integer_in
from kvd.core.command import Command, DataCommand, Writes
from kvd.core.session import Reply, Session
from kvd.errors import BadArguments, NotANumber
from kvd.interfaces import Count, Page, Range, Scan, Wanted
from kvd.wire import Word, shown

# Data commands.


class Put(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_value(self.usage, words)

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        key_and_value: list[str] = args
        return wire.OK, {key_and_value[0]: key_and_value[1]}


class OneKey(DataCommand):
    """A command whose one argument is a key."""

    def check(self, words: list[Word]) -> Any:
        return arguments.one_key(self.usage, words)


class Get(OneKey):
    def reads(self, args: Any) -> Wanted | None:
        keys: list[str] = args
        return keys

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        values: list[str | None] = answer
        return wire.text_result(values[0]), None


class Delete(OneKey):
    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        return wire.OK, {args[0]: None}


class Exists(OneKey):
    def reads(self, args: Any) -> Wanted | None:
        keys: list[str] = args
        return keys

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        return wire.result(answer[0] is not None), None


class Mget(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.keys(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        keys: list[str] = args
        return keys

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        return wire.values_result(answer), None


class Incr(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_delta(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        return [args[0]]

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        key: str = args[0]
        value: str | None = answer[0]
        number = 0 if value is None else integer_in(value)
        if number is None:
            raise NotANumber(f"the value of {shown(key)} is no integer of 64 bits: {shown(value or '')}")
        number += args[1]
        if not MIN_INTEGER <= number <= MAX_INTEGER:
            raise NotANumber(f"the sum {number} for {shown(key)} is past 64 bits; nothing was changed")
        return wire.result(number), {key: str(number)}


class Cas(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_two_values(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        swap: Swap = args
        return [swap.key]

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        swap: Swap = args
        if answer[0] != swap.expected:
            return wire.result(False), None
        return wire.result(True), {swap.key: swap.new}


class ScanPage(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.scan_options(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        scan: Scan = args
        return scan

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        scan: Scan = args
        page: Page = answer
        items: list[Any] = [key for key, _ in page.items] if scan.keys_only else page.items
        following = page.met
        if following is not None and scan.range.descending:
            following = page.items[-1][0]  # TO is not included, so it must be the last one that did fit
        return wire.result({"items": items, "next": following}), None


class CountKeys(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.count_options(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        within: Range = args
        return Count(within)

    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        return wire.result(answer), None


# Transactions.


class NoArguments(Command):
    """A command without arguments."""

    def check(self, words: list[Word]) -> Any:
        arguments.no_arguments(self.usage, words)


class OneName(Command):
    """A command whose argument is the name of a savepoint."""

    def check(self, words: list[Word]) -> Any:
        return arguments.one_name(self.usage, words)


class Start(Command):
    def check(self, words: list[Word]) -> Any:
        return arguments.start_options(self.usage, words)

    def run(self, session: Session, args: Any) -> Reply:
        return session.start(args)


class Commit(NoArguments):
    def run(self, session: Session, args: Any) -> Reply:
        return session.commit()


class Rollback(NoArguments):
    def run(self, session: Session, args: Any) -> Reply:
        return session.rollback()


class Savepoint(OneName):
    def run(self, session: Session, args: Any) -> Reply:
        session.opened().savepoint(args)
        return wire.OK


class RollbackTo(Command):
    def check(self, words: list[Word]) -> Any:
        return arguments.to_name(self.usage, words)

    def run(self, session: Session, args: Any) -> Reply:
        session.opened().rollback_to(args)
        return wire.OK


class Release(OneName):
    def run(self, session: Session, args: Any) -> Reply:
        session.opened().release(args)
        return wire.OK


class Check(NoArguments):
    def run(self, session: Session, args: Any) -> Reply:
        return session.check()


# All the rest.


class Ping(Command):
    def check(self, words: list[Word]) -> Any:
        return arguments.any_text(self.usage, words)

    def run(self, session: Session, args: Any) -> Reply:
        reply = wire.text_result("PONG" if args is None else args)
        if len(reply) > wire.MAX_REPLY:
            wire.too_large_reply()
        return reply


class Info(Command):
    def check(self, words: list[Word]) -> Any:
        return arguments.topic(self.usage, words)

    def run(self, session: Session, args: Any) -> Reply:
        section: str | None = args
        sections = session.shared.info()
        if section is None:
            return wire.result(sections)
        if section.lower() not in sections:
            raise BadArguments(f"there is no section {shown(section)}; there are {', '.join(sections)}")
        return wire.result(sections[section.lower()])


class Quit(NoArguments):
    def run(self, session: Session, args: Any) -> Reply:
        session.close()
        session.closing = True
        return wire.OK
