"""Files that a subcommand writes whole or not at all, and how it takes their names."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from getopt import GetoptError, gnu_getopt

from twisted.python import usage

from kvd.cli import program
from kvd.cli.program import Problem, reason

STANDARD = "-"
"""The name that stands for standard input, or standard output."""


class Options(program.Options):
    """The options of a subcommand that takes the name of a file."""

    synopsis = "FILE"

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Take options before the name and after it; Twisted would stop at the name."""
        try:
            found, rest = gnu_getopt(list(options or []), self.shortOpt, self.longOpt)
        except GetoptError as error:
            raise usage.UsageError(str(error)) from None
        named: list[str] = []
        for name, value in found:
            named += [name, value] if self._has_value(name) else [name]
        super().parseOptions([*named, "--", *rest])

    def _has_value(self, name: str) -> bool:
        return f"{name[2:]}=" in self.longOpt if name.startswith("--") else f"{name[1:]}:" in self.shortOpt

    def parseArgs(self, *names: str) -> None:
        """Take the name of the file."""
        if len(names) != 1:
            raise usage.UsageError(f"one FILE is needed, not {len(names)}")
        self["file"] = names[0]


def prefix(value: str) -> str:
    """What keys begin with, as an option takes it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a prefix is text in UTF-8, not {os.fsencode(value)!r}") from None
    return value


PREFIX = ["prefix", "p", "", "Only keys that begin with this.", prefix]
"""The option that says which keys."""


@contextmanager
def written(path: str, anew: bool = False) -> Iterator[str]:
    """Write a file that is never seen half written: beside its place first, and then, safely on disk, in its place.

    If the ``with`` block raises, nothing is left of it, and what was in its place before is still there.

    :param path: its place.
    :param anew: there must be nothing in its place.
    :return: the name of the file, which is empty; the block writes and closes it.
    :raise Problem: it can't be written.
    """
    if anew and os.path.lexists(path):
        raise Problem(f"{path} exists already; name a file that does not exist")
    place = os.path.realpath(path)  # what a symbolic link means is replaced, and not the link
    beside = f"{place}.{os.urandom(4).hex()}.part"
    try:
        mode = os.stat(place).st_mode & 0o777 if os.path.exists(place) else 0o666
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        if anew and os.path.lexists(path):
            raise Problem(f"{path} exists meanwhile; nothing was written")
        os.replace(beside, place)
        _sync_directory(os.path.dirname(place))
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        with suppress(OSError):
            os.unlink(beside)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def output(path: str) -> Iterator[io.FileIO]:
    """A file to write to; ``-`` is standard output. One on disk is written whole or not at all.

    :raise Problem: it can't be written to.
    """
    try:
        if path == STANDARD:
            if sys.stdout is None:
                raise Problem("can't write to standard output: it is closed")
            yield io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
        elif os.path.exists(path) and not os.path.isfile(path):  # a pipe, say, which nothing must take the place of
            with io.FileIO(path, "wb") as file:
                yield file
        else:
            with written(path) as beside, io.FileIO(beside, "wb") as file:
                yield file
    except OSError as error:
        raise _not_written(path, error) from None


def write_all(file: io.FileIO, data: bytes) -> None:
    """Write all of it, however little the system takes at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _not_written(path: str, error: OSError) -> Problem:
    return Problem(f"can't write to {called(path, 'output')}: {reason(error)}")


def called(path: str, standard: str) -> str:
    """How a file is called in a message.

    :param standard: ``input`` or ``output``: what ``-`` stands for.
    """
    return f"standard {standard}" if path == STANDARD else path


@contextmanager
def input(path: str) -> Iterator[io.FileIO]:
    """A file to read from; ``-`` is standard input.

    :raise Problem: it can't be read from.
    """
    try:
        if path == STANDARD:
            if sys.stdin is None:
                raise Problem("can't read standard input: it is closed")
            # A file of its own: Python waits for sys.stdin when the process ends.
            yield io.FileIO(sys.stdin.fileno(), "rb", closefd=False)
        else:
            with io.FileIO(path, "rb") as file:
                yield file
    except OSError as error:
        raise unread(path, error) from None


def unread(path: str, error: OSError) -> Problem:
    """The problem of a file that can't be read."""
    return Problem(f"can't read {called(path, 'input')}: {reason(error)}")
