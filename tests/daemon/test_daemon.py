"""A real ``twistd kvd``: started in every way, spoken to with telnet, nc and sockets, refused, signalled, stopped."""

from __future__ import annotations

import os
import pty
import random
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.daemon import LIMIT, TWISTD, Client, Daemon, wait_for

OK = '{"status": "Ok"}'
PONG = '{"status": "Ok", "result": "PONG"}'
NOTHING = '{"status": "Ok", "result": null}'

DIALOGUE = r"""
PUT most_popular_leader georgew
{"status": "Ok"}
START
{"status": "Ok"}
GET most_popular_leader
{"status": "Ok", "result": "georgew"}
PUT georgew {"first_name": "George", "last_name": "Washington", "role": "President"}
{"status": "Ok"}
PUT winstonc {"first_name": "Winston", "last_name": "Churchill", "role": "Prime Minister"}
{"status": "Ok"}
COMMIT
{"status": "Ok"}
GET georgew
{"status": "Ok", "result": "{\"first_name\": \"George\", \"last_name\": \"Washington\", \"role\": \"President\"}"}
""".strip().split("\n")
REQUESTS, REPLIES = DIALOGUE[::2], DIALOGUE[1::2]

# Starts a program as systemd does: its process inherits the socket as descriptor 3, and is told so.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="kvd")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Start(Protocol):
    """Starts a daemon, which has a directory of its own and is ended with the test."""

    def __call__(
        self,
        *options: str,
        twistd: tuple[str, ...] = (),
        daemonize: bool = False,
        through: tuple[str, ...] = (),
        inherit: tuple[int, ...] = (),
    ) -> Daemon: ...


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Start]:
    """Starts a daemon, and does not wait for it."""
    with ExitStack() as daemons:

        def launch(
            *options: str,
            twistd: tuple[str, ...] = (),
            daemonize: bool = False,
            through: tuple[str, ...] = (),
            inherit: tuple[int, ...] = (),
        ) -> Daemon:
            directory = tmp_path / str(len(list(tmp_path.iterdir())))
            directory.mkdir()
            daemon = Daemon(directory, *options, twistd=twistd, daemonize=daemonize, through=through, inherit=inherit)
            return daemons.enter_context(daemon)

        yield launch


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that listens on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), LIMIT).close()
    except ConnectionRefusedError:
        return True
    return False


def nc(daemon: Daemon, data: bytes) -> list[str]:
    """What ``nc -N``, which shuts down its sending side behind the data, prints until the server closes."""
    command = ["nc", "-N", "127.0.0.1", str(daemon.port)]
    return (
        subprocess.run(command, input=data, stdout=subprocess.PIPE, timeout=LIMIT, check=True)
        .stdout.decode()
        .split("\n")
    )


class Telnet:
    """Telnet in a terminal, and somebody who types into it."""

    def __init__(self, port: int) -> None:
        self._terminal, theirs = pty.openpty()
        command = ["telnet", "localhost", str(port)]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.screen = ""

    def __enter__(self) -> Telnet:
        self.see("Escape character is '^]'.\r\n")
        self.screen = ""
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._terminal)

    def type(self, line: str) -> None:
        os.write(self._terminal, line.encode() + b"\n")

    def see(self, end: str) -> None:
        """Wait until the screen ends so."""
        while not self.screen.endswith(end):
            assert select.select([self._terminal], [], [], LIMIT)[0], self.screen
            self.screen += os.read(self._terminal, 65536).decode()


# What people type.


def test_the_dialogue_typed_into_telnet_looks_as_promised(daemon: Daemon) -> None:
    with Telnet(daemon.port) as telnet:
        for request, reply in zip(REQUESTS, REPLIES, strict=True):
            telnet.type(request)
            telnet.see(f"{request}\r\n{reply}\r\n")
        assert telnet.screen == "".join(line + "\r\n" for line in DIALOGUE)
        telnet.type("QUIT")
        telnet.see(f"QUIT\r\n{OK}\r\nConnection closed by foreign host.\r\n")


