"""``kvd bench``: its engine over memory, and all of it against a real daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.usage import UsageError

from kvd.cli.batches import Batch, Connection, Kind
from kvd.cli.bench import Options, figures, show
from kvd.cli.workload import KINDS, STALL, Bench, Load, Result
from kvd.testing import MemoryServer
from tests.support.daemon import LIMIT, Daemon
from tests.support.scripted_server import ScriptedServer

KVD = str(Path(sys.executable).with_name("kvd"))

# A connection, between bytes and bytes.


class Wire:
    """A connection with a transport that only remembers what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.errors: list[bytes] = []
        self.kind = Kind("get")
        self.connection = Connection(self.errors.append)
        self.connection.connection_made(self)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        """Nothing; it has to be there."""

    def work(self, *batches: tuple[bytes, bytes]) -> list[Any]:
        """Give it batches to send; what its Deferred ends with goes to the list."""
        ended: list[Any] = []
        work = iter([Batch(self.kind, 1, first, second) for first, second in batches])
        self.connection.work(work).addBoth(ended.append)
        return ended

    def receive(self, *data: bytes) -> None:
        for piece in data:
            self.connection.data_received(piece)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_a_batch_is_sent_when_every_line_of_the_one_before_it_is_answered(wire: Wire) -> None:
    ended = wire.work((b"a\nb\n", b""), (b"c\n", b""))
    wire.receive(b"1\n")
    assert (wire.written, wire.kind.requests) == ([b"a\nb\n"], 0)
    wire.receive(b"2\n")
    assert (wire.written, wire.kind.requests, ended) == ([b"a\nb\n", b"c\n"], 1, [])
    wire.receive(b"3\n")
    assert (wire.kind.requests, ended) == (2, [None])


