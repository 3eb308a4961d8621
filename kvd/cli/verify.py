"""``kvd verify``: does a server keep its promise of strict serializability?"""

from __future__ import annotations

import json
import random
import sys
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import LoopingCall, react
from twisted.python import usage

from kvd.client.link import Link

if TYPE_CHECKING:
    from kvd.verify.check import Verdict
    from kvd.verify.driver import Driver
    from kvd.verify.history import History

    Found = tuple[History, Verdict]

REPLY_TIME = 5.0
"""Seconds that a reply may take."""

PATIENCE = 10.0
"""Seconds that removing the keys may take."""

SHOWN = 3
"""Violations that are told in full."""


def positive(value: str) -> float:
    """A number of seconds."""
    number = float(value)
    if not 0 < number < float("inf"):
        raise ValueError("more than 0 is needed")
    return number


def at_least_one(value: str) -> int:
    """A number of clients."""
    number = int(value)
    if number < 1:
        raise ValueError("at least 1 is needed")
    return number


class Options(usage.Options):
    """The options of ``kvd verify``."""

    synopsis = "[--connect tcp:localhost:8765] [options]"
    longdesc = (
        "Loads a running server with random transactions and plain commands of many clients at once, and checks "
        "everything that they were answered: is there an order that explains it, as if they had come one after the "
        "other? The exit status is 0 if there is, 1 if there is none, and 2 if that could not be found out. Its keys "
        "begin with kvd-verify: and are removed at the end. Ctrl-C ends it early."
    )
    optParameters: ClassVar = [
        ["connect", "c", "tcp:localhost:8765", "The server, as a Twisted client endpoint."],
        ["seconds", "s", 10.0, "For how long the server is under load.", positive],
        ["clients", None, 10, "Clients at once.", at_least_one],
        ["seed", None, None, "Decides what the clients do; random if not given.", int],
        ["report", None, None, "Write verdict and history to this file, as JSON."],
    ]


class Report:
    """Writes what was found to a file, window by window."""

    def __init__(self, path: str, options: Options) -> None:
        self._path = path
        self._between = "\n"
        with open(path, "w") as file:
            file.write(f'{{"connect": {json.dumps(options["connect"])}, "seed": {options["seed"]}, "windows": [')

    def _write(self, text: str) -> None:
        with open(self._path, "a") as file:
            file.write(text)

    def add(self, history: History, verdict: Verdict) -> None:
        """Write a window."""
        from kvd.verify.check import report

        self._write(self._between + json.dumps(report(history, verdict)))
        self._between = ",\n"

    def end(self, rest: dict[str, Any]) -> None:
        """Write what is known in the end."""
        self._write("\n], " + json.dumps(rest)[1:] + "\n")


class Progress:
    """Tells how far it is, on standard error, if that is a terminal."""

    def __init__(self, reactor: Any, driver: Driver, seconds: float) -> None:
        self._clock = reactor
        self._begun = reactor.seconds()
        self._driver = driver
        self._seconds = seconds
        self._ticks = LoopingCall(self._tell)
        if sys.stderr.isatty():
            self._ticks.start(0.5)

    def _tell(self) -> None:
        passed = self._clock.seconds() - self._begun
        line = (
            f"{passed:6.1f} of {self._seconds:g} s, {self._driver.figures.checked:,} transactions and commands checked"
        )
        print(line, end="\r", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave a clean line."""
        if self._ticks.running:
            self._ticks.stop()
            print(" " * 79, end="\r", file=sys.stderr, flush=True)


async def _load(reactor: Any, options: Options, driver: Driver, report: Report | None) -> Found | None:
    """Load the server, and check; then leave nothing behind."""

    def checked(history: History, verdict: Verdict) -> None:
        if report is not None:
            report.add(history, verdict)

    progress = Progress(reactor, driver, options["seconds"])
    try:
        return await driver.run(options["seconds"], checked)
    finally:
        progress.end()
        try:
            await Deferred.fromCoroutine(driver.end()).addTimeout(PATIENCE, reactor)
        except Exception as error:
            problem = str(error) or type(error).__name__
            print(f"kvd: keys that begin with {driver.prefix} could not be removed: {problem}", file=sys.stderr)


def show(found: Found | None, driver: Driver, options: Options) -> int:
    """Print verdict and figures.

    :return: the exit status.
    """
    from kvd.verify.explain import text
    from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN

    figures = driver.figures
    if found is not None:
        history, verdict = found
        names = ", ".join(violation.anomaly for violation in verdict.violations)
        print(f"VIOLATED: this server is not strictly serializable. Found: {names}.\n")
        for violation in verdict.violations[:SHOWN]:
            print(text(violation, history.transactions), end="\n\n")
        status = 1
    elif driver.trouble or not figures.transactions[COMMITTED]:
        why = driver.trouble or "not one transaction was committed"
        print(f"kvd: {options['connect']}: nothing can be said, for {why}", file=sys.stderr)
        status = 2
    else:
        print("HELD: everything that was answered can be explained by one order of all transactions.\n")
        status = 0
    for kind, ended in (("transactions", figures.transactions), ("plain commands", figures.commands)):
        number = sum(ended.values())
        refused = f"{ended[ROLLED_BACK]:,} rolled back or refused"
        if ended is figures.transactions:
            refused += f" ({figures.codes.get('CONFLICT', 0):,} in conflict)"
        print(
            f"{kind:15}{number:10,} in {figures.seconds:.1f} s, {number / max(figures.seconds, 0.001):,.0f} a second: "
            f"{ended[COMMITTED]:,} done, {refused}, {ended[UNKNOWN]:,} of unknown outcome"
        )
    print(f"undecided keys {figures.undecided:10,}")
    print(f"clients        {options['clients']:10,}, seed {options['seed']}")
    return status


async def _run(reactor: Any, options: Options) -> None:
    over: Deferred[None] = Deferred()

    def interrupted() -> Deferred[None]:
        driver.stopped = True
        return over

    try:
        from kvd.verify.driver import Driver

        if options["seed"] is None:
            options["seed"] = random.SystemRandom().randrange(10**6)
        endpoint = clientFromString(reactor, options["connect"])

        def connect() -> Deferred[Link]:
            made: Deferred[Link] = connectProtocol(endpoint, Link(reactor, REPLY_TIME))
            return made

        driver = Driver(connect, reactor, options["clients"], options["seed"])
        await driver.begin()
        report = Report(options["report"], options) if options["report"] else None
    except ImportError as error:
        print(f"kvd verify needs networkx ({error}): pip install 'txkvd[verify]'", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        print(f"kvd: {options['connect']}: {str(error) or type(error).__name__}", file=sys.stderr)
        raise SystemExit(2) from None
    trigger = reactor.addSystemEventTrigger("before", "shutdown", interrupted)
    try:
        found = await _load(reactor, options, driver, report)
        status = show(found, driver, options)
        if report is not None:
            report.end({"valid": found is None, "status": status, "prefix": driver.prefix, **asdict(driver.figures)})
    except Exception:  # a fault of ours says nothing about the server
        traceback.print_exc()
        status = 2
    finally:
        reactor.removeSystemEventTrigger(trigger)
        over.callback(None)
    raise SystemExit(status)


def run(options: Options) -> None:
    """Run it, and exit."""
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, options)))