def test_the_dialogue_piped_through_nc_gets_every_reply_and_then_the_close(daemon: Daemon) -> None:
    assert nc(daemon, "".join(line + "\n" for line in REQUESTS).encode()) == [*REPLIES, ""]


def test_many_requests_piped_through_nc_get_every_reply_and_then_the_close(daemon: Daemon) -> None:
    value = "v" * 50
    requests = [f"PUT k {value}", *["GET k"] * 50_000, "GET none"]
    replies = [OK, *[f'{{"status": "Ok", "result": "{value}"}}'] * 50_000, NOTHING]
    assert nc(daemon, "".join(line + "\n" for line in requests).encode()) == [*replies, ""]


def test_a_line_whose_end_never_came_is_not_executed(daemon: Daemon) -> None:
    assert nc(daemon, b"PUT a 1\nPUT a 2") == [OK, ""]
    assert daemon.client().ask("GET a") == '{"status": "Ok", "result": "1"}'


def test_a_client_killed_in_the_middle_of_a_transaction_leaves_nothing_behind(daemon: Daemon) -> None:
    other = daemon.client()
    assert other.ask("PUT b 1") == OK
    with Telnet(daemon.port) as telnet:
        for request in ("START", "PUT a 1", "DEL b"):
            telnet.type(request)
            telnet.see(f"{request}\r\n{OK}\r\n")
        assert '"open": 1,' in other.ask("INFO transactions")
        assert other.ask("GET a") == NOTHING
        telnet.process.kill()
        wait_for(lambda: '"open": 0,' in other.ask("INFO transactions"), "the end of the transaction")
    assert other.ask("GET a") == NOTHING
    assert other.ask("PUT b 2") == OK
    assert '"old_values": 0' in other.ask("INFO store")  # what b was is kept for no snapshot


# Ways to start it.


def test_in_the_background_it_has_a_pid_file_and_a_log_until_it_is_told_to_stop(launch: Start) -> None:
    daemon = launch("--port", "0", daemonize=True).started()
    assert daemon.pid != daemon.process.pid
    assert daemon.client().ask("PING") == PONG
    daemon.stop()
    assert not daemon.pid_file.exists()
    assert "Traceback" not in daemon.log()


@pytest.mark.parametrize("daemonize", [False, True])
def test_the_log_says_in_one_line_what_listens_where_and_that_memory_forgets(launch: Start, daemonize: bool) -> None:
    daemon = launch("--port", "0", "--listen", "unix:kvd.sock", daemonize=daemonize).started()
    (line,) = (line for line in daemon.log().split("\n") if "listens on" in line)
    address = f"127.0.0.1:{daemon.port}, unix socket kvd.sock"
    assert f" listens on {address}; store memory (memory only: everything is forgotten on exit)" in line


@pytest.mark.parametrize(
    ("name", "shown"), [("poll", "PollReactor"), ("select", "SelectReactor"), ("asyncio", "AsyncioSelectorReactor")]
)
@pytest.mark.parametrize("daemonize", [False, True])
def test_it_runs_on_the_reactor_that_the_user_chose(launch: Start, name: str, shown: str, daemonize: bool) -> None:
    daemon = launch("--port", "0", twistd=("--reactor", name), daemonize=daemonize).started()
    client = daemon.client()
    assert f'"reactor": "{shown}"' in client.ask("INFO server")
    client.send(b"".join(line.encode() + b"\n" for line in REQUESTS))
    assert [client.line() for _ in REPLIES] == REPLIES
    daemon.stop()
    assert client.rest() == b""


@pytest.mark.parametrize("daemonize", [False, True])
def test_it_serves_a_socket_that_systemd_opened(launch: Start, listener: socket.socket, daemonize: bool) -> None:
    through = (sys.executable, "-c", AS_SYSTEMD, str(listener.fileno()))
    options = ("--listen", "systemd:domain=INET:index=0")
    daemon = launch(*options, daemonize=daemonize, through=through, inherit=(listener.fileno(),)).started()
    assert daemon.addresses == [listener.getsockname()]
    assert daemon.client().ask("PING") == PONG


