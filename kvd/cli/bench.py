"""``kvd bench``: how fast a server is, seen from here."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError
from twisted.python import usage

from kvd.cli import program
from kvd.cli.connecting import Trouble, find, told
from kvd.cli.program import CONNECT, Program, allow_connections, complain, say, write
from kvd.cli.progress import progress, speed
from kvd.cli.workload import KINDS, Bench, Load, Result
from kvd.numbers import at_least_one, size
from kvd.reactor import install_reactor, transport_name

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}

BUSY = 0.9
"""The share of a core above which the benchmark itself may limit the figures."""

_DEFAULTS = Load()


class Options(program.Options):
    """The options of ``kvd bench``."""

    longdesc = (
        "Sends requests as fast as the server answers them, and tells how many there were per second and how long "
        "they took. Its keys begin with kvd-bench: and are removed at the end. Ctrl-C ends it early, with the figures "
        "so far. The exit status is 1 if a reply was an Error, and 2 if the server could not be reached or closed a "
        "connection."
    )
    optParameters: ClassVar = [
        CONNECT,
        ["clients", None, _DEFAULTS.clients, "Connections.", at_least_one],
        [
            "pipeline",
            None,
            _DEFAULTS.pipeline,
            "Requests in flight on each connection; a transaction is alone.",
            at_least_one,
        ],
        ["requests", "n", _DEFAULTS.requests, "Requests in all; a transaction counts as one.", at_least_one],
        [
            "mix",
            None,
            ",".join(_DEFAULTS.mix),
            f"Kinds of requests, in turn, out of {','.join(KINDS)}. A kind that is named twice has two turns. A "
            "transaction reads two keys, then writes both, in two round trips.",
        ],
        ["value-size", None, _DEFAULTS.value_size, "Bytes of a value, such as 3 or 64K.", size],
        ["keys", None, _DEFAULTS.keys, "Keys to choose from.", at_least_one],
        ["json", None, None, "Write the figures to this file too."],
    ]

    def postOptions(self) -> None:
        """Take the mix apart."""
        self["mix"] = tuple(self["mix"].split(","))
        for name in self["mix"]:
            if name not in KINDS:
                raise usage.UsageError(f"--mix takes some of {', '.join(KINDS)}, not {name!r}")


def figures(options: Options, result: Result, transport: str) -> dict[str, Any]:
    """What was measured, as data for JSON. Latencies are in milliseconds."""
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
    say(
        f"{found['clients']} clients, {found['pipeline']} in flight, values of {found['value_size']} bytes, "
        f"{found['keys']} keys; latencies in ms"
    )
    say(f"{'':12}{'requests':>12}{'per second':>12}" + "".join(f"{name:>10}" for name in PERCENTILES))
    for name, kind in found["kinds"].items():
        latencies = "".join(f"{milliseconds:10.3f}" for milliseconds in kind["latency_ms"].values())
        say(f"{name:12}{kind['requests']:12,}{kind['per_second']:12,.0f}{latencies}")
    say(f"{'all':12}{found['requests']:12,}{found['per_second']:12,.0f}")
    share = found["own_cpu_share"]
    if share >= BUSY:
        say(f"Warning: the benchmark itself was busy for {share:.0%} of a core; the server may be faster than this.")
    for code, error in found["errors"].items():
        say(f"{error['count']:,} replies were errors with the code {code}, such as {error['example']}")


async def _measure(running: Program, options: Options) -> Result:
    """Connect, store keys, measure, and remove the keys.

    :raise Trouble: the server can't be reached, or closed a connection.
    """
    reactor = running.reactor
    server = find(reactor, options["connect"])
    (await server.greeted()).close()
    if options["json"]:
        write(options["json"], "", "a")  # not first after the measurement
    load = Load(
        clients=options["clients"],
        pipeline=options["pipeline"],
        requests=options["requests"],
        mix=options["mix"],
        value_size=options["value-size"],
        keys=options["keys"],
        prefix=f"kvd-bench:{os.urandom(4).hex()}:",  # another one may run at the same time
    )
    bench = Bench(reactor, server.endpoint, load)
    running.stop = bench.stop
    line = speed(lambda: bench.result.requests, lambda: bench.result.requests / load.requests)
    problem: Exception | None = None
    left = f"keys that begin with {load.prefix} are left on the server"
    try:
        await bench.connect()
        await bench.fill()
        with progress(reactor, line, everywhere=True):
            await bench.run()
    except CancelledError:
        complain(left)
        raise
    except Exception as error:
        problem = error
    try:
        await bench.remove()
    except Exception as error:
        complain(left)
        problem = problem or error
    if problem is not None:
        raise Trouble(server.name, told(problem)) from None
    bench.close()
    return bench.result


async def _run(running: Program, options: Options) -> int:
    allow_connections(options["clients"])
    result = await _measure(running, options)
    found = figures(options, result, transport_name(running.reactor))
    show(found)
    if options["json"]:
        write(options["json"], json.dumps(found, indent=2) + "\n")
    return 1 if result.errors else 0


def run(options: Options) -> None:
    """Run it, and exit."""
    install_reactor()
    program.run(lambda running: _run(running, options))
