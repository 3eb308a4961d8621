"""What a command is: a row of the command table. :mod:`kvd.core.handlers` has a class for each.

A data command is pure: it names what it reads (keys, a page, a number of keys), and works out its result and its writes
from its arguments and what was there. A session command does what it does to its session.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, NamedTuple

from kvd.core.session import Session
from kvd.interfaces import Wanted, Writes
from kvd.wire import Word


class Shape:
    """What a result looks like, so that each protocol can print it.

    :param says: the same for people.
    """

    __slots__ = ("says",)

    def __init__(self, says: str) -> None:
        self.says: Final = says


NOTHING: Final = Shape("nothing")
TEXT: Final = Shape("a string, or null")
TEXTS: Final = Shape("a list of strings and nulls")
FLAG: Final = Shape("true or false")
NUMBER: Final = Shape("a number")
NUMBER_OR_NULL: Final = Shape("a number, or null")
PAGE: Final = Shape("an object with items and next")
OBJECT: Final = Shape("an object")
OUTCOME: Final = Shape('"committed" or "never", with kept beside it')
HELP: Final = Shape("an object, or a string")


class Listing(NamedTuple):
    """The result of SCAN.

    :ivar items: pairs, or keys alone, or keys with values and ends.
    :ivar next: where the following page begins (with REVERSE: ends), or None.
    """

    items: list[Any]
    next: str | None


class Command(ABC):
    """A command.

    :param usage: its name and its arguments, as HELP shows them.
    :param help: what it does, in a line.
    :param shape: what its result looks like.
    :param name: what it is called, if that is not the first word of its usage.
    :param needs_transaction: it has no meaning outside one.
    :param writes: READONLY refuses it.
    :param when_aborted: it works in an aborted transaction.
    :param when_expired: it works in a transaction that the server ended.
    :ivar number: its place in the table.
    :ivar is_data: whether it reads and writes data. (All commands have one class, so that calls go straight to it.)
    :ivar is_timed: whether what it does depends on the time: then it has :meth:`apply_at` for :meth:`apply`.
    """

    is_data: bool = False
    is_timed: bool = False

    def __init__(
        self,
        usage: str,
        help: str,
        shape: Shape = NOTHING,
        *,
        name: str = "",
        needs_transaction: bool = False,
        writes: bool = False,
        when_aborted: bool = False,
        when_expired: bool = False,
    ) -> None:
        self.number = 0
        self.name: Final = name or usage.split(" ")[0]
        self.usage: Final = usage
        self.help: Final = help
        self.shape: Final = shape
        self.needs_transaction: Final = needs_transaction
        self.writes: Final = writes
        self.when_aborted: Final = when_aborted
        self.when_expired: Final = when_expired

    @abstractmethod
    def check(self, words: list[Word]) -> Any:
        """Parse the words after the name into the command's arguments; see :mod:`kvd.core.arguments`.

        :raise kvd.errors.BadArguments: they are too few, too many, or of the wrong kind.
        :raise kvd.errors.TooLarge: one is over its limit.
        """

    # A data command has the first, and one of the others.

    def reads(self, args: Any) -> Wanted | None:
        """What it reads; None: nothing."""
        return None

    @abstractmethod
    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        """The result, and what to write.

        :param answer: the store's answer to what it reads.
        """

    def apply_at(self, args: Any, answer: Any, now: int) -> tuple[Any, Writes | None]:
        """The same at a time, in milliseconds since 1970 UTC."""
        raise TypeError("this command does not depend on the time")

    # A session command has this one.

    @abstractmethod
    def run(self, session: Session, args: Any) -> Any:
        """Do what it does to its session.

        :return: the result, or a :class:`~kvd.interfaces.Later` for it.
        """


class DataCommand(Command):
    """A command that reads and writes data."""

    is_data = True

    def run(self, session: Session, args: Any) -> Any:
        raise TypeError("kvd.core.execution runs data commands")


class TimedCommand(DataCommand):
    """A data command that depends on the time."""

    is_timed = True

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        raise TypeError("this command depends on the time")


class SessionCommand(Command):
    """A command that does something to its session, or tells about the server."""

    def apply(self, args: Any, answer: Any) -> tuple[Any, Writes | None]:
        raise TypeError("a session command reads and writes no data")
