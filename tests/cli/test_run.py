"""``kvd run`` and ``python -m kvd``, as processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kvd as package
from tests.support.daemon import LIMIT, Daemon
from tests.support.scripted_server import ScriptedServer

KVD = str(Path(sys.executable).with_name("kvd"))
OK = b'{"status": "Ok"}\n'


def kvd(*arguments: str | bytes, stdin: str = "", module: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvd"] if module else [KVD]
    return subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, timeout=LIMIT)


def server(daemon: Daemon | ScriptedServer) -> str:
    return f"--connect=127.0.0.1:{daemon.port}"


def told(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line that a run ended with."""
    assert done.returncode == status, done
    assert done.stderr.startswith("kvd: "), done
    assert done.stderr.count("\n") == 1, done
    return done.stderr


@pytest.mark.parametrize("module", [False, True])
def test_it_prints_the_reply_to_each_command(daemon: Daemon, module: bool) -> None:
    done = kvd("run", server(daemon), "PUT b 2", "GET b", '["GET", "é"]', module=module)
    assert done.stdout == '{"status": "Ok"}\n{"status": "Ok", "result": "2"}\n{"status": "Ok", "result": null}\n'
    assert (done.returncode, done.stderr) == (0, "")


def test_its_status_is_1_if_a_reply_was_an_error_and_it_goes_on_after_it(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), "NOSUCH", "PING")
    assert done.stdout.endswith('{"status": "Ok", "result": "PONG"}\n')
    assert done.returncode == 1


def test_all_commands_share_one_connection(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), "START", "PUT a 1", "COMMIT", "GET a")
    assert done.stdout.splitlines()[-1] == '{"status": "Ok", "result": "1"}'


# Lines.


def test_without_commands_it_reads_them_from_standard_input(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), stdin="PUT a  1 \r\n\n   \nGET a\nPING last")
    assert done.stdout == '{"status": "Ok"}\n{"status": "Ok", "result": " 1 "}\n{"status": "Ok", "result": "last"}\n'
    assert done.returncode == 0


def test_without_anything_to_do_it_does_nothing(daemon: Daemon) -> None:
    done = kvd("run", server(daemon))
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("blank", ["\r\n", "  \r\n", "\n", "   \n", "\r", " "])
def test_a_line_without_a_word_is_skipped(daemon: Daemon, blank: str) -> None:
    done = kvd("run", server(daemon), stdin=f"PING a\n{blank}")
    assert (done.stdout, done.returncode) == ('{"status": "Ok", "result": "a"}\n', 0)


def test_what_the_server_takes_for_a_line_is_sent(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), stdin="\r\r\n\t\nPING\n")
    assert done.stdout.count("UNKNOWN_COMMAND") == 2
    assert done.stdout.endswith('"PONG"}\n')


@pytest.mark.parametrize("first", ["PING a\n", "\r\nPING a\n", "PING a"])
def test_a_utf8_mark_at_the_start_of_a_file_is_not_part_of_its_first_command(daemon: Daemon, first: str) -> None:
    done = kvd("run", server(daemon), stdin=f"\ufeff{first}")
    assert (done.stdout, done.returncode) == ('{"status": "Ok", "result": "a"}\n', 0)


def test_a_utf8_mark_anywhere_else_is_sent(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), stdin="PING \ufeffa\n\ufeffPING b\n")
    assert done.stdout.startswith('{"status": "Ok", "result": "\\ufeffa"}\n')
    assert "UNKNOWN_COMMAND" in done.stdout


@pytest.mark.parametrize("command", ["", "  ", "\r", " \r", "PING\nPING", b"PUT a \xff", "--timeout", "-c"])
def test_what_cannot_be_a_command_is_refused_before_anything_is_sent(command: str | bytes) -> None:
    with ScriptedServer(lambda data: OK) as scripted:
        done = kvd("run", server(scripted), "PUT a 1", command)
    assert (told(done), done.stdout, scripted.received) == (done.stderr, "", b"")


