"""What a command is: a row of the command table. :mod:`kvd.core.handlers` has a class for each.

A data command is pure: it names what it reads (keys, a page, a number of keys), and makes the reply and the writes
from its arguments and what was there. Any other command does what it does to its session.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from kvd.interfaces import Wanted
from kvd.wire import Word

if TYPE_CHECKING:
    from kvd.core.session import Reply, Session

Writes = dict[str, str | None] | None
"""What a data command writes: new values by key, None to remove it; or None for nothing at all."""


class Command(ABC):
    """A command.

    :param name: what it is called, if that is not the first word of its usage.
    :param needs_transaction: it has no meaning outside one.
    :param writes: READONLY refuses it.
    :param when_doomed: it works in a transaction that met an error.
    :param when_expired: it works in a transaction that the server ended.
    """

    def __init__(
        self,
        usage: str,
        help: str,
        *,
        name: str = "",
        needs_transaction: bool = False,
        writes: bool = False,
        when_doomed: bool = False,
        when_expired: bool = False,
    ) -> None:
        self.number = 0  # its place in the table
        self.name: Final = name or usage.split(" ")[0]
        self.usage: Final = usage
        self.help: Final = help
        self.needs_transaction: Final = needs_transaction
        self.writes: Final = writes
        self.when_doomed: Final = when_doomed
        self.when_expired: Final = when_expired

    @abstractmethod
    def check(self, words: list[Word]) -> Any:
        """Make the arguments out of the words behind the name; see :mod:`kvd.core.arguments`."""

    @abstractmethod
    def run(self, session: Session, args: Any) -> Reply:
        """Do it."""


class DataCommand(Command):
    """A command that reads and writes data."""

    def reads(self, args: Any) -> Wanted | None:
        """What it reads; None: nothing."""
        return None

    @abstractmethod
    def apply(self, args: Any, answer: Any) -> tuple[str, Writes]:
        """The reply, and what to write.

        :param answer: what was there of that which it reads.
        """

    def run(self, session: Session, args: Any) -> Reply:
        """Run it in the session's open transaction, or as one of its own."""
        return session.execute(self, args)
