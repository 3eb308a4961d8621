"""The servers that are compared: each a process of its own, on one core."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LIMIT = 20.0
"""Seconds in which a server must start, and stop."""


class Kind(NamedTuple):
    """A kind of server."""

    title: str
    """For tables and charts."""
    command: Callable[[int, str], list[str]]
    """What starts it, from a port and a directory."""
    resp: bool = False
    """Whether it speaks RESP; otherwise kvd's line protocol."""
    transactions: bool = True
    values: bool = True
    """Whether GET answers the value."""


def _kvd(port: int, directory: str) -> list[str]:
    return [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "kvd", "--port", str(port)]


def _durable_kvd(sync: str) -> Callable[[int, str], list[str]]:
    return lambda port, directory: [*_kvd(port, directory), "--store", f"sqlite:{directory}/kvd.db", "--sync", sync]


def _script(name: str) -> Callable[[int, str], list[str]]:
    return lambda port, directory: [sys.executable, str(HERE / name), str(port)]


def _redis(sync: str) -> Callable[[int, str], list[str]]:
    """Redis, with what it calls appendfsync; "" for nothing on disk."""
    kept = ["--appendonly", "yes", "--appendfsync", sync] if sync else ["--appendonly", "no"]
    return lambda port, directory: [
        "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory, *kept,
    ]  # fmt: skip


KINDS = {
    "kvd": Kind("kvd", _kvd),
    "redis": Kind("Redis", _redis(""), resp=True),
    "threads": Kind("thread per client", _script("threads_server.py"), transactions=False),
    "bare": Kind("bare LineReceiver", _script("bare_server.py"), values=False),
}

DURABLE = {
    "kvd": Kind("kvd, --sync always", _durable_kvd("always")),
    "redis": Kind("Redis, appendfsync always", _redis("always"), resp=True),
    "kvd second": Kind("kvd, --sync 1", _durable_kvd("1")),
    "redis second": Kind("Redis, appendfsync everysec", _redis("everysec"), resp=True),
    "memory": Kind("kvd, memory", _kvd),
}
"""The servers that keep their data on a disk, and kvd's memory store beside them."""


def available() -> list[str]:
    """The servers that are installed here."""
    return [name for name in KINDS if name != "redis" or shutil.which("redis-server")]


def cores() -> tuple[set[int], set[int]]:
    """The cores for the server and for the load: one each if there are two, else all for both."""
    mine = sorted(os.sched_getaffinity(0))
    return ({mine[0]}, {mine[1]}) if len(mine) > 1 else (set(mine), set(mine))


class Server:
    """A server that runs.

    :ivar kind: what it is.
    """

    def __init__(self, kind: Kind, port: int, process: subprocess.Popen[bytes]) -> None:
        self.kind = kind
        self.port = port
        self._process = process

    def cpu(self) -> tuple[float, float]:
        """Seconds of processor time that it has taken: its own code's, and the kernel's."""
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return int(words[11]) / ticks, int(words[12]) / ticks

    def resident(self) -> int:
        """Bytes of memory that it has in use."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def written(self) -> int:
        """Bytes that it has had written to a disk."""
        found = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{self._process.pid}/io").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def settle(self) -> None:
        """Wait until it is done with what the last load left behind, for it shares its core with the next server."""
        end = time.monotonic() + LIMIT
        before = sum(self.cpu())
        while time.monotonic() < end:
            time.sleep(0.05)
            now = sum(self.cpu())
            if now - before < 0.02:  # two ticks
                return
            before = now


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(kind: Kind) -> Iterator[Server]:
    """A server of this kind, on one core, from its start to its end. What it writes is on the disk of temporary files.

    :raise RuntimeError: if it does not start.
    """
    port = _free_port()
    core = cores()[0]
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            kind.command(port, directory),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, core),
        )
        try:
            _wait_for(port, process, kind.title)
            yield Server(kind, port, process)
        finally:
            process.kill()
            process.wait(LIMIT)


def _wait_for(port: int, process: subprocess.Popen[bytes], name: str) -> None:
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"{name} does not start")
