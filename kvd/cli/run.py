"""``kvd run``: send commands and print the replies."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from twisted.python import usage

from kvd.cli import program
from kvd.cli.connecting import find, is_blank
from kvd.cli.helper import Helper
from kvd.cli.program import CONNECT, TIMEOUT, Problem, Program, reason, say

UTF8_MARK = "\ufeff"
"""What some programs put at the start of a file in UTF-8."""


class Options(program.Options):
    """The options of ``kvd run``."""

    synopsis = "['COMMAND' ...]"
    longdesc = (
        "Sends each command as if you typed it into telnet, and prints the reply. Without commands, reads them from "
        "standard input, one per line. All of them share one connection. The exit status is 1 if a reply was an "
        "Error, 2 if there was no reply, and 130 after Ctrl-C."
    )
    optParameters: ClassVar = [CONNECT, TIMEOUT]

    def parseArgs(self, *commands: str) -> None:
        """Take the commands, which come after the options."""
        for command in commands:
            if is_blank(command) or "\n" in command:
                raise usage.UsageError(f"a command is one line with at least one word, not {command!r}")
            if command.startswith("-"):
                raise usage.UsageError(f"{command!r} is not a command; options come before the commands")
            try:
                command.encode()
            except UnicodeEncodeError:
                raise usage.UsageError(f"a command is text in UTF-8, not {os.fsencode(command)!r}") from None
        self["commands"] = commands


async def _lines(reactor: Any, commands: Sequence[str]) -> AsyncIterator[str]:
    """The commands; of standard input, if there are none on the command line."""
    for command in commands:
        yield command
    if commands or sys.stdin is None:
        return
    helper = Helper(reactor)
    mark = UTF8_MARK
    # A file of its own: Python waits for sys.stdin when the process ends, and closing would wait for the thread.
    read = io.BufferedReader(io.FileIO(0, closefd=False)).readline

    def next_line() -> bytes:
        try:
            return read()
        except OSError as error:
            raise Problem(f"can't read standard input: {reason(error)}") from None

    while line := await helper.do(next_line):
        text = line.removesuffix(b"\n").decode(errors="surrogateescape").removeprefix(mark)
        mark = ""
        if not is_blank(text):
            yield text


async def _run(running: Program, options: Options) -> int:
    connection = await find(running.reactor, options["connect"], options["timeout"]).connect()
    status = 0
    async for line in _lines(running.reactor, options["commands"]):
        reply = await connection.ask(line)
        say(reply.line.decode("ascii", "backslashreplace"))
        status = 1 if reply.code else status
    connection.close()
    return status


def run(options: Options) -> None:
    """Run it, and exit."""
    program.run(lambda running: _run(running, options))
