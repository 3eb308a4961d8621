"""What each command does: its arguments, what it reads, its result, and what it writes."""

from __future__ import annotations

from typing import Any

from kvd.core import arguments, execution
from kvd.core.arguments import MAX_INTEGER, MIN_INTEGER, Swap, integer_in
from kvd.core.command import DataCommand, Listing, SessionCommand, TimedCommand
from kvd.core.session import Session
from kvd.errors import NotANumber
from kvd.interfaces import Count, Ending, Ends, Page, Range, Scan, Stored, Wanted, Writes, text_in
from kvd.wire import Word, shown

# Data commands.


class Put(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_value(self.usage, words)

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        key_and_value: list[str] = args
        return None, {key_and_value[0]: key_and_value[1]}


class PutForTime(TimedCommand):
    """PUT with seconds."""

    def check(self, words: list[Word]) -> Any:
        return arguments.key_value_and_seconds(self.usage, words)

    def apply_at(self, args: Any, answer: Any, now: int) -> tuple[Any, Writes | None]:
        key, value, time = args
        return None, {key: Ending(value, now + time)}


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
        return Ends([args[0]])

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        key: str = args[0]
        stored: Stored | None = answer[0]
        value = text_in(stored)
        number = 0 if value is None else integer_in(value)
        if number is None:
            raise NotANumber(f"the value of {shown(key)} is not a 64-bit integer: {shown(value or '')}")
        number += args[1]
        if not MIN_INTEGER <= number <= MAX_INTEGER:
            raise NotANumber(f"the sum {number} for {shown(key)} does not fit in 64 bits; nothing was changed")
        return number, {key: _kept(stored, str(number))}


def _kept(stored: Stored | None, value: str) -> Stored:
    """A new value, with the end of the one that was there."""
    return Ending(value, stored.end) if isinstance(stored, Ending) else value


class Cas(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_two_values(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        swap: Swap = args
        return Ends([swap.key])

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        swap: Swap = args
        stored: Stored | None = answer[0]
        if text_in(stored) != swap.expected:
            return False, None
        return True, {swap.key: None if swap.new is None else _kept(stored, swap.new)}


class Expire(TimedCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_seconds(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        return Ends([args[0]])

    def apply_at(self, args: Any, answer: Any, now: int) -> tuple[Any, Writes | None]:
        return _ends(args[0], answer[0], now + args[1])


def _ends(key: str, stored: Stored | None, end: int) -> tuple[Any, Writes | None]:
    value = text_in(stored)
    if value is None:
        return False, None
    return True, {key: Ending(value, end)}


class ExpireAt(Expire):
    def check(self, words: list[Word]) -> Any:
        return arguments.key_and_time(self.usage, words)

    def apply_at(self, args: Any, answer: Any, now: int) -> tuple[Any, Writes | None]:
        end: int = args[1]
        found, writes = _ends(args[0], answer[0], end)
        return found, {args[0]: None} if found and end <= now else writes


class Persist(OneKey):
    def reads(self, args: Any) -> Wanted | None:
        return Ends([args[0]])

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        stored: Stored | None = answer[0]
        return (True, {args[0]: stored.value}) if isinstance(stored, Ending) else (False, None)


class TimeToLive(TimedCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.one_key(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        return Ends([args[0]])

    def apply_at(self, args: Any, answer: Any, now: int) -> tuple[Any, Writes | None]:
        stored: Stored | None = answer[0]
        if not isinstance(stored, Ending):
            return None, None
        left = max(0, stored.end - now)  # in a transaction it may have ended, and still be there
        return left // 1000 if left % 1000 == 0 else left / 1000, None


class ScanPage(DataCommand):
    def check(self, words: list[Word]) -> Any:
        return arguments.scan_options(self.usage, words)

    def reads(self, args: Any) -> Wanted | None:
        scan: Scan = args
        return scan

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        scan: Scan = args
        page: Page = answer
        items: list[Any] = page.items
        if scan.keys_only:
            items = [key for key, _ in page.items]
        elif scan.ends:
            items = [(key, *(held if isinstance(held, Ending) else (held, None))) for key, held in page.items]
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
