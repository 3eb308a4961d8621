"""What each command does: its arguments, what it reads, its result, and what it writes."""

from __future__ import annotations

from typing import Any

from kvd.core import arguments, execution
from kvd.core.arguments import MAX_INTEGER, MIN_INTEGER, Swap, integer_in
from kvd.core.command import DataCommand, Listing, SessionCommand
from kvd.core.session import Session
from kvd.errors import NotANumber
from kvd.interfaces import Count, Page, Range, Scan, Wanted, Writes
from kvd.wire import Word, shown

# Data commands.


class Put(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_value(self.usage, words)

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        key_and_value: list[str] = args
        return None, {key_and_value[0]: key_and_value[1]}


class OneKey(DataCommand):
    """A command whose one argument is a key."""

    def check(self, words: list[Word]) -> Any:
        return arguments.one_key(self.usage, words)


class Get(OneKey):
    def reads(self, args: Any) -> Wanted | None:
        keys: list[str] = args
        return keys

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        values: list[str | None] = answer
        return values[0], None


class Delete(OneKey):
    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        return None, {args[0]: None}


class Exists(OneKey):
    def reads(self, args: Any) -> Wanted | None:
        keys: list[str] = args
        return keys

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        return answer[0] is not None, None


class Mget(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.keys(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        keys: list[str] = args
        return keys

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        return answer, None


class Incr(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_delta(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        return [args[0]]

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        key: str = args[0]
        value: str | None = answer[0]
        number = 0 if value is None else integer_in(value)
        if number is None:
            raise NotANumber(f"the value of {shown(key)} is not a 64-bit integer: {shown(value or '')}")
        number += args[1]
        if not MIN_INTEGER <= number <= MAX_INTEGER:
            raise NotANumber(f"the sum {number} for {shown(key)} does not fit in 64 bits; nothing was changed")
        return number, {key: str(number)}


class Cas(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_two_values(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        swap: Swap = args
        return [swap.key]

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        swap: Swap = args
        if answer[0] != swap.expected:
            return False, None
        return True, {swap.key: swap.new}


class ScanPage(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.scan_options(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        scan: Scan = args
        return scan

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        scan: Scan = args
        page: Page = answer
        items: list[Any] = [key for key, _ in page.items] if scan.keys_only else page.items
        following = page.met
        if following is not None and scan.range.descending:
            following = page.items[-1][0]  # TO is not included, so it must be the last one that did fit
        return Listing(items, following), None


class CountKeys(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.count_options(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        within: Range = args
        return Count(within)

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        return answer, None


# Transactions.


class NoArguments(SessionCommand):
    """A command without arguments."""

    def check(self, words: list[Word]) -> Any:
        arguments.no_arguments(self.usage, words)


class OneName(SessionCommand):
    """A command whose argument is the name of a savepoint."""

    def check(self, words: list[Word]) -> Any:
        return arguments.one_name(self.usage, words)


class Start(SessionCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.start_options(self.usage, words)

    def run(self, session: Session, args: Any) -> Any:
        return execution.start(session, args)


class Commit(SessionCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.receipt(self.usage, words)

    def run(self, session: Session, args: Any) -> Any:
        return execution.commit(session, args)


class Outcome(OneName):
    def run(self, session: Session, args: Any) -> Any:
        return execution.outcome(session, args)


class Rollback(NoArguments):
    def run(self, session: Session, args: Any) -> Any:
        session.rollback()


class Savepoint(OneName):
    def run(self, session: Session, args: Any) -> Any:
        session.opened().savepoint(args)


class RollbackTo(SessionCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.to_name(self.usage, words)

    def run(self, session: Session, args: Any) -> Any:
        session.opened().rollback_to(args)


class Release(OneName):
    def run(self, session: Session, args: Any) -> Any:
        session.opened().release(args)


class Check(NoArguments):
    def run(self, session: Session, args: Any) -> Any:
        return execution.check(session)


# All the rest.


class Ping(SessionCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.any_text(self.usage, words)

    def run(self, session: Session, args: Any) -> Any:
        return "PONG" if args is None else args


class Quit(NoArguments):
    def run(self, session: Session, args: Any) -> Any:
        session.close()
        session.closing = True