def test_it_listens_on_a_unix_socket_and_removes_it_when_it_stops(launch: Start) -> None:
    daemon = launch("--listen", "unix:kvd.sock").started()
    path = daemon.directory / "kvd.sock"
    assert daemon.client(path).ask("PING") == PONG
    daemon.stop()
    assert not path.exists()


def test_a_unix_socket_that_a_killed_daemon_left_is_taken_over(launch: Start) -> None:
    first = launch("--listen", "unix:kvd.sock").started()
    first.stop(signal.SIGKILL)
    path = first.directory / "kvd.sock"
    second = launch("--listen", f"unix:{path}").started()
    assert second.client(path).ask("PING") == PONG


def test_all_the_endpoints_that_are_named_serve_one_store(launch: Start) -> None:
    daemon = launch("--listen", "unix:one", "--listen", "unix:two", "--listen", "tcp:0:interface=127.0.0.1").started()
    one, two = (daemon.client(daemon.directory / name) for name in ("one", "two"))
    assert one.ask("PUT a 1") == OK
    assert two.ask("GET a") == daemon.client().ask("GET a") == '{"status": "Ok", "result": "1"}'


def test_with_listen_alone_there_is_no_other_port(launch: Start) -> None:
    assert launch("--listen", "unix:kvd.sock").started().addresses == [Path("kvd.sock")]


def test_with_listen_and_port_there_are_both(launch: Start) -> None:
    daemon = launch("--listen", "unix:kvd.sock", "--port", "0").started()
    assert len(daemon.addresses) == 2
    assert daemon.client().ask("PING") == daemon.client(daemon.directory / "kvd.sock").ask("PING") == PONG


# What it refuses.

REFUSED_OPTIONS = [
    (["--port", "http"], "twistd kvd: a port is a number between 0 and 65535, not 'http'"),
    (["--port", "65536"], "twistd kvd: a port is a number between 0 and 65535, not '65536'"),
    (["--store", "nope"], "there is no store 'nope'; there are: memory"),
    (["--store", "memory:x"], "the memory store takes no argument"),
    (["--bogus"], "option --bogus not recognized"),
    (["--listen", "gar:bage"], "can't listen on 'gar:bage'"),
    (["--listen", "tcp:http"], "can't listen on 'tcp:http'"),
    (["--listen", "systemd:domain=INET:index=0"], ": systemd has passed no such socket"),
    (["--listen", "systemd:domain=INET:name=kvd"], ": systemd has passed no such socket"),
    (["--listen", "nope=tcp:0"], "there is no protocol 'nope'; there are: line"),
    (["extra"], "Wrong number of arguments"),
]


