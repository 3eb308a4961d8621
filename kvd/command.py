"""A row of the command table: what a command is called, how it is checked, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvd.wire import Word

Writes = dict[str, str | None] | None
"""What a data command writes: new values by key, None to remove it; or None for nothing at all."""


def _no_data(args: Any, answer: Any) -> tuple[str, Writes]:
    raise TypeError("this is no data command")


class Command:
    """One row of the command table.

    :param reads: names what a data command reads; None: nothing.
    :param apply: makes the reply and the writes of a data command.
    :param run: does what another command does.
    :param check: makes the arguments out of the words; see :mod:`kvd.arguments`.
    :param needs_transaction: it has no meaning outside one.
    :param writes: READONLY refuses it.
    :param when_doomed: it works in a transaction that met an error.
    :param when_expired: it works in a transaction that the server ended.
    """

    def __init__(
        self,
        usage: str,
        help: str,
        check: Callable[[str, list[Word]], Any],
        *,
        name: str = "",
        reads: Callable[[Any], Any] | None = None,
        apply: Callable[[Any, Any], tuple[str, Writes]] = _no_data,
        run: Callable[[Any, Any], Any] | None = None,
        needs_transaction: bool = False,
        writes: bool = False,
        when_doomed: bool = False,
        when_expired: bool = False,
    ) -> None:
        self.number = 0  # its place in the table
        self.name: Final = name or usage.split(" ")[0]
        self.usage: Final = usage
        self.help: Final = help
        self.check: Final = check
        self.reads: Final = reads
        self.apply: Final = apply
        self.run: Final = run
        self.needs_transaction: Final = needs_transaction
        self.writes: Final = writes
        self.when_doomed: Final = when_doomed
        self.when_expired: Final = when_expired
