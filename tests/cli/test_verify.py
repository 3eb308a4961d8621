"""``kvd verify`` as a process, against servers that lie, and against right ones under all sorts of trouble."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from kvd.cli.connecting import Server, Trouble
from kvd.cli.verify import REPLY_TIME
from kvd.testing import MemoryServer
from kvd.verify.check import check
from kvd.verify.history import History
from tests.support.daemon import LIMIT, Daemon, wait_for
from tests.support.lying_server import NAMES, RIGHT, SWAPPED
from tests.support.scripted_server import ScriptedServer
from tests.test_docs import free_port

KVD = str(Path(sys.executable).with_name("kvd"))
ROOT = Path(__file__).parent.parent
SECONDS = 3
LONG = 60.0
"""Seconds after which a run is given up."""

KINDS = {
    "no read check": {"lost-update", "G-single", "G2-item", "incompatible-order"},
    "no range check": {"G2", "bound"},
    "deletions missed": {"G2"},
    "snapshot taken late": {"late-snapshot", "G-single-realtime"},
    "torn commit": {"G-single", "bank"},
    "acknowledged before stored": {"lost-update", "G-single", "linearizability"},
    "aborted write shows": {"G1a"},
    "applied twice": {"linearizability", "lost-update", "G-single"},
    SWAPPED: {"odd-reply", "garbage-read"},
}
"""What each lie is to be called; one of these is enough."""


class Run(NamedTuple):
    """What a run of ``kvd verify`` came to."""

    status: int
    said: str
    errors: str

    @property
    def found(self) -> set[str]:
        """The kinds of violations that it names."""
        names = re.search(r"^VIOLATED: .* Found: (.*)\.$", self.said, re.MULTILINE)
        return set(names[1].split(", ")) if names else set()

    def number(self, pattern: str) -> int:
        """A figure that it tells."""
        found = re.search(pattern, self.said)
        assert found, self.said
        return int(found[1].replace(",", ""))


def verify(port: int, *options: str) -> Run:
    """Run it to its end."""
    command = [KVD, "verify", "--connect", f"tcp:127.0.0.1:{port}", "--seconds", str(SECONDS), *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG)
    return Run(done.returncode, done.stdout, done.stderr)


@contextmanager
def process(*arguments: str) -> Iterator[int]:
    """A server of a module of the tests; its port. It ends when its standard input does."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()
            server.wait(LIMIT)


def against(name: str) -> Run:
    with process("tests.support.lying_server", name) as port:
        return verify(port)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[Run]]]:
    """A run against each server, right or lying, some of them at a time."""
    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(against, name) for name in NAMES}


def test_each_lie_has_a_name_to_be_called_by() -> None:
    assert {*KINDS, RIGHT} == set(NAMES)


@pytest.mark.parametrize("lie", KINDS)
def test_a_server_that_lies_is_caught_and_the_violation_is_called_by_its_name(
    lie: str, runs: dict[str, Future[Run]]
) -> None:
    run = runs[lie].result(LONG)
    assert run.status == 1, run
    assert run.found & KINDS[lie], run
    assert "What the clients did, in the order in which they began:" in run.said
    assert "What should have been seen: " in run.said


def test_a_right_server_is_not_accused(runs: dict[str, Future[Run]]) -> None:
    run = runs[RIGHT].result(LONG)
    assert run.status == 0, run
    assert run.said.startswith("HELD: ")
    assert run.errors == ""
    assert run.number(r"transactions +([0-9,]+) in") > 100
    assert run.number(r"plain commands +([0-9,]+) in") > 100
    assert run.number(r"\(([0-9,]+) in conflict\)") > 0
    assert run.number(r"undecided keys +([0-9,]+)") == 0


def test_two_runs_side_by_side_do_not_meet_and_nothing_is_left_behind(daemon: Daemon) -> None:
    client = daemon.client()
    client.ask("PUT kvd-verify mine")
    with ThreadPoolExecutor(2) as pool:
        for run in pool.map(lambda seed: verify(daemon.port, "--seed", seed), "77"):
            assert run.status == 0, run
            assert run.number(r"seed ([0-9]+)") == 7
    assert client.ask("COUNT") == '{"status": "Ok", "result": 1}'


@pytest.mark.parametrize("seed", ["1", "2"])
def test_connections_that_break_leave_outcomes_unknown_and_accuse_nobody(daemon: Daemon, seed: str) -> None:
    with process("tests.support.breaking_proxy", str(daemon.port), seed) as port:
        run = verify(port, "--seed", seed)
    assert run.status == 0, run
    assert run.number(r"([0-9,]+) of unknown outcome") > 0
    assert run.number(r"undecided keys +([0-9,]+)") == 0


def started(port: int, condition: Callable[[], object], *options: str) -> subprocess.Popen[str]:
    """Begin a run, and wait until it is in the middle of it."""
    command = [KVD, "verify", "--connect", f"tcp:127.0.0.1:{port}", *options]
    running = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    goes_on(running, condition)
    return running