def test_on_a_terminal_an_error_is_told_once(listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    told = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "kvd", "--port", str(port)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert told.returncode == 1
    assert told.stdout.count("address already in use") == 1
    assert told.stdout.endswith(f"kvd: can't listen on tcp:{port}:interface=127.0.0.1: address already in use\n")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_a_short_name(option: str, tmp_path: Path) -> None:
    told = subprocess.run([TWISTD, "kvd", option], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert (told.returncode, told.stderr) == (0, "")
    assert "--listen" in told.stdout


REFUSED_ADDRESSES = [
    (["--port", "0", "--interface", "0.0.0.0"], "--open is needed for 0.0.0.0:"),
    (["--port", "0", "--interface", "::"], "--open is needed for [::]:"),
    (["--listen", "tcp:0:interface=0.0.0.0"], "--open is needed for 0.0.0.0:"),
    (["--listen", "tcp:0:0.0.0.0"], "--open is needed for 0.0.0.0:"),
    (["--listen", "line=tcp:port=0:interface="], "--open is needed for 0.0.0.0:"),
    (["--listen", r"tcp:0:interface=\:\:"], "--open is needed for [::]:"),
    (["--listen", "unix:kvd.sock", "--listen", "tcp6:0"], "--open is needed for [::]:"),
    (["--listen", "unix:no/such/directory"], "can't listen on unix:no/such/directory: no such file or directory"),
]


@pytest.mark.parametrize(("options", "why"), REFUSED_OPTIONS)
@pytest.mark.parametrize("daemonize", [False, True])
def test_a_bad_option_ends_with_one_line(launch: Start, options: list[str], why: str, daemonize: bool) -> None:
    daemon = launch(*options, daemonize=daemonize)
    status, said = daemon.refused()
    assert status == 1
    assert said.startswith("twistd kvd: ")
    assert why in said
    assert said.count("\n") == 1
    assert not daemon.log_file.exists()
    assert not daemon.pid_file.exists()


@pytest.mark.parametrize(("options", "why"), REFUSED_ADDRESSES)
def test_an_address_that_it_cannot_have_ends_with_one_line(launch: Start, options: list[str], why: str) -> None:
    daemon = launch(*options)
    status, said = daemon.refused()
    assert status == 1
    assert said.startswith(f"kvd: {why}")
    assert said.count("\n") == 1
    assert why in daemon.log()
    assert "Traceback" not in daemon.log()
    assert not daemon.pid_file.exists()


@pytest.mark.parametrize(("options", "why"), REFUSED_ADDRESSES)
def test_an_address_that_it_cannot_have_is_told_to_who_sent_it_into_the_background(
    launch: Start, options: list[str], why: str
) -> None:
    daemon = launch(*options, daemonize=True)
    status, said = daemon.refused()
    assert status == 1
    # The words around it are twistd's, and so is the second line, which points to the log.
    assert f"An error has occurred: b'kvd.CannotStart: {why}" in said.replace('"', "'").replace("\\'", "'")
    assert said.endswith("\nPlease look at log file for more information.\n")
    assert said.count("\n") == 2
    assert why in daemon.log()
    assert "Traceback" not in daemon.log()
    assert not daemon.pid_file.exists()


@pytest.mark.parametrize("daemonize", [False, True])
def test_a_taken_port_ends_with_its_name_and_the_reason(
    launch: Start, listener: socket.socket, daemonize: bool
) -> None:
    port = listener.getsockname()[1]
    daemon = launch("--port", str(port), daemonize=daemonize)
    status, said = daemon.refused()
    assert status == 1
    assert f"can't listen on tcp:{port}:interface=127.0.0.1: address already in use" in said
    assert said.count("\n") == (2 if daemonize else 1)
    assert not daemon.pid_file.exists()


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_an_address_that_others_can_reach_is_served_if_open_says_so(launch: Start, address: str) -> None:
    daemon = launch("--port", "0", "--interface", address, "--open").started()
    assert daemon.addresses == [(address, daemon.port)]
    assert daemon.client().ask("PING") == PONG


# Signals.


@pytest.mark.parametrize("through", [(), ("nohup",)])
@pytest.mark.parametrize("daemonize", [False, True])
def test_a_hangup_never_stops_it(launch: Start, through: tuple[str, ...], daemonize: bool) -> None:
    daemon = launch("--port", "0", through=through, daemonize=daemonize).started()
    client = daemon.client()
    assert client.ask("PUT a 1") == OK
    for _ in range(3):
        daemon.send_signal(signal.SIGHUP)
        assert client.ask("GET a") == '{"status": "Ok", "result": "1"}'
    assert daemon.client().ask("PING") == PONG


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_a_signal_and_ends_by_it(daemon: Daemon, number: signal.Signals) -> None:
    client = daemon.client()
    assert client.ask("PING") == PONG
    assert daemon.stop(number) == -number  # twistd cleans up, then ends as the signal would have ended it
    assert client.rest() == b""
    assert not daemon.pid_file.exists()
    assert "Traceback" not in daemon.log()


def test_stopping_rolls_back_an_open_transaction_and_closes_its_connection(daemon: Daemon) -> None:
    client = daemon.client()
    for request in ("START", "PUT a 1"):
        assert client.ask(request) == OK
    daemon.stop()
    assert client.rest() == b""
    assert "Traceback" not in daemon.log()


def filled(daemon: Daemon) -> Client:
    """A client that has asked for far more than fits between it and the server, and has read none of it."""
    client = daemon.client()
    client.ask("PUT big " + "v" * 1_000_000)
    client.send(b"GET big\n" * 50)
    other = daemon.client()
    told: list[str] = []  # the counts of calls; once they stay the same the server has stopped to answer
    while len(set(told[-20:])) != 1 or len(told) < 20 or told[-1] == "0":
        told += re.findall(r'"GET": (\d+)', other.ask("INFO commands"))[:1]
    assert int(told[-1]) < 50
    return client


def test_replies_under_way_are_delivered_when_it_stops(daemon: Daemon) -> None:
    client = filled(daemon)
    daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses_connections(daemon.port), "the port to be closed")
    reply = b'{"status": "Ok", "result": "' + b"v" * 1_000_000 + b'"}\n'
    replies = client.rest()
    assert replies
    assert replies == reply * (len(replies) // len(reply))
    assert daemon.stopped() == -signal.SIGTERM


def test_stopping_takes_no_new_clients_and_does_not_wait_for_ever_for_one_that_never_reads(daemon: Daemon) -> None:
    filled(daemon)
    daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses_connections(daemon.port), "the port to be closed")
    assert daemon.runs()
    assert daemon.stopped() == -signal.SIGTERM
    assert "Traceback" not in daemon.log()


# Help, and the log.


def said_by(*options: str) -> str:
    command, environment = [TWISTD, *options], {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=LIMIT, check=True, text=True).stdout


def test_twistd_lists_kvd_among_its_commands() -> None:
    assert "A key/value daemon with interactive, strictly" in said_by("--help")


def test_the_help_names_every_option_and_the_stores() -> None:
    help = said_by("kvd", "--help")
    for option in ("--port=", "--interface=", "--listen=", "--store=", "--open", "--help", "--version"):
        assert f" {option} " in help
    assert "[default: 8765," in help
    assert "[default: 127.0.0.1]" in help
    assert "\n  memory    keeps everything in memory, and forgets it on exit\n" in help
    assert "\n  line      kvd's own lines, for people and programs\n" in help
    assert not [line for line in help.split("\n") if len(line) > 80 or "  " in line.strip().partition("  ")[2].strip()]


def hostile(dice: random.Random) -> list[bytes]:
    """Things that no client should send, each for a connection of its own."""
    names = [b"PUT", b"GET", b"START", b"COMMIT", b"SCAN", b"CAS", b"INCR", b"[", b'["GET"', b"null]", b"\xff", b"HELP"]
    return [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00" + dice.randbytes(500),
        b"[" * 100_000 + b"\n",
        b'["PUT", "k", ' + b"9" * 10_000 + b"]\n",
        b'["PUT", "\\ud800", "v"]\n["GET", NaN]\n["GET", {}]\n[1e999]\n[]\n[\n',
        b"\xff\xfe\x00GET a\n\xed\xa0\x80\n\xc0\x80\n",
        b"PUT k " + b"v" * 7_000_000 + b"\nPING\n",
        b"x" * 7_000_000,
        b"\x00\r\n\r\r\n\n\n   \n\t\n" * 1000,
        b"START\n" * 3000 + b"PUT a 1\nCOMMIT\nCOMMIT\nROLLBACK TO x\n",
        b"START\nSAVEPOINT s\n" + b"SAVEPOINT s\nROLLBACK TO s\n" * 1000 + b"QUIT\nPUT a 1\n",
        b"SCAN LIMIT " + b"9" * 5000 + b"\nINCR k " + b"9" * 5000 + b"\nINCR k \xd9\xa3\n",
        *(dice.randbytes(5000) for _ in range(20)),
        *(b"".join(dice.choice(names) + dice.choice([b" ", b"\n", b", "]) for _ in range(300)) for _ in range(20)),
    ]


def test_whatever_is_sent_the_log_has_no_traceback_and_others_are_served(daemon: Daemon) -> None:
    dice = random.Random(8765)
    for data in hostile(dice):
        for rude in (False, True):
            client = Client(("127.0.0.1", daemon.port))
            try:
                client.send(data)
                if rude:  # gone without a word, replies unread
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                else:
                    client.end()
                    client.rest()
            except ConnectionError:  # the server may close on an HTTP request while more of it is sent
                pass
            client.close()
    client = daemon.client()
    assert client.ask("PING") == PONG
    wait_for(lambda: '"connected": 1,' in client.ask("INFO clients"), "the others to be gone")
    assert '"open": 0,' in client.ask("INFO transactions")
    daemon.stop()
    assert "Traceback" not in daemon.log()
    assert "Unhandled" not in daemon.log()
    assert daemon.said() == ""


# What happens around it.


def test_without_standard_streams_it_goes_into_the_background_and_serves(tmp_path: Path) -> None:
    command = f"exec {TWISTD} --pidfile kvd.pid --logfile kvd.log kvd --listen unix:kvd.sock <&- >&- 2>&-"
    started = subprocess.run(["bash", "-c", command], cwd=tmp_path, timeout=LIMIT)
    assert started.returncode == 0
    try:
        wait_for((tmp_path / "kvd.sock").exists, "the daemon to listen")
        assert Client(tmp_path / "kvd.sock").ask("PING") == PONG
    finally:
        os.kill(int((tmp_path / "kvd.pid").read_text()), signal.SIGTERM)
    wait_for(lambda: not (tmp_path / "kvd.pid").exists(), "the daemon to end")


def test_a_second_request_to_stop_changes_nothing_and_is_not_a_fault(launch: Start) -> None:
    daemon = launch("--port", "0").started()
    client = daemon.client()
    client.ask("PUT big " + "x" * 1_000_000)
    client.send(b"GET big\n" * 8)  # a server that stops waits for it to be read
    wait_for(lambda: '"GET": ' in daemon.client().ask("INFO commands"), "a request to be run")
    daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: "Received SIGTERM" in daemon.log(), "the daemon to stop")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        daemon.send_signal(number)
    assert client.rest().endswith(b"\n")
    daemon.stopped()
    assert "Traceback" not in daemon.log()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.parametrize("log", [(), ("--logfile", "-")])
