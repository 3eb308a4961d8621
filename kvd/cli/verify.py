"""``kvd verify``: does a server keep its promise of strict serializability?"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import Deferred

from kvd.cli import program
from kvd.cli.connecting import Trouble, find, told
from kvd.cli.program import CONNECT, FAILED, PATIENCE, Problem, Program, allow_connections, complain, say, write
from kvd.cli.progress import progress
from kvd.numbers import at_least_one, count, positive

if TYPE_CHECKING:
    from kvd.verify.check import Verdict
    from kvd.verify.driver import Driver
    from kvd.verify.history import History

    Found = tuple[History, Verdict]

REPLY_TIME = 5.0
"""Seconds that a reply may take."""

SHOWN = 3
"""Violations that are told in full."""


class Options(program.Options):
    """The options of ``kvd verify``."""

    longdesc = (
        "Loads a running server with random transactions and plain commands of many clients at once, and checks "
        "all the replies: is there an order that explains them, as if everything had happened one after the other? "
        "The exit status is 0 if there is, 1 if there is none, and 2 if that can't be told. Its keys begin with "
        "kvd-verify: and are removed at the end. Ctrl-C ends it early, with the verdict so far."
    )
    optParameters: ClassVar = [
        CONNECT,
        ["seconds", "s", 10.0, "How long to load the server.", positive],
        ["clients", None, 10, "Clients at once.", at_least_one],
        ["seed", None, None, "A number that decides what the clients do; random if not given.", count],
        ["report", None, None, "Write the verdict and the history to this file, as JSON."],
    ]


class Report:
    """Writes what was found to a file, window by window.

    :raise Problem: the file can't be written; so does every method.
    """

    def __init__(self, path: str, options: Options) -> None:
        self._path = path
        self._between = "\n"
        write(path, f'{{"connect": {json.dumps(options["connect"])}, "seed": {options["seed"]}, "windows": [')

    def add(self, history: History, verdict: Verdict) -> None:
        """Write a window."""
        from kvd.verify.check import report

        write(self._path, self._between + json.dumps(report(history, verdict)), "a")
        self._between = ",\n"

    def end(self, rest: dict[str, Any]) -> None:
        """Write what is known only at the end."""
        write(self._path, "\n], " + json.dumps(rest)[1:] + "\n", "a")


async def _load(reactor: Any, options: Options, driver: Driver, report: Report | None) -> Found | None:
    """Load the server, and check; then remove the keys."""
    begun = reactor.seconds()

    def checked(history: History, verdict: Verdict) -> None:
        if report is not None:
            report.add(history, verdict)

    def line() -> str:
        passed, number = reactor.seconds() - begun, driver.figures.checked
        return f"{passed:6.1f} of {options['seconds']:g} s, {number:,} transactions and commands checked"

    try:
        with progress(reactor, line):
            return await driver.run(options["seconds"], checked)
    finally:
        try:
            await Deferred.fromCoroutine(driver.end()).addTimeout(PATIENCE, reactor)
        except Exception as error:
            complain(f"keys that begin with {driver.prefix} could not be removed: {told(error)}")


def show(found: Found | None, driver: Driver, options: Options) -> int:
    """Print the verdict and the figures.

    :return: the exit status.
    """
    from kvd.verify.explain import text
    from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN

    figures = driver.figures
    if found is not None:
        history, verdict = found
        names = ", ".join(violation.anomaly for violation in verdict.violations)
        say(f"VIOLATED: this server is not strictly serializable. Found: {names}.\n")
        for violation in verdict.violations[:SHOWN]:
            say(text(violation, history.transactions), end="\n\n")
        status = 1
    elif driver.trouble or not figures.transactions[COMMITTED]:
        complain(f"nothing can be said, because {driver.trouble or 'not one transaction was committed'}")
        status = FAILED
    else:
        say("HELD: everything that was answered can be explained by one order of all transactions.\n")
        status = 0
    for kind, ended in (("transactions", figures.transactions), ("plain commands", figures.commands)):
        number = sum(ended.values())
        refused = f"{ended[ROLLED_BACK]:,} rolled back or refused"
        if ended is figures.transactions:
            refused += f" ({figures.codes.get('CONFLICT', 0):,} in conflict)"
        say(
            f"{kind:15}{number:10,} in {figures.seconds:.1f} s, {number / max(figures.seconds, 0.001):,.0f} a second: "
            f"{ended[COMMITTED]:,} done, {refused}, {ended[UNKNOWN]:,} of unknown outcome"
        )
    say(f"undecided keys {figures.undecided:10,}")
    say(f"clients        {options['clients']:10,}, seed {options['seed']}")
    return status


async def _run(running: Program, options: Options) -> int:
    try:
        from kvd.verify.driver import Driver
    except ImportError as error:
        raise Problem(f"kvd verify needs networkx ({error}): pip install 'txkvd[verify]'") from None
    allow_connections(options["clients"])
    reactor = running.reactor
    if options["seed"] is None:
        options["seed"] = random.SystemRandom().randrange(10**6)
    server = find(reactor, options["connect"], REPLY_TIME)
    (await server.greeted()).close()
    driver = Driver(server.greeted, reactor, options["clients"], options["seed"])
    try:
        await driver.begin()
    except Exception as error:
        raise Trouble(server.name, told(error)) from None
    report = Report(options["report"], options) if options["report"] else None

    def stop() -> None:
        driver.stopped = True

    running.stop = stop
    found = await _load(reactor, options, driver, report)
    status = show(found, driver, options)
    if report is not None:
        report.end({"valid": found is None, "status": status, "prefix": driver.prefix, **asdict(driver.figures)})
    return status


def run(options: Options) -> None:
    """Run it, and exit."""
    program.run(lambda running: _run(running, options))
