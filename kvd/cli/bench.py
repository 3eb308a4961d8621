"""``kvd bench``: how fast a server is, seen from here."""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import LoopingCall, react
from twisted.python import usage

from kvd.cli.load import KINDS, Bench, Load, Result
from kvd.client.link import Link
from kvd.numbers import count, size
from kvd.reactor import install_reactor, transport_name

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}

BUSY = 0.9
"""The share of a core from which on the benchmark itself may be what limits the figures."""

PATIENCE = 10.0
"""Seconds that removing the keys may take after an interrupt."""


def at_least_one(value: str) -> int:
    """A number of things that there must be."""
    number = count(value)
    if not number:
        raise ValueError("at least 1 is needed")
    return number


_DEFAULTS = Load()


class Options(usage.Options):
    """The options of ``kvd bench``."""

    synopsis = "[--connect tcp:localhost:8765] [options]"
    longdesc = (
        "Sends requests as fast as the server answers them, and tells how many that were a second, and how long "
        "they took. Its keys begin with kvd-bench: and are removed at the end. Ctrl-C ends it early. The exit status "
        "is 1 if a reply was an Error, and 2 if the server could not be reached or closed a connection."
    )
    optParameters: ClassVar = [
        ["connect", "c", "tcp:localhost:8765", "The server, as a Twisted client endpoint."],
        ["clients", None, _DEFAULTS.clients, "Connections.", at_least_one],
        [
            "pipeline",
            None,
            _DEFAULTS.pipeline,
            "Requests in flight on each; a transaction is alone.",
            at_least_one,
        ],
        ["requests", "n", _DEFAULTS.requests, "Requests in all; a transaction counts as one.", at_least_one],
        [
            "mix",
            None,
            ",".join(_DEFAULTS.mix),
            f"Kinds of requests, in turn; of {','.join(KINDS)}. A kind named twice has two turns. A transaction reads "
            "two keys, then writes both, in two round trips.",
        ],
        ["value-size", None, _DEFAULTS.value_size, "Bytes of a value, as 3 or 64K.", size],
        ["keys", None, _DEFAULTS.keys, "Keys to choose from.", at_least_one],
        ["json", None, None, "Write the figures to this file too."],
    ]

    def postOptions(self) -> None:
        """Take the mix apart."""
        self["mix"] = tuple(self["mix"].split(","))
        for name in self["mix"]:
            if name not in KINDS:
                raise usage.UsageError(f"--mix takes {', '.join(KINDS)}, and not {name!r}")


def figures(options: Options, result: Result, transport: str) -> dict[str, Any]:
    """What was measured, as plain data. Latencies are in milliseconds."""
    return {
        "clients": options["clients"],
        "pipeline": options["pipeline"],
        "mix": list(options["mix"]),
        "value_size": options["value-size"],
        "keys": options["keys"],
        "transport": transport,
        "seconds": result.seconds,
        "requests": result.requests,
        "per_second": result.requests / result.seconds,
        "own_cpu_share": result.cpu_seconds / result.seconds,
        "kinds": {
            kind.name: {
                "requests": kind.requests,
                "per_second": kind.requests / result.seconds,
                "latency_ms": {name: kind.percentile(percent) * 1e3 for name, percent in PERCENTILES.items()},
            }
            for kind in result.kinds
        },
        "errors": {code: {"count": number, "example": result.examples[code]} for code, number in result.errors.items()},
    }


def show(found: dict[str, Any]) -> None:
    """Print the figures for a person."""
    print(
        f"{found['clients']} clients, {found['pipeline']} in flight, values of {found['value_size']} bytes, "
        f"{found['keys']} keys; latencies in ms"
    )
    print(f"{'':12}{'requests':>12}{'per second':>12}" + "".join(f"{name:>10}" for name in PERCENTILES))
    for name, kind in found["kinds"].items():
        latencies = "".join(f"{milliseconds:10.3f}" for milliseconds in kind["latency_ms"].values())
        print(f"{name:12}{kind['requests']:12,}{kind['per_second']:12,.0f}{latencies}")
    print(f"{'all':12}{found['requests']:12,}{found['per_second']:12,.0f}")
    share = found["own_cpu_share"]
    if share >= BUSY:
        print(f"Warning: the benchmark itself was busy for {share:.0%} of a core; the server may be faster than this.")
    for code, error in found["errors"].items():
        print(f"{error['count']:,} replies were errors with the code {code}, as {error['example']}")


class Progress:
    """Tells once a second, on standard error, how far it is."""

    def __init__(self, result: Result, wanted: int) -> None:
        self._result = result
        self._wanted = wanted
        self._before = 0

    def tell(self) -> None:
        """One second has passed."""
        done = self._result.requests
        end = "\r" if sys.stderr.isatty() else "\n"
        line = f"{done / self._wanted:4.0%} {done - self._before:12,} a second"
        print(line, end=end, file=sys.stderr, flush=True)
        self._before = done

    def end(self) -> None:
        """Leave a clean line."""
        if sys.stderr.isatty():
            print(" " * 40, end="\r", file=sys.stderr, flush=True)


async def _measure(reactor: Any, options: Options) -> Result:
    endpoint = clientFromString(reactor, options["connect"])
    link = await connectProtocol(endpoint, Link(reactor))
    reply = await link.send(b"PING\n")
    link.close()
    if not reply.startswith(b'{"status": '):
        raise ConnectionError(f"this is no kvd server: it says {reply[:40]!r}")
    load = Load(
        clients=options["clients"],
        pipeline=options["pipeline"],
        requests=options["requests"],
        mix=options["mix"],
        value_size=options["value-size"],
        keys=options["keys"],
        prefix=f"kvd-bench:{os.urandom(4).hex()}:",  # another one may run at the same time
    )
    bench = Bench(reactor, endpoint, load)
    over: Deferred[None] = Deferred()

    def interrupted() -> Deferred[None]:
        bench.stop()
        return over.addTimeout(PATIENCE, reactor)

    trigger = reactor.addSystemEventTrigger("before", "shutdown", interrupted)
    progress = Progress(bench.result, load.requests)
    ticks = LoopingCall(progress.tell)
    try:
        await bench.connect()
        await bench.fill()
        ticks.start(1.0, now=False)
        try:
            await bench.run()
        finally:
            ticks.stop()
            progress.end()
            await bench.remove()
        bench.close()
    finally:
        reactor.removeSystemEventTrigger(trigger)
        over.callback(None)
    return bench.result


async def _run(reactor: Any, options: Options) -> None:
    try:
        result = await _measure(reactor, options)
    except Exception as error:
        print(f"kvd: {options['connect']}: {error or type(error).__name__}", file=sys.stderr)
        raise SystemExit(2) from None
    found = figures(options, result, transport_name(reactor))
    show(found)
    if options["json"]:
        with open(options["json"], "w") as file:
            json.dump(found, file, indent=2)
            file.write("\n")
    raise SystemExit(1 if result.errors else 0)


def run(options: Options) -> None:
    """Run it, and exit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = options["clients"] + 100
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    install_reactor()
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, options)))
