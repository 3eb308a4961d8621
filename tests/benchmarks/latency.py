"""How long a polite client waits while others attack the daemon: ``python -m tests.benchmarks.latency [WORDS]``.

For each attack whose name holds one of the words (all, without any) a daemon is started on one core, the attack and the
polite client on the others, each in a process of its own. The polite client makes one request at a time, and the next
one five milliseconds later: GET, PUT, a transaction of four, SCAN. A wait of more than that stands for all the requests
that others would have begun meanwhile, so they are counted too, as HdrHistogram does it for "coordinated omission".

Waits are told twice: as they were, and as the time for which the daemon had a processor meanwhile. On a machine that
has other work to do only the second says something about the daemon (if root measures: then the polite client gets a
processor at once whenever it needs one). What fails on such a machine is tried again, at most twice.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.attacks import ATTACKS, Attack, begin, ended, memory, prepare
from tests.support.daemon import Client, Daemon

SECONDS = float(os.environ.get("SECONDS", "5"))
MEMORY = 256
"""Of the daemon, in MiB."""

TRIES = 3

EVERY = 0.005
"""Seconds from a reply to the polite client's next request."""


def polite(port: int, pid: int, seconds: float) -> dict[str, Any]:
    """Make requests one at a time, and see how long each takes.

    :param pid: of the daemon.
    :return: their times in seconds, the daemon's times meanwhile, and how often each error was told.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    client = Client(("127.0.0.1", port))
    assert client.ask("PUT polite 0").endswith('"Ok"}')
    print("ready", flush=True)
    requests = ["PUT polite 1", "GET polite", "START", "GET polite", "PUT polite 2", "COMMIT", "SCAN PREFIX polite"]
    waits: list[float] = []
    computed: list[float] = []
    clock = (~pid << 3) | 2  # of that process, see clock_getcpuclockid(3)
    codes: dict[str, int] = {}
    began = time.monotonic()
    end = began + seconds
    number = 0
    while began < end:
        time.sleep(EVERY)
        began, busy = time.monotonic(), time.clock_gettime(clock)
        try:
            reply = client.ask(requests[number % len(requests)])
        except OSError:
            reply = ""
        number += 1
        _note(waits, time.monotonic() - began)
        _note(computed, time.clock_gettime(clock) - busy)
        code = re.search('"code": "(.*)"', reply)
        if code or not reply:
            told = code[1] if code else "disconnected"
            codes[told] = codes.get(told, 0) + 1
            if not reply:
                break
    return {"waits": sorted(waits), "computed": sorted(computed), "codes": codes}


def _note(waits: list[float], wait: float) -> None:
    waits.append(wait)
    while wait > EVERY:
        wait -= EVERY
        waits.append(wait)


def measure(name: str, attack: Attack) -> bool:
    """Start all of them, and print a line of the table.

    :return: whether the daemon held.
    """
    pin = shutil.which("taskset") is not None and len(os.sched_getaffinity(0)) > 1
    cores = sorted(os.sched_getaffinity(0))
    theirs = ("taskset", "-c", ",".join(map(str, cores[1:]))) if pin else ()
    ours = ("taskset", "-c", str(cores[0])) if pin else ()
    options = ("--port", "0", "--max-memory", f"{MEMORY}M", *attack.options)
    with tempfile.TemporaryDirectory() as directory, Daemon(Path(directory), *options, through=ours) as daemon:
        daemon.started()
        prepare(attack, daemon.port)
        command = [*theirs, sys.executable, "-m", "tests.benchmarks.latency", "--polite", str(daemon.port)]
        command.append(str(daemon.pid))
        client = subprocess.Popen([*command, str(SECONDS)], stdout=subprocess.PIPE, text=True)
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        process = begin(name, daemon.port, SECONDS, theirs)
        found = json.loads(client.communicate(timeout=SECONDS + 60)[0])
        figures = ended(process)
        waits, computed = found["waits"], found["computed"]
        resident = memory(daemon.pid, "VmHWM") / 1024
        traceback = "Traceback" in daemon.log() or not daemon.runs()
        held = (
            part(computed, 0.99) < 50
            and resident < MEMORY + 64
            and not traceback
            and "disconnected" not in found["codes"]
        )
        print(
            f"| {name} | {part(waits, 0.5):.1f} | {part(waits, 0.99):.1f} | {part(waits, 1):.1f} | "
            f"{part(computed, 0.99):.1f} | {part(computed, 1):.1f} | {resident:.0f} | "
            f"{'yes' if traceback else 'no'} | {'' if held else 'FAILED '}{told(found['codes'])} | {figures.opened}, "
            f"{figures.dropped} | {figures.sent >> 20}, {figures.received >> 20} | {told(figures.codes)} |",
            flush=True,
        )
        return held


def part(times: list[float], share: float) -> float:
    """The time, in milliseconds, that a share of them does not exceed."""
    return 1000 * times[min(int(len(times) * share), len(times) - 1)]


def told(codes: Any) -> str:
    """Codes of errors, in short."""
    return ", ".join(f"{code} {codes[code]}" for code in codes) if isinstance(codes, dict) else ", ".join(codes)


def main(words: list[str]) -> int:
    print(f"{SECONDS:g} s each, --max-memory {MEMORY}M; polite waits in ms, resident memory in MiB")
    print("| attack | p50 | p99 | max | busy p99 | max | memory | traceback | polite told | opened, dropped | MiB | |")
    print(12 * "|---" + "|")
    chosen = [name for name in ATTACKS if not words or any(word in name for word in words)]
    return sum([not any(measure(name, ATTACKS[name]) for _ in range(TRIES)) for name in chosen])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--polite"]:
        print(json.dumps(polite(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
    else:
        sys.exit(main(sys.argv[1:]))
