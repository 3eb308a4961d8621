"""The ``kvd`` command: finds the subcommand and runs it."""

from __future__ import annotations

import importlib
import io
import sys
from functools import partial
from typing import ClassVar

from twisted.python import usage

from kvd.cli import program
from kvd.cli.program import FAILED, INTERRUPTED, Problem, complain

SUBCOMMANDS = {
    "run": "Send commands, from the command line or standard input, and print the replies.",
    "shell": "A prompt for commands, with history and completion.",
    "dump": "Write all pairs, or those with a prefix, to a file of JSON lines.",
    "load": "Store the pairs of a file that kvd dump has written.",
    "backup": "Write all pairs to a new file for the SQLite store.",
    "bench": "Measure how many requests a second a server answers, and how fast.",
    "verify": "Check that a server keeps its promise of strict serializability.",
}


def _options(name: str) -> usage.Options:
    options: usage.Options = importlib.import_module(f"kvd.cli.{name}").Options()
    return options


class Options(program.Options):
    """The options before a subcommand. A subcommand's module is imported when it is used."""

    longdesc = "Talks to a kvd server, which is started with twistd kvd. kvd SUBCOMMAND --help tells more."
    subCommands: ClassVar = [[name, None, partial(_options, name), does] for name, does in SUBCOMMANDS.items()]

    def postOptions(self) -> None:
        """See that there is a subcommand."""
        if self.subCommand is None:
            raise usage.UsageError("no subcommand; kvd --help lists them")


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what this terminal has no letters for
    options = Options()
    try:
        with program.writing():
            options.parseOptions(sys.argv[1:])
    except (usage.UsageError, Problem) as error:
        complain(str(error).removeprefix("Parameter type enforcement failed: "))
        raise SystemExit(FAILED) from None
    try:
        importlib.import_module(f"kvd.cli.{options.subCommand}").run(options.subOptions)
    except KeyboardInterrupt:  # before the reactor runs
        complain("interrupted")
        raise SystemExit(INTERRUPTED) from None