def test_standard_input_that_is_not_utf8_gets_the_servers_reply(daemon: Daemon) -> None:
    command = [KVD, "run", server(daemon)]
    done = subprocess.run(command, input=b"PUT a \xff\nPING\n", capture_output=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (1, b"")
    assert done.stdout.startswith(b'{"status": "Error", "mesg": "the line is not valid UTF-8')


# Servers.


@pytest.mark.parametrize(
    "name", ["127.0.0.1:{}", "tcp:127.0.0.1:{}", "localhost:{}", "tcp:localhost:{}", "tcp:host=127.0.0.1:port={}"]
)
def test_a_server_is_a_host_and_a_port_or_an_endpoint(daemon: Daemon, name: str) -> None:
    done = kvd("run", "-c", name.format(daemon.port), "PING")
    assert (done.stdout, done.stderr) == ('{"status": "Ok", "result": "PONG"}\n', "")


def test_a_server_may_be_at_an_address_with_colons(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", "--interface", "::1") as daemon:
        port = daemon.started().port
        for name in (f"[::1]:{port}", f"tcp:\\:\\:1:{port}"):
            assert kvd("run", "-c", name, "PING").stdout == '{"status": "Ok", "result": "PONG"}\n', name


@pytest.mark.parametrize("name", ["127.0.0.1", "[::1]", "::1"])
def test_the_port_of_a_host_is_8765_unless_it_is_given(name: str) -> None:
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with socket.socket(family) as probe:
        taken = probe.connect_ex((name.strip("[]"), 8765)) == 0
    if not taken:
        assert "refused" in told(kvd("run", "-c", name, "PING"))


@pytest.mark.parametrize(
    "name",
    [
        "tcp:localhost:1", "localhost:1", "unix:/nowhere/at/all", "unix:" + "/x" * 60, "unix:" + "x" * 108, "unix:",
        "unix", "localhost:99999", "tcp:localhost:99999", "tcp:localhost:-1", "tcp:localhost:x", "localhost:", ":8765",
        "tcp:localhost", "tcp", "tcp:", "", "tcp:x..y:1", "x..y", "x" * 64 + ":1", "nosuch:x:y", "[::1", "[::1]:x",
        "tcp:localhost:1:2:3:4:5", "tcp:localhost:1:nosuch=2", "localhost:0", "\x7f:1", "a b:1", "::1]", "\udcff:1",
        "localhost:" + "9" * 5000, "tcp:localhost:" + "9" * 5000,
    ],
)  # fmt: skip
def test_its_status_is_2_with_one_line_if_there_is_no_such_server(name: str) -> None:
    done = kvd("run", "--timeout", "5", "--connect", name, "PING")
    assert done.stdout == ""
    assert told(done).startswith(f"kvd: {name}: " if name.isprintable() else "kvd: ")


def test_a_path_that_is_too_long_for_a_socket_is_called_so() -> None:
    assert "107 bytes" in told(kvd("run", "-c", "unix:" + "x" * 108, "PING"))


@pytest.mark.parametrize(
    "says",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"<!DOCTYPE HTML>\n<html></html>\n", b"-ERR\r\n",
        b"null\n", b"[]\n", b"{}\n", b'{"status": "Error"}\n', b"\xff\x00\n", b"\n", b"[" * 100_000 + b"\n",
    ],
)  # fmt: skip
def test_what_is_not_a_kvd_server_is_called_so(says: bytes) -> None:
    with ScriptedServer(lambda data: says) as scripted:
        done = kvd("run", server(scripted), "GET a", "PUT a 1")
    assert "this is not a kvd server: it says " in told(done)
    assert (done.stdout, scripted.received) == ("", b"GET a\n")


def test_what_speaks_first_is_not_a_kvd_server() -> None:
    with ScriptedServer(greeting=b"SSH-2.0-OpenSSH_9.2\r\n") as scripted:
        assert "SSH-2.0" in told(kvd("run", server(scripted), "GET a"))


def test_a_server_that_is_full_says_so(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", "--max-clients", "1") as daemon:
        daemon.started().client().ask("PING")
        done = kvd("run", server(daemon), "PUT a 1", "PUT b 2")
    assert "try again later" in told(done)
    assert done.stdout == ""


@pytest.mark.parametrize("code", ["IDLE", "BUSY"])
def test_a_server_that_closes_says_why_and_no_request_gets_that_for_its_reply(code: str) -> None:
    closing = b'{"status": "Error", "mesg": "the reason", "code": "%s"}\n' % code.encode()
    with ScriptedServer(lambda data: OK + closing if b"a" in data else None) as scripted:
        done = kvd("run", "--timeout", "5", server(scripted), "PUT a 1", "PUT b 2")
    assert done.stdout == OK.decode()
    assert "the reason; 'PUT b 2' was not " in told(done)


@pytest.mark.parametrize("part", [b"", b'{"status": "O'])
def test_a_server_that_closes_is_told_of_with_what_was_not_sent(part: bytes) -> None:
    answers = iter([OK, part])
    with ScriptedServer(lambda data: next(answers), greeting=b"") as scripted:
        done = kvd("run", "--timeout", "1", server(scripted), "PUT a 1", "PUT b 2", "PUT c 3")
    assert done.stdout == OK.decode()
    assert "'PUT b 2'" in told(done)
    assert "may or may not have been stored" in told(done)


def test_commands_after_a_quit_are_not_sent_and_that_is_said(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), "QUIT", "PUT a 1")
    assert done.stdout == '{"status": "Ok"}\n'
    assert "'PUT a 1' was not sent" in told(done)
    assert kvd("run", server(daemon), "GET a").stdout == '{"status": "Ok", "result": null}\n'


# Time.


@pytest.mark.parametrize(
    ("command", "fate"),
    [
        ("PUT a 1", "the change may or may not have been stored"),
        ('["incr", "a"]', "the change may or may not have been stored"),
        ("NEWER a", "the change may or may not have been stored"),
        ("GET a", "nothing was changed"),
    ],
)
def test_a_daemon_that_stands_still_is_waited_for_no_longer_than_asked(daemon: Daemon, command: str, fate: str) -> None:
    daemon.send_signal(signal.SIGSTOP)
    try:
        done = kvd("run", "--timeout", "0.3", server(daemon), command)
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert f"no reply to {command!r} within 0.3 seconds" in told(done)
    assert fate in told(done)


@pytest.mark.parametrize(
    ("commands", "fate"),
    [
        (("START", "PUT a 1"), "the transaction is rolled back"),
        (("START", "PUT a 1", "COMMIT"), "the transaction may or may not have been stored"),
        (("START", "COMMIT", "PUT a 1"), "the change may or may not have been stored"),
        (("START", "ROLLBACK TO s", "PUT a 1"), "the transaction is rolled back"),
        (("START", "ROLLBACK", "GET a"), "nothing was changed"),
    ],
)
def test_what_a_reply_that_never_came_means_depends_on_the_transaction(commands: tuple[str, ...], fate: str) -> None:
    last = commands[-1].encode()
    with ScriptedServer(lambda data: None if last in data else OK) as scripted:
        done = kvd("run", "--timeout", "0.3", server(scripted), *commands)
    assert fate in told(done)
    assert done.stdout == OK.decode() * (len(commands) - 1)


def test_a_server_that_drips_is_waited_for_no_longer_than_asked() -> None:
    def drip(data: bytes) -> bytes | None:
        for _ in range(20):
            client = scripted.clients[0]
            client.sendall(b" ")
            time.sleep(0.1)
        return None

    with ScriptedServer(drip) as scripted:
        assert "no reply to 'GET a' within 0.5 seconds" in told(
            kvd("run", "--timeout", "0.5", server(scripted), "GET a")
        )


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x", ""])
def test_a_timeout_is_a_number_of_seconds(seconds: str) -> None:
    assert "Parameter" not in told(kvd("run", "--timeout", seconds, "PING"))


def test_an_interrupt_while_it_waits_for_a_reply_says_what_that_means() -> None:
    with (
        ScriptedServer() as scripted,
        subprocess.Popen([KVD, "run", server(scripted), "PUT a 1"], stderr=subprocess.PIPE, text=True) as process,
    ):
        end = time.monotonic() + LIMIT
        while not scripted.received and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert errors.startswith("kvd: interrupted")
    assert "may or may not have been stored" in errors
    assert errors.count("\n") == 1


def test_an_interrupt_while_it_waits_for_a_command_ends_it_at_once(daemon: Daemon) -> None:
    with subprocess.Popen(
        [KVD, "run", server(daemon)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"PING\n")
        assert process.stdout.readline().endswith(b'"PONG"}\n')
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
        assert process.stderr
        assert process.stderr.read() == b"kvd: interrupted\n"


# Its own input and output.


def test_a_reader_that_has_gone_is_an_error_of_one_line(daemon: Daemon) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [KVD, "run", server(daemon), "PING", "PUT a 1"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
    )
    os.close(writing)
    assert "standard output" in told(done)
    assert daemon.client().ask("GET a") == '{"status": "Ok", "result": null}'


@pytest.mark.parametrize("arguments", [["run", "-c", "{}", "PING"], ["--help"], ["run", "--help"], ["--version"]])
@pytest.mark.parametrize("output", ["/dev/full", None])
def test_output_that_cannot_be_written_is_an_error_of_one_line(
    daemon: Daemon, arguments: list[str], output: str | None
) -> None:
    command = " ".join([KVD, *arguments]).format(f"127.0.0.1:{daemon.port}")
    redirected = f"{command} > {output}" if output else f"{command} >&-"
    done = subprocess.run(["bash", "-c", redirected], capture_output=True, text=True, timeout=LIMIT)
    assert "standard output" in told(done)


def test_a_standard_input_that_cannot_be_read_is_an_error_of_one_line(daemon: Daemon) -> None:
    command = f"{KVD} run {server(daemon)} 0> /dev/null"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=LIMIT)
    assert told(done) == "kvd: can't read standard input: Bad file descriptor\n"


def test_nothing_that_a_server_says_can_play_tricks_with_the_terminal() -> None:
    trick = b'{"status": "Error", "mesg": "a\\u001b[2J\\nb", "code": "BUSY"}\n'
    with ScriptedServer(lambda data: trick) as scripted:
        assert "a\\u001b[2J\\u000ab" in told(kvd("run", server(scripted), "GET a"))


def test_without_a_standard_input_there_is_nothing_to_do(daemon: Daemon) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{KVD} run {server(daemon)} <&-"], capture_output=True, text=True, timeout=LIMIT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The command line.


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["run", "--nosuch"], ["--nosuch"], ["run", "-c"]])
def test_a_command_line_that_makes_no_sense_gets_status_2_and_one_line(arguments: list[str]) -> None:
    assert told(kvd(*arguments))


@pytest.mark.parametrize("help", ["--help", "-h"])
@pytest.mark.parametrize("columns", ["80", "300", "7", "nonsense"])
def test_help_is_there_however_wide_the_terminal(help: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = kvd(help)
    assert (done.returncode, done.stderr) == (0, "")
    for subcommand in ("run", "shell", "bench", "verify"):
        assert f" {subcommand} " in done.stdout
        each = kvd(subcommand, help)
        assert (each.returncode, each.stderr) == (0, "")
        assert each.stdout.startswith(f"Usage: kvd {subcommand} [options]")
        assert "--connect=" in each.stdout


def test_help_says_what_the_command_is_for_and_not_how_it_is_made() -> None:
    assert kvd("--help").stdout == kvd("--help", module=True).stdout
    assert "``" not in kvd("--help").stdout


@pytest.mark.parametrize("subcommand", [[], ["run"], ["shell"], ["bench"], ["verify"]])
def test_the_version_is_that_of_kvd(subcommand: list[str]) -> None:
    done = kvd(*subcommand, "--version")
    assert (done.stdout, done.returncode) == (f"kvd {package.__version__}\n", 0)