def test_the_writes_of_a_transaction_wait_for_its_reads_and_it_is_measured_whole(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvd.cli.batches.time", SimpleNamespace(perf_counter=iter([10.0, 13.0]).__next__))
    ended = wire.work((b"r\nr\n", b"w\n"))
    wire.receive(b"1\n")
    assert wire.written == [b"r\nr\n"]
    wire.receive(b"2\n")
    assert (wire.written, ended, wire.kind.latencies) == ([b"r\nr\n", b"w\n"], [], {})
    wire.receive(b"3\n")
    assert (ended, wire.kind.latencies) == ([None], {3_000_000: 1})


ERROR = b'{"status": "Error", "mesg": "m", "code": "BUSY"}\n'


@pytest.mark.parametrize("cut", range(1, len(ERROR)))
def test_an_error_is_noticed_however_it_is_cut_into_pieces(wire: Wire, cut: int) -> None:
    ended = wire.work((b"a\nb\nc\n", b""))
    wire.receive(b'{"status": "Ok"}\n' + ERROR[:cut], ERROR[cut:] + b'{"status"', b': "Ok"}\n')
    assert ended == [None]
    assert b"".join(wire.errors).count(ERROR) == 1


def test_a_value_that_quotes_an_error_is_none(wire: Wire) -> None:
    reply = json.dumps({"status": "Ok", "result": ERROR.decode()}).encode() + b"\n"
    wire.work((b"a\n", b""))
    wire.receive(reply)
    assert wire.errors == []


def test_work_fails_when_the_connection_is_lost_before_or_meanwhile(wire: Wire) -> None:
    meanwhile = wire.work((b"a\n", b""))
    wire.connection.connection_lost(None)
    afterwards = wire.work((b"a\n", b""))
    for ended in (meanwhile, afterwards):
        assert "closed" in str(ended[0].value)


# The phases, with the real server over memory.


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def bench_of(server: MemoryServer, **load: Any) -> Bench:
    bench = Bench(server.clock, server.endpoint, Load(**load))
    server.run(bench.connect())
    return bench


def asked(server: MemoryServer, *request: str) -> Any:
    return server.run(server.connect().call(*request))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pipeline", [1, 7])
def test_each_kind_does_what_it_says_without_an_error(server: MemoryServer, kind: str, pipeline: int) -> None:
    bench = bench_of(server, clients=3, requests=50, mix=(kind,), keys=20, pipeline=pipeline)
    server.run(bench.fill())
    result = server.run(bench.run())
    assert 50 <= result.requests < 50 + pipeline
    assert result.errors == {}
    calls = asked(server, "INFO")["commands"]["calls"]
    assert calls["COMMIT" if kind == "transaction" else kind.upper()] >= result.requests


def test_a_mix_gives_each_kind_its_turns(server: MemoryServer) -> None:
    bench = bench_of(server, clients=2, requests=40, mix=("get", "put", "get", "transaction"), keys=20)
    server.run(bench.fill())
    result = server.run(bench.run())
    assert {kind.name: kind.requests for kind in result.kinds} == {"get": 20, "put": 10, "transaction": 10}


def test_clients_begin_with_different_kinds(server: MemoryServer) -> None:
    bench = bench_of(server, clients=3, requests=3, mix=("get", "put", "incr"), keys=20)
    assert [kind.requests for kind in server.run(bench.run()).kinds] == [1, 1, 1]


def test_what_is_read_is_there_and_has_the_size_that_was_asked_for(server: MemoryServer) -> None:
    bench = bench_of(server, clients=2, mix=("get",), keys=5, value_size=1000, prefix="p:")
    server.run(bench.fill())
    items = asked(server, "SCAN")["items"]
    assert len(items) == 5
    assert all(key.startswith("p:") and len(value) == 1000 for key, value in items)


def test_it_removes_its_keys_and_no_others(server: MemoryServer) -> None:
    asked(server, "PUT", "mine", "1")
    bench = bench_of(server, clients=3, requests=200, keys=30)
    server.run(bench.fill())
    server.run(bench.run())
    assert asked(server, "COUNT") > 60
    server.run(bench.remove())
    assert asked(server, "SCAN", "KEYS")["items"] == ["mine"]


def test_clients_do_not_get_into_each_others_transactions(server: MemoryServer) -> None:
    server.network_delay = lambda from_client: 0.001
    bench = bench_of(server, clients=10, requests=300, mix=("transaction", "put"), keys=20)
    server.run(bench.fill())
    assert server.run(bench.run()).errors == {}


def test_errors_are_counted_by_code_with_an_example(server: MemoryServer) -> None:
    server.network_delay = lambda from_client: 0.001
    bench = bench_of(server, clients=10, requests=100, mix=("transaction",), keys=1)  # all want the same key
    server.run(bench.fill())
    result = server.run(bench.run())
    assert result.requests == 100
    assert 0 < result.errors["CONFLICT"] < 100
    assert "was changed" in json.loads(result.examples["CONFLICT"])["mesg"]


def test_a_lost_connection_ends_it_and_the_others_still_remove_the_keys(server: MemoryServer) -> None:
    bench = bench_of(server, clients=2, requests=10**9, keys=10)
    server.run(bench.fill())
    server.network_delay = lambda from_client: 0.001
    server.clock.callLater(1.0, bench.connections[0].close)
    with pytest.raises(ConnectionDone):
        server.run(bench.run())
    server.run(bench.remove())
    assert asked(server, "COUNT") == 0


def test_it_can_be_ended_early(server: MemoryServer) -> None:
    server.network_delay = lambda from_client: 0.001
    bench = bench_of(server, clients=2, requests=10**9, keys=10)
    server.run(bench.fill())
    server.clock.callLater(1.0, bench.stop)
    assert 100 < server.run(bench.run()).requests < 10**6


# What is told.


def test_percentiles_are_the_latencies_that_so_many_did_not_exceed() -> None:
    kind = Kind("get", latencies={100: 50, 300: 1, 200: 49})
    assert [kind.percentile(percent) for percent in (50, 51, 99, 100)] == [1e-4, 2e-4, 2e-4, 3e-4]
    assert Kind("get").percentile(50) == 0


def options(*words: str) -> Options:
    parsed = Options()
    parsed.parseOptions(words)
    return parsed


@pytest.mark.parametrize(("cpu_seconds", "warns"), [(1.0, False), (1.97, True)])
def test_it_says_when_it_was_the_limit_itself(
    capsys: pytest.CaptureFixture[str], cpu_seconds: float, warns: bool
) -> None:
    result = Result([Kind("get", 10, {5: 10})], seconds=2.0, cpu_seconds=cpu_seconds)
    show(figures(options(), result, "uvloop"))
    assert ("98% of a core" in capsys.readouterr().out) == warns


@pytest.mark.parametrize(
    "words", [["--mix=get,nosuch"], ["--mix="], ["--clients=0"], ["--pipeline=x"], ["--value-size=1X"], ["extra"]]
)
def test_options_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        options(*words)


# The command.


def kvd_bench(port: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [KVD, "bench", f"--connect=tcp:localhost:{port}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


def test_its_figures_are_shown_and_written_as_json(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = kvd_bench(daemon.port, "--requests=400", "--keys=100", "--clients=5", "--mix=get,incr", f"--json={file}")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(file.read_text())
    assert (found["requests"], found["clients"], found["mix"], found["errors"]) == (400, 5, ["get", "incr"], {})
    assert sum(kind["requests"] for kind in found["kinds"].values()) == 400
    assert found["per_second"] == pytest.approx(400 / found["seconds"])
    for name, kind in found["kinds"].items():
        latencies = list(kind["latency_ms"].values())
        assert list(kind["latency_ms"]) == ["p50", "p90", "p99", "p99.9", "max"]
        assert 0 < latencies[0] <= latencies[-1]
        assert latencies == sorted(latencies)
        assert re.search(rf"^{name} +{kind['requests']} ", done.stdout, re.MULTILINE)
    client = daemon.client()
    calls = json.loads(client.ask("INFO"))["result"]["commands"]["calls"]
    assert calls["INCR"] == found["kinds"]["incr"]["requests"]
    assert client.ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_error_replies_are_told_and_its_status_is_1(daemon: Daemon) -> None:
    done = kvd_bench(daemon.port, "--requests=10", "--mix=put", "--value-size=2M", "--keys=2", "--clients=1")
    assert done.returncode == 1
    assert re.search(
        r"^12 replies were errors with the code TOO_LARGE, such as \{.*2097152.*\}$", done.stdout, re.MULTILINE
    )


def test_an_interrupt_ends_it_early_with_figures_and_its_keys_removed(daemon: Daemon) -> None:
    command = [KVD, "bench", f"--connect=tcp:localhost:{daemon.port}", "--requests=1000000000", "--keys=100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(LIMIT, process.kill)
        guard.start()
        assert process.stderr is not None
        assert "a second" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
        guard.cancel()
    assert process.returncode == 0
    assert re.search(r"^all +[1-9]", out, re.MULTILINE)
    assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_it_speaks_over_a_unix_socket_too(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--listen", "unix:s") as daemon:
        daemon.started()
        done = subprocess.run(
            [KVD, "bench", "--connect=unix:s", "--requests=50", "--keys=50"],
            cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_its_status_is_2_with_one_line_if_there_is_no_server() -> None:
    done = kvd_bench(1)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"kvd: tcp:localhost:1: .*refused.*\n", done.stderr)


def test_its_status_is_2_with_one_line_if_that_is_not_a_kvd_server() -> None:
    with ScriptedServer(lambda data: b"-ERR nonsense\r\n") as scripted:
        done = kvd_bench(scripted.port)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"kvd: .*this is not a kvd server.*nonsense.*\n", done.stderr)


def test_it_says_why_if_the_server_closes_a_connection_and_that_keys_are_left() -> None:
    answers = {b"PING\n": b'{"status": "Ok", "result": "PONG"}\n'}
    with ScriptedServer(lambda data: answers.get(data, b"")) as scripted:
        done = kvd_bench(scripted.port, "--clients=1", "--keys=1")
    assert (done.returncode, done.stdout) == (2, "")
    left, why = done.stderr.splitlines()
    assert re.fullmatch(r"kvd: keys that begin with kvd-bench:\w+: are left on the server", left)
    assert re.fullmatch(r"kvd: .*: the server closed a connection", why)


def test_a_server_that_is_full_says_so(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", "--max-clients", "3") as daemon:
        done = kvd_bench(daemon.started().port, "--clients=4", "--requests=10", "--keys=10")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1].endswith("the server has 3 clients, which is its limit; try again later")
        assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_a_server_that_stands_still_is_given_up_and_told_of(server: MemoryServer) -> None:
    bench = bench_of(server, clients=3, requests=10**9, keys=10)
    server.run(bench.fill())
    begun = server.clock.seconds()
    server.network_delay = lambda from_client: 1e6
    with pytest.raises(TimeoutError, match="no reply within 60 seconds"):
        server.run(bench.run())
    assert server.clock.seconds() - begun < STALL + 3
    with pytest.raises(ConnectionError):
        server.run(bench.remove())


def test_a_slow_server_is_not_given_up(server: MemoryServer) -> None:
    server.network_delay = lambda from_client: STALL / 3
    bench = bench_of(server, clients=2, requests=10, keys=10)
    server.run(bench.fill())
    assert server.run(bench.run()).requests >= 10


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupt_ends_it_while_the_server_stands_still(daemon: Daemon, interrupts: int) -> None:
    command = [KVD, "bench", f"--connect=127.0.0.1:{daemon.port}", "--requests=1000000000", "--keys=100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "a second" in process.stderr.readline()
        daemon.send_signal(signal.SIGSTOP)
        try:
            process.send_signal(signal.SIGINT)
            if interrupts == 2:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
                process.send_signal(signal.SIGINT)
            status = process.wait(LIMIT)
        finally:
            daemon.send_signal(signal.SIGCONT)
        said = process.stderr.read()
    assert "Traceback" not in said
    if interrupts == 2:
        assert status == -signal.SIGINT
    else:
        assert status == 130
        assert re.search(
            r"^kvd: keys that begin with kvd-bench:\w+: are left on the server\nkvd: interrupted\n$", said, re.M
        )


@pytest.mark.parametrize("file", ["/nonexistent/x", "/", "/proc/version/x", "/sys/kernel/x"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(daemon: Daemon, file: str) -> None:
    done = kvd_bench(daemon.port, "--requests=100000000", f"--json={file}")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"kvd: can't write to {file}: .*\n", done.stderr)
    assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_a_disk_that_is_full_is_told_after_the_figures(daemon: Daemon) -> None:
    done = kvd_bench(daemon.port, "--requests=100", "--keys=10", "--json=/dev/full")
    assert done.returncode == 2
    assert re.search(r"^all +[1-9]", done.stdout, re.MULTILINE)
    assert re.fullmatch(r"kvd: can't write to /dev/full: .*\n", done.stderr)


@pytest.mark.parametrize("subcommand", ["bench", "verify"])
def test_more_clients_than_the_system_allows_files_are_refused_before_it_begins(
    daemon: Daemon, subcommand: str
) -> None:
    command = f"ulimit -n 64; exec {KVD} {subcommand} --connect=127.0.0.1:{daemon.port} --clients=100"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"kvd: --clients 100 needs \d+ open files, and the limit is 64 .*\n", done.stderr)
    assert json.loads(daemon.client().ask("INFO"))["result"]["clients"]["accepted"] == 1


def test_more_clients_than_open_files_are_allowed_for(daemon: Daemon) -> None:
    command = f"ulimit -Sn 64; exec {KVD} bench --connect=tcp:localhost:{daemon.port} --clients=100 --requests=200"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=LIMIT, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