def goes_on(running: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Wait until a run has come so far, or has ended."""
    wait_for(lambda: condition() or running.poll() is not None, "the run to be under way")


def is_loaded(daemon: Daemon) -> Callable[[], bool]:
    """Whether a good number of transactions was committed."""
    client = daemon.client()
    return lambda: json.loads(client.ask("INFO transactions"))["result"]["committed"] > 100


def test_ctrl_c_ends_it_with_the_verdict_so_far_and_removes_the_keys(daemon: Daemon) -> None:
    running = started(daemon.port, is_loaded(daemon), "--seconds", "1000")
    running.send_signal(signal.SIGINT)
    said, errors = running.communicate(timeout=LIMIT)
    assert (running.returncode, errors) == (0, ""), said
    assert said.startswith("HELD: ")
    assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_a_server_that_goes_away_leaves_nothing_to_be_said(daemon: Daemon) -> None:
    running = started(daemon.port, is_loaded(daemon), "--seconds", "1000")
    daemon.send_signal(signal.SIGKILL)
    said, errors = running.communicate(timeout=LIMIT)
    assert running.returncode == 2, said
    assert "nothing can be said, because " in errors
    assert "keys that begin with kvd-verify:" in errors


def test_a_memory_store_that_was_restarted_has_lost_what_it_acknowledged(tmp_path: Path) -> None:
    port = free_port()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with Daemon(tmp_path / "first", "--port", str(port)) as first:
        first.started()
        running = started(port, is_loaded(first), "--seconds", "1000")
        first.send_signal(signal.SIGKILL)
        first.process.wait(LIMIT)
        with Daemon(tmp_path / "second", "--port", str(port)) as second:
            second.started()
            said, errors = running.communicate(timeout=LIMIT)
    assert running.returncode == 1, said + errors
    assert Run(1, said, "").found & {"G-single-realtime", "linearizability", "incompatible-order", "bank"}, said


@pytest.mark.parametrize("sync", ["always", "5"])
def test_a_daemon_on_a_file_that_is_killed_and_comes_back_has_kept_its_promise(tmp_path: Path, sync: str) -> None:
    options = ("--port", str(free_port()), "--store", f"sqlite:{tmp_path}/kvd.db", "--sync", sync)
    with ExitStack() as daemons:

        def life(number: int) -> Daemon:
            (tmp_path / str(number)).mkdir()
            return daemons.enter_context(Daemon(tmp_path / str(number), *options)).started()

        daemon = life(0)
        running = started(daemon.port, is_loaded(daemon), "--seconds", "1000")
        for number in (1, 2, 3):
            daemon.stop(signal.SIGKILL if number < 3 else signal.SIGTERM)
            daemon = life(number)
            goes_on(running, is_loaded(daemon))
        running.send_signal(signal.SIGINT)
        said, errors = running.communicate(timeout=LIMIT)
        run = Run(running.returncode, said, errors)
        assert run.status == 0, run
        assert run.errors == ""
        assert run.said.startswith("HELD: ")
        assert run.number(r"undecided keys +([0-9,]+)") == 0
        assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_what_cannot_be_reached_is_said_in_one_line() -> None:
    port = free_port()
    run = verify(port)
    assert (run.status, run.said) == (2, "")
    assert run.errors.startswith(f"kvd: tcp:127.0.0.1:{port}: ")
    assert run.errors.count("\n") == 1


def test_a_server_that_lets_no_transaction_commit_proves_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", "--transaction-bytes", "1") as daemon:
        run = verify(daemon.started().port, "--seconds", "1")
    assert run.status == 2, run
    assert "nothing can be said, because not one transaction was committed" in run.errors


@pytest.mark.parametrize("report", ["/nonexistent/x", "/", "/dev/full"])
def test_a_report_that_cannot_be_written_is_told_before_the_server_is_loaded(daemon: Daemon, report: str) -> None:
    run = verify(daemon.port, "--report", report, "--seconds", "1000")
    assert (run.status, run.said) == (2, "")
    assert re.fullmatch(rf"kvd: can't write to {report}: .*\n", run.errors)
    assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_a_server_that_accepts_connections_and_stands_still_counts_as_unreachable() -> None:
    memory = MemoryServer()
    server = Server(memory.clock, memory.endpoint, "memory", REPLY_TIME)
    memory.run(memory.run(server.greeted()).send(b"PING\n"))
    memory.network_delay = lambda from_client: 1e6
    with pytest.raises(Trouble, match="no reply to 'PING' within 5 seconds"):
        memory.run(server.greeted(), limit=6.0)


def test_a_server_that_does_not_speak_kvd_is_called_so() -> None:
    with ScriptedServer(lambda data: b"HTTP/1.1 400 Bad Request\r\n\r\n") as scripted:
        run = verify(scripted.port)
    assert (run.status, run.said) == (2, "")
    assert re.fullmatch(r"kvd: .*: this is not a kvd server: it says .*\n", run.errors)


def test_without_networkx_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "networkx.py").write_text("raise ImportError('No module named networkx')")
    command = [sys.executable, "-m", "kvd", "verify", "--connect", "tcp:127.0.0.1:1"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 2
    assert "pip install 'txkvd[verify]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("lie", ["right", "no read check"])
def test_a_report_holds_all_that_is_needed_to_check_again(lie: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with process("tests.support.lying_server", lie) as port:
        run = verify(port, "--report", str(path), "--seconds", "1")
    report = json.loads(path.read_text())
    assert report["valid"] == (lie == "right") == (run.status == 0)
    assert report["status"] == run.status
    for window in report["windows"]:
        verdict = check(History.from_data(window))
        assert [violation.anomaly for violation in verdict.violations] == [
            violation["anomaly"] for violation in window["violations"]
        ]
    assert sum(len(window["transactions"]) for window in report["windows"]) == sum(
        sum(report[kind].values()) for kind in ("transactions", "commands")
    )


@pytest.mark.parametrize(
    "options", [["--seconds", "0"], ["--seconds", "nan"], ["--clients", "0"], ["--seed", "x"], ["--nosuch", "1"]]
)
def test_options_that_make_no_sense_are_refused(options: list[str]) -> None:
    done = subprocess.run([KVD, "verify", *options], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2
    assert done.stderr.startswith("kvd: ")
