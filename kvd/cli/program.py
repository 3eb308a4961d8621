"""How every subcommand begins and ends: its options, its output, its errors, Ctrl-C, and its exit status.

The exit status is 0; 1 if the server's replies say so; 2 after an error, which is one line on standard error; or 130
after Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react
from twisted.python import usage

import kvd
from kvd.numbers import positive

REFUSED = 1
FAILED = 2
INTERRUPTED = 130

PATIENCE = 10.0
"""Seconds that a subcommand may take to end after Ctrl-C."""

OTHER_FILES = 40
"""Files that a process has open besides its connections to the server, at most."""


class Problem(Exception):
    """A subcommand can't go on; the text says why, in one line.

    :ivar status: the exit status; :data:`REFUSED` if a reply of the server says why.
    """

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


class Interrupted(Exception):
    """Ctrl-C has ended a wait; the text says what that means, in one line."""


# Options.


class Options(usage.Options):
    """The options that every subcommand has."""

    parent: usage.Options | None

    def getSynopsis(self) -> str:
        """The usage, in one line."""
        name = "SUBCOMMAND" if self.parent is None else self.parent.subCommand
        return f"Usage: kvd {name} [options] {getattr(self, 'synopsis', '')}".rstrip()

    def getUsage(self, width: int | None = None) -> str:
        """What there is, in lines that can be read on any terminal."""
        usage: str = super().getUsage(width or min(max(shutil.get_terminal_size().columns, 60), 100))
        return usage

    def opt_version(self) -> None:
        """Print the version of kvd and exit."""
        print(f"kvd {kvd.__version__}")
        raise SystemExit(0)

    opt_h = usage.Options.opt_help


CONNECT = ["connect", "c", "localhost:8765", "The server: HOST, HOST:PORT, or a Twisted client endpoint."]
"""The option that says where the server is; :mod:`kvd.cli.connecting` reads it."""

TIMEOUT = ["timeout", "t", 60.0, "Seconds to wait for each reply.", positive]
"""The option that says how long to wait for it."""


# Output.


@contextmanager
def writing() -> Iterator[None]:
    """See that what is printed is written.

    :raise Problem: standard output can't be written to.
    """
    if sys.stdout is None:
        raise Problem("can't write to standard output: it is closed")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Python would try to write the rest, and complain, once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Problem(f"can't write to standard output: {reason(error)}") from None


def say(text: str, end: str = "\n") -> None:
    """Print something on standard output, now.

    :raise Problem: it could not be written.
    """
    with writing():
        print(text, end=end)


def write(path: str, text: str, mode: str = "w") -> None:
    """Write to a file.

    :param mode: ``"w"`` replaces what is there, ``"a"`` adds to it.
    :raise Problem: that can't be done.
    """
    try:
        with open(path, mode) as file:
            file.write(text)
    except OSError as error:
        raise Problem(f"can't write to {path}: {reason(error)}") from None


def complain(text: str) -> None:
    """Print an error on standard error, if there is one."""
    note(f"kvd: {text}")


def note(text: str) -> None:
    """Print a line on standard error, if there is one."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


def printable(text: str, keep: str = "") -> str:
    """A text in which nothing can play tricks with a terminal: what is not printable becomes an escape.

    :param keep: letters that stay all the same.
    """
    return "".join(letter if letter.isprintable() or letter in keep else f"\\u{ord(letter):04x}" for letter in text)


def reason(error: BaseException) -> str:
    """What an exception says, as part of a sentence."""
    said = error.strerror if isinstance(error, OSError) else None
    lines = (said or str(error)).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


# The process.


class Program:
    """A subcommand that is running.

    :param main: does the work, and returns the exit status.
    :ivar reactor: the reactor.
    :ivar stop: called at Ctrl-C. By default it cancels what the subcommand waits for. The subcommand then has
        :data:`PATIENCE` seconds to end.
    """

    def __init__(self, reactor: Any, main: Main) -> None:
        self.reactor = reactor
        self.stop: Callable[[], None] = self._cancel
        self._over: Deferred[None] = Deferred()
        reactor.addSystemEventTrigger("before", "shutdown", self._interrupt)
        self.running = Deferred.fromCoroutine(self._run(main))

    async def _run(self, main: Main) -> NoReturn:
        try:
            status = await main(self)
        except Problem as problem:
            complain(str(problem))
            status = problem.status
        except (Interrupted, CancelledError) as interrupted:
            complain(str(interrupted) or "interrupted")
            status = INTERRUPTED
        except Exception:  # a fault of ours
            traceback.print_exc()
            status = FAILED
        finally:
            self._over.callback(None)
        raise SystemExit(status)

    def _cancel(self) -> None:
        self.running.cancel()

    def _interrupt(self) -> Deferred[None] | None:
        """The reactor is about to stop: after the end of the work, or because of a signal."""
        if self._over.called:
            return None
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one ends the process at once
            signal.signal(number, signal.SIG_DFL)
        late = self.reactor.callLater(PATIENCE, self._cancel)
        self._over.addCallback(lambda _: late.cancel() if late.active() else None)
        self.stop()
        return self._over


Main = Callable[[Program], Coroutine[Any, Any, int]]


def run(main: Main) -> NoReturn:
    """Run a subcommand on the reactor, and exit."""
    react(lambda reactor: Program(reactor, main).running)


def allow_connections(clients: int) -> None:
    """See that the process may open as many connections.

    :raise Problem: the system does not allow it.
    """
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + OTHER_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise Problem(f"--clients {clients} needs {wanted} open files, and the limit is {hard} (see ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
