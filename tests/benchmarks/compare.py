"""kvd beside Redis, a thread per client and a bare LineReceiver: ``python tests/benchmarks/compare.py [--help]``

Runs in the environment that README.md sets up for the tests. ``redis-server`` (on Debian: apt install redis-server)
and a C compiler are used if they are installed, and so is matplotlib, for the charts. Server and load have one core
each; the servers take turns, round by round, under the same load. The figures go to ``docs/performance.md``, between
its two marks; what stands around these is written by hand, and stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

from tests.benchmarks import machine, report
from tests.benchmarks.loads import CompiledLoad, Figures, Load, Row, load_in
from tests.benchmarks.servers import KINDS, Server, available, running

ROOT = Path(__file__).parent.parent.parent

KIB = 1024
ROWS = [
    *(Row(kind, 50, depth, 3) for depth in (1, 16, 128) for kind in ("get", "put")),
    *(Row(kind, 1, depth, 3) for depth in (1, 16) for kind in ("get", "put")),
    *(Row(kind, 1000, depth, 3) for depth in (1, 16) for kind in ("get", "put")),
    *(Row("transaction", clients, 1, 3) for clients in (50, 1, 1000)),
    *(Row(kind, 50, depth, KIB) for depth in (1, 16, 128) for kind in ("get", "put")),
    Row("transaction", 50, 1, KIB),
    *(Row(kind, 50, 1, 64 * KIB) for kind in ("get", "put", "transaction")),
]
"""What is measured; rows of one size of values stand together, for the servers are filled anew for each size."""

QUICK_ROWS = [Row("get", 5, 16, 3), Row("put", 5, 1, 3), Row("transaction", 5, 1, 3)]

MILLION = 1_000_000


@dataclass
class Measured:
    """One row: what was measured of each server, round by round."""

    row: Row
    rounds: dict[str, list[Figures]] = field(default_factory=dict)

    def median(self, server: str, figure: str = "per_second") -> float | None:
        """The median of a figure over the rounds; None if nothing was measured of this server."""
        answered = [figures for figures in self.rounds.get(server, []) if figures.requests or figure == "per_second"]
        found: list[float] = [getattr(figures, figure) for figures in answered]
        return statistics.median(found) if found else None

    def ratio(self, server: str, other: str) -> float | None:
        """The median over the rounds of how many times as many requests a second a server answers as another.

        None if one was not measured, or if the other one once answered nothing in time.
        """
        if server not in self.rounds or other not in self.rounds:
            return None
        pairs = list(zip(self.rounds[server], self.rounds[other], strict=True))
        if not all(two.per_second for _, two in pairs):
            return None
        return statistics.median(one.per_second / two.per_second for one, two in pairs)


@dataclass
class Filled:
    """What was measured of a server while it was filled with pairs."""

    pairs: int
    bytes_per_pair: float
    per_second: float


@dataclass
class Results:
    """All that was measured, and where."""

    machine: dict[str, str]
    rounds: int
    seconds: float
    load: str
    rows: list[Measured] = field(default_factory=list)
    filled: dict[str, Filled] = field(default_factory=dict)
    polite: dict[str, Figures] = field(default_factory=dict)
    polite_pairs: int = 0


def measured_on(server: str, row: Row) -> bool:
    """Whether this row says something about this server."""
    kind = KINDS[server]
    return (kind.transactions or row.kind != "transaction") and (kind.values or row.kind != "get" or row.value <= 3)


def measure_rows(results: Results, load: Load, names: list[str], rows: list[Row]) -> None:
    """Measure all rows, with the servers in turn."""
    with ExitStack() as stack:
        servers: dict[str, Server] = {name: stack.enter_context(running(KINDS[name])) for name in names}
        for value, group in groupby(rows, lambda row: row.value):
            same_value = list(group)
            for server in servers.values():
                if isinstance(load, CompiledLoad):
                    load.fill(server, same_value[0].keys, value)
            for row in same_value:
                measured = Measured(row)
                for _ in range(results.rounds):
                    for name, server in servers.items():
                        if measured_on(name, row):
                            figures = load.run(server, row, results.seconds)
                            measured.rounds.setdefault(name, []).append(figures)
                            server.settle()
                results.rows.append(measured)
                shown = ", ".join(f"{KINDS[name].title} {measured.median(name):,.0f}/s" for name in measured.rounds)
                print(f"{report.row_title(row)}: {shown}", flush=True)


def measure_filling(results: Results, load: CompiledLoad, names: list[str], pairs: int, polite_pairs: int) -> None:
    """Measure the memory of a number of pairs, and how long a polite client waits while another number is loaded."""
    results.polite_pairs = polite_pairs
    for name in names:
        with running(KINDS[name]) as server:
            before = server.resident()
            figures = load.fill(server, pairs, 32)
            results.filled[name] = Filled(pairs, (server.resident() - before) / pairs, figures.per_second)
        with running(KINDS[name]) as server:
            results.polite[name] = load.fill(server, polite_pairs, 32, polite=True)
        print(
            f"{KINDS[name].title}: {results.filled[name].bytes_per_pair:.0f} bytes a pair; a polite client waits for "
            f"{results.polite[name].longest:.1f} ms at most while {polite_pairs:,} pairs are loaded",
            flush=True,
        )


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Compares kvd with other servers, and writes docs/performance.md.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row, server and round")
    parser.add_argument("--quick", action="store_true", help="few rows and few pairs, to see that everything works")
    parser.add_argument("--servers", default=",".join(available()), help=f"some of {','.join(KINDS)}")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="the directory of performance.md")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    options = parser.parse_args(words)
    names = [name for name in KINDS if name in options.servers.split(",")]

    directory = tempfile.TemporaryDirectory()
    with directory:
        load = load_in(directory)
        if not isinstance(load, CompiledLoad):
            print("There is no C compiler: kvd bench makes the load, for the servers that speak kvd's protocol.")
            names = [name for name in names if not KINDS[name].resp]
        results = Results(machine.facts(), options.rounds, options.seconds, load.name)
        measure_rows(results, load, names, QUICK_ROWS if options.quick else ROWS)
        if isinstance(load, CompiledLoad):
            scale = 1000 if options.quick else 1
            filled = [name for name in names if name in ("kvd", "redis")]
            measure_filling(results, load, filled, MILLION // scale, 3 * MILLION // scale)
    if options.json:
        options.json.write_text(json.dumps(asdict(results), indent=1) + "\n")
    report.write(results, options.to)


if __name__ == "__main__":
    main(sys.argv[1:])
