"""The ``kvd`` command: finds the subcommand and runs it."""

from __future__ import annotations

import importlib
import sys
from typing import ClassVar

from twisted.python import usage

import kvd


class Options(usage.Options):
    """The options in front of a subcommand. A subcommand's module is imported when it is used."""

    synopsis = "Usage: kvd SUBCOMMAND [options]"
    subCommands: ClassVar = [
        [
            "run",
            None,
            lambda: _options("run"),
            "Send commands, from here or from standard input, and print the replies.",
        ],
        ["shell", None, lambda: _options("shell"), "A prompt for commands, with history and completion."],
        ["bench", None, lambda: _options("bench"), "How many requests a second a server answers, and how fast."],
        [
            "verify",
            None,
            lambda: _options("verify"),
            "Check that a server keeps its promise of strict serializability.",
        ],
    ]

    def opt_version(self) -> None:
        """Print the version of kvd and exit."""
        print(f"kvd {kvd.__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """A subcommand must be there."""
        if self.subCommand is None:
            raise usage.UsageError("which subcommand? kvd --help lists them")


def _options(name: str) -> usage.Options:
    options: usage.Options = importlib.import_module(f"kvd.cli.{name}").Options()
    return options


def main() -> None:
    """Run the command line. Exit status 2 means that it could not be understood, or not be begun."""
    options = Options()
    try:
        options.parseOptions(sys.argv[1:])
    except usage.UsageError as error:
        print(f"kvd: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    importlib.import_module(f"kvd.cli.{options.subCommand}").run(options.subOptions)
