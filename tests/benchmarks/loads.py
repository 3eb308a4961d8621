"""The load: ``load.c``, compiled here; or the engine of ``kvd bench`` if there is no compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.servers import Server, cores

SOURCE = Path(__file__).with_name("load.c")

LIMIT = 600.0
"""Seconds that one run may take."""


class Row(NamedTuple):
    """One load, the same for all servers."""

    kind: str
    """get, put or transaction."""
    clients: int
    depth: int
    """Requests in flight of each client."""
    value: int
    """Bytes of a value."""
    most_keys: int = 50_000

    @property
    def keys(self) -> int:
        """How many there are to choose from: as many as fit into 64 MiB, and no more than ``most_keys``."""
        return min(self.most_keys, (64 << 20) // self.value)


@dataclass
class Figures:
    """What was measured; latencies are in milliseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float
    p999: float
    longest: float
    own_cpu_share: float
    """The processor time that the load itself took, as a share of the time."""
    user: float = 0.0
    """Seconds of the server's processor time in its own code, for each request."""
    system: float = 0.0
    """The same, in the kernel."""


class Load(ABC):
    """Something that makes load."""

    name: str

    @abstractmethod
    def run(self, server: Server, row: Row, seconds: float) -> Figures:
        """Load a server for some seconds, behind a warm-up.

        :raise RuntimeError: if a reply was an error, or the server closed a connection.
        """


def _run(command: list[str]) -> str:
    core = cores()[1]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, preexec_fn=lambda: os.sched_setaffinity(0, core)
    )
    if done.returncode:
        raise RuntimeError(f"the load failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class CompiledLoad(Load):
    """load.c.

    :param directory: where its program is put.
    """

    name = "load.c"

    def __init__(self, directory: Path, compiler: str) -> None:
        self._program = directory / "load"
        subprocess.run([compiler, "-O2", "-o", self._program, SOURCE, "-lm"], check=True)

    def run(self, server: Server, row: Row, seconds: float) -> Figures:
        settings = {
            "clients": row.clients,
            "depth": row.depth,
            "value": row.value,
            "keys": row.keys,
            "seconds": seconds,
            "warmup": seconds / 4,
        }
        return self._measure(server, row.kind, settings)

    def fill(self, server: Server, keys: int, value: int, polite: bool = False) -> Figures:
        """Store pairs.

        :param polite: measure the latencies of one more client, who asks for one key each millisecond.
        """
        return self._measure(server, "fill", {"keys": keys, "value": value, "depth": 16, "polite": int(polite)})

    def _measure(self, server: Server, kind: str, settings: dict[str, float]) -> Figures:
        words = [f"{name}={number}" for name, number in settings.items()]
        before = server.cpu()
        out = _run([str(self._program), str(server.port), kind, f"resp={int(server.kind.resp)}", *words])
        after = server.cpu()
        found: dict[str, Any] = json.loads(out)
        if found["errors"]:
            raise RuntimeError(f"{found['errors']} replies of {server.kind.title} were errors, as {found['example']}")
        served = found["requests"] * (1 + settings.get("warmup", 0) / settings.get("seconds", 1)) or 1
        return Figures(
            found["requests"],
            found["per_second"],
            found["p50"],
            found["p99"],
            found["p99.9"],
            found["max"],
            found["own_cpu_share"],
            (after[0] - before[0]) / served,
            (after[1] - before[1]) / served,
        )


class BenchLoad(Load):
    """The engine of ``kvd bench``. It speaks no RESP, and is not much faster than the servers that it measures."""

    name = "kvd bench"

    def __init__(self, directory: Path) -> None:
        self._file = directory / "figures.json"

    def run(self, server: Server, row: Row, seconds: float) -> Figures:
        tried = self._bench(server, row, 20 * row.clients * row.depth)
        return self._bench(server, row, int(tried.per_second * seconds) + 1)

    def _bench(self, server: Server, row: Row, requests: int) -> Figures:
        options = {
            "connect": f"tcp:127.0.0.1:{server.port}",
            "clients": row.clients,
            "pipeline": row.depth,
            "mix": row.kind,
            "value-size": row.value,
            "keys": row.keys,
            "requests": requests,
            "json": self._file,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        _run([sys.executable, "-m", "kvd", "bench", *words])
        found: dict[str, Any] = json.loads(self._file.read_text())
        latency = found["kinds"][row.kind]["latency_ms"]
        return Figures(
            found["requests"],
            found["per_second"],
            latency["p50"],
            latency["p99"],
            latency["p99.9"],
            latency["max"],
            found["own_cpu_share"],
        )


def load_in(directory: tempfile.TemporaryDirectory[str]) -> Load:
    """The best load that there is here.

    :param directory: what it puts its files into.
    """
    compiler = shutil.which("cc")
    return CompiledLoad(Path(directory.name), compiler) if compiler else BenchLoad(Path(directory.name))