def test_a_signal_that_others_use_to_rotate_logs_does_not_end_it(
    launch: Start, number: signal.Signals, log: tuple[str, ...], tmp_path: Path
) -> None:
    daemon = launch("--listen", f"unix:{tmp_path}/kvd.sock", twistd=log)
    wait_for((tmp_path / "kvd.sock").exists, "the daemon to listen")
    client = daemon.client(tmp_path / "kvd.sock")
    assert client.ask("PING") == PONG
    daemon.send_signal(number)
    assert client.ask("PING") == PONG


@pytest.mark.parametrize("command", [["twist"], ["python", "-m", "twisted"]])
def test_twist_serves_as_well(command: list[str], tmp_path: Path) -> None:
    path = Path(sys.executable).with_name(command[0])
    process = subprocess.Popen(
        [path, *command[1:], "kvd", "--listen", f"unix:{tmp_path}/kvd.sock"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for((tmp_path / "kvd.sock").exists, "the daemon to listen")
        assert Client(tmp_path / "kvd.sock").ask("PING") == PONG
    finally:
        process.terminate()
        told, _ = process.communicate(timeout=LIMIT)
    assert b" listens on " in told
    assert b"Traceback" not in told


def test_the_start_up_line_says_whether_the_core_is_compiled(launch: Start) -> None:
    log = launch("--port", "0").started().log()
    compiled = '"compiled": true' in Daemon.client(launch("--port", "0").started()).ask("INFO server")
    assert ("; core compiled" in log) == compiled
    assert ("; core not compiled, which is several times slower" in log) != compiled


# UNIX sockets that were left behind.


def left_behind(launch: Start, path: Path) -> None:
    """Have a daemon die without a chance to remove its socket."""
    daemon = launch("--listen", f"unix:{path}").started()
    daemon.send_signal(signal.SIGKILL)
    daemon.stopped()
    assert path.is_socket()


@pytest.mark.parametrize("lock", ["own", "living", "gone"])
def test_a_socket_that_a_killed_daemon_left_behind_is_replaced(launch: Start, tmp_path: Path, lock: str) -> None:
    path = tmp_path / "kvd.sock"
    left_behind(launch, path)
    there = Path(f"{path}.lock")
    if lock != "own":
        there.unlink()
    if lock == "living":  # in a container, each run has the same number
        there.symlink_to(str(os.getpid()))
    daemon = launch("--listen", f"unix:{path}").started()
    assert daemon.client(path).ask("PING") == PONG


def test_the_lock_alone_is_no_obstacle(launch: Start, tmp_path: Path) -> None:
    path = tmp_path / "kvd.sock"
    Path(f"{path}.lock").symlink_to(str(os.getpid()))
    daemon = launch("--listen", f"unix:{path}").started()
    assert daemon.client(path).ask("PING") == PONG


@pytest.mark.parametrize("lock", [True, False])
def test_the_socket_of_a_living_server_is_never_taken(launch: Start, tmp_path: Path, lock: bool) -> None:
    path = tmp_path / "kvd.sock"
    living = launch("--listen", f"unix:{path}").started()
    if not lock:
        Path(f"{path}.lock").unlink()
    outcome = launch("--listen", f"unix:{path}").refused()
    assert outcome.status == 1
    assert f"can't listen on unix:{path}: " in outcome.said
    assert living.client(path).ask("PING") == PONG


def test_a_file_that_is_not_a_socket_is_left_alone(launch: Start, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert launch("--listen", f"unix:{path}").refused().status == 1
    assert path.read_text() == "data"


# Limits that the system sets.


def test_too_few_open_files_lower_the_limit_on_clients_and_the_rest_are_told(launch: Start) -> None:
    daemon = launch("--port", "0", through=("bash", "-c", 'ulimit -n 80; exec "$@"', "bash")).started()
    assert "at most 16 clients at a time, not 10000: this process may have 80 open files" in daemon.log()
    clients = [daemon.client() for _ in range(16)]
    for client in clients:
        assert client.ask("PING") == PONG
    for _ in range(100):
        late = daemon.client()
        assert b'"code": "BUSY"' in late.rest()
        late.close()
    assert '"limit": 16' in clients[0].ask("INFO clients")
    assert '"refused": 100' in clients[0].ask("INFO clients")
    assert len(daemon.log()) < 5000


def test_a_burst_of_connections_does_not_pass_the_limit(launch: Start) -> None:
    daemon = launch("--port", "0", "--max-clients", "5").started()
    daemon.send_signal(signal.SIGSTOP)
    clients = [daemon.client() for _ in range(60)]
    for client in clients:
        client.send(b"PING\n")
    daemon.send_signal(signal.SIGCONT)
    told = [client.line() for client in clients]
    assert told.count(PONG) == 5
    assert all('"code": "BUSY"' in line for line in told if line != PONG)


# The end of a connection: nothing that was answered is lost.


@pytest.mark.parametrize("end", [b"QUIT\n", b"GET / HTTP/1.1\n"])
def test_replies_arrive_although_more_was_sent_than_the_server_has_read(daemon: Daemon, end: bytes) -> None:
    client = daemon.client()
    client.ask("PUT big " + "x" * 1_000_000)
    client.send(b"GET big\n" * 8 + end + b"PUT big lost\n" * 20_000)
    replies = client.rest()
    assert len(replies) > 8_000_000
    assert replies.count(b"\n") == 9
    assert daemon.client().ask("COUNT") == '{"status": "Ok", "result": 1}'
    assert daemon.client().ask("GET big").count("x") == 1_000_000


def test_replies_arrive_although_the_server_stops_with_input_unread(launch: Start) -> None:
    daemon = launch("--port", "0").started()
    client = daemon.client()
    client.ask("PUT big " + "x" * 1_000_000)
    client.send(b"GET big\n" * 4)
    wait_for(lambda: '"GET": 4' in daemon.client().ask("INFO commands"), "the requests to be run")
    client.send(b"PUT big late\n" * 20_000)
    daemon.send_signal(signal.SIGTERM)
    replies = client.rest()
    assert replies.count(b"x" * 1_000_000) == 4
    daemon.stopped()


def test_a_limit_on_the_address_space_is_seen(launch: Start) -> None:
    daemon = launch("--port", "0", through=("bash", "-c", 'ulimit -v 4000000; exec "$@"', "bash")).started()
    assert f'"memory_limit": {4_000_000 * 1024 // 2}, ' in daemon.client().ask("INFO store")
