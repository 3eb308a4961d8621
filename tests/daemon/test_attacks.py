"""Attacks on a real daemon: its memory stays bounded, a polite client beside them is served, no traceback is written.

Each lasts a second or so. How long the polite client waits is measured by ``tests/benchmarks/latency.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attacks import ATTACKS, Figures, begin, ended, memory, prepare
from tests.support.daemon import Client, Daemon, wait_for

ROOMY, TIGHT = 256, 96
"""Limits of the daemon's memory, in MiB; the second is for attacks that are to reach it."""

SLACK = 64
"""MiB by which the process may exceed that."""

REQUESTS = [
    "PUT polite 1",
    "GET polite",
    "DEL gone",
    "START",
    "GET polite",
    "PUT polite 2",
    "COMMIT",
    "SCAN PREFIX polite",
]
"""What a polite client does; none of it makes the data grow."""

LONG = ("fill", "transactions of many", "transactions of big")
"""How the names of attacks begin that only come to the limit in some seconds."""


def serve(polite: Client) -> None:
    """Make requests one at a time, and see that they are answered well."""
    for request in REQUESTS:
        reply = json.loads(polite.ask(request))
        if reply["status"] != "Ok":
            # A server at its limit may have to end any transaction; the client then begins again.
            assert reply["code"] == "TXN_EXPIRED", (request, reply)
            polite.ask("ROLLBACK")
            return


def withstand(name: str, daemon: Daemon, seconds: float, limit: int) -> Figures:
    """Attack a daemon, and see that it holds."""
    attack = ATTACKS[name]
    polite = daemon.client()
    assert polite.ask("PUT polite 0") == '{"status": "Ok"}'
    prepare(attack, daemon.port)
    with begin(name, daemon.port, seconds) as attacker:
        try:
            while attacker.poll() is None:
                serve(polite)
            figures = ended(attacker)
        finally:
            attacker.kill()
    assert polite.ask("PUT polite 3") == '{"status": "Ok"}'
    assert polite.ask("GET polite") == '{"status": "Ok", "result": "3"}'
    assert memory(daemon.pid, "VmHWM") / 1024 < limit + SLACK
    assert not re.search("Traceback|Unhandled", daemon.log())
    assert attack.drops or figures.dropped == 0
    return figures


def start(directory: Path, limit: int, *options: str) -> Daemon:
    return Daemon(directory, "--port", "0", "--max-memory", f"{limit}M", *options, lifetime=600)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon on which one attack follows another."""
    with start(tmp_path_factory.mktemp("attacked"), ROOMY) as daemon:
        yield daemon.started()


ALONE = [name for name, attack in ATTACKS.items() if name.startswith(LONG) or attack.options]
"""Those that need a daemon of their own, for they fill its memory or need options."""


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("nothing", *ALONE)])
def test_the_daemon_withstands(name: str, attacked: Daemon) -> None:
    figures = withstand(name, attacked, 0.3, ROOMY)
    assert figures.opened >= ATTACKS[name].connections
    assert figures.sent or name == "connect and close"


@pytest.mark.parametrize("name", ALONE)
def test_a_daemon_alone_withstands(name: str, tmp_path: Path) -> None:
    with start(tmp_path, TIGHT, *ATTACKS[name].options) as daemon:
        figures = withstand(name, daemon.started(), 1.5, TIGHT)
    assert figures.sent


def test_who_is_refused_or_too_slow_is_told_or_dropped(tmp_path: Path) -> None:
    with start(tmp_path, ROOMY, "--max-clients", "100", "--line-time", "0.5") as daemon:
        daemon.started()
        assert "BUSY" in withstand("connect beyond --max-clients", daemon, 0.5, ROOMY).codes
        assert withstand("half a line at one byte a second", daemon, 2, ROOMY).dropped


def test_memory_that_was_given_up_is_of_use_again(attacked: Daemon) -> None:
    client = attacked.client()
    number = 0
    while json.loads(client.ask(f"PUT fill{number} " + "v" * 100_000))["status"] == "Ok":
        number += 1
    assert number > 500
    for each in range(number):
        client.ask(f"DEL fill{each}")
    wait_for(lambda: json.loads(client.ask("PUT small v"))["status"] == "Ok", "free memory to be given back")
    for each in range(1_000):
        assert client.ask(f"PUT small{each} " + "v" * 1_000) == '{"status": "Ok"}'
