"""kvd on a disk beside Redis on the same disk: ``python -m tests.benchmarks.durable [--help]``

Needs Redis and a C compiler. The servers take turns, round by round, under the same load: PUTs of keys drawn at
random from 500,000, which are all there at the beginning. It prints a table for ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from typing import NamedTuple

from tests.benchmarks import report
from tests.benchmarks.loads import CompiledLoad, Figures, Row, load_in
from tests.benchmarks.servers import DURABLE, Server, running

KEYS = 500_000

ROWS = [
    Row("put", 50, 1, 3, KEYS),
    Row("put", 50, 16, 3, KEYS),
    Row("put", 1, 1, 3, KEYS),
    Row("get", 50, 1, 3, KEYS),
    Row("get", 50, 16, 3, KEYS),
]


class Round(NamedTuple):
    """What one server did in one round."""

    figures: Figures
    written: float
    """Bytes written to the disk for each request."""


def measure(load: CompiledLoad, servers: dict[str, Server], row: Row, rounds: int, seconds: float) -> list[str]:
    """A row of the table: the medians of the rates, of the ratios to Redis, and of the bytes written."""
    found: dict[str, list[Round]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            before = server.written()
            figures = load.run(server, row, seconds)
            requests = max(1, figures.requests * 1.25)  # with the warm-up
            found[name].append(Round(figures, (server.written() - before) / requests))
            server.settle()

    def rate(name: str) -> str:
        return f"{statistics.median(each.figures.per_second for each in found[name]):,.0f}"

    def ratio(name: str, other: str) -> str:
        pairs = zip(found[name], found[other], strict=True)
        return f"{statistics.median(one.figures.per_second / two.figures.per_second for one, two in pairs):.2f}"

    written = statistics.median(each.written for each in found["kvd"])
    return [
        report.row_title(row),
        rate("kvd"),
        ratio("kvd", "redis"),
        rate("kvd second"),
        ratio("kvd second", "redis second"),
        rate("memory"),
        ratio("kvd", "memory"),
        f"{written:,.0f}",
    ]


HEAD = [
    "requests a second",
    "kvd, `--sync always`",
    "× Redis, `always`",
    "kvd, `--sync 1`",
    "× Redis, `everysec`",
    "kvd, memory",
    "`always` × memory",
    "bytes written a request",
]


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Compares durable PUTs of kvd and Redis on the same disk.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each row, server and round")
    options = parser.parse_args(words)
    directory = tempfile.TemporaryDirectory()
    with directory, ExitStack() as stack:
        load = load_in(directory)
        if not isinstance(load, CompiledLoad):
            sys.exit("There is no C compiler.")
        servers = {name: stack.enter_context(running(kind)) for name, kind in DURABLE.items()}
        for server in servers.values():
            load.fill(server, KEYS, 3)
            server.settle()
        rows = [measure(load, servers, row, options.rounds, options.seconds) for row in ROWS]
    print(report.table(HEAD, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
