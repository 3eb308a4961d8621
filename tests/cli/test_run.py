"""``kvd run`` and ``python -m kvd``, as processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import LIMIT, Daemon


def kvd(*arguments: str, stdin: str = "", module: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvd"] if module else [str(Path(sys.executable).with_name("kvd"))]
    return subprocess.run([*command, *arguments], input=stdin, capture_output=True, text=True, timeout=LIMIT)


def server(daemon: Daemon) -> str:
    return f"--connect=tcp:localhost:{daemon.port}"


@pytest.mark.parametrize("module", [False, True])
def test_it_prints_the_reply_to_each_command(daemon: Daemon, module: bool) -> None:
    done = kvd("run", server(daemon), "PUT b 2", "GET b", '["GET", "é"]', module=module)
    assert done.stdout == '{"status": "Ok"}\n{"status": "Ok", "result": "2"}\n{"status": "Ok", "result": null}\n'
    assert (done.returncode, done.stderr) == (0, "")


def test_its_status_is_1_if_a_reply_was_an_error_and_it_goes_on_behind_it(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), "NOSUCH", "PING")
    assert done.stdout.endswith('{"status": "Ok", "result": "PONG"}\n')
    assert done.returncode == 1


def test_all_commands_share_one_connection(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), "START", "PUT a 1", "COMMIT", "GET a")
    assert done.stdout.splitlines()[-1] == '{"status": "Ok", "result": "1"}'


def test_without_commands_it_reads_them_from_standard_input(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), stdin="PUT a  1 \r\n\n   \nGET a\nPING last")
    assert done.stdout == '{"status": "Ok"}\n{"status": "Ok", "result": " 1 "}\n{"status": "Ok", "result": "last"}\n'
    assert done.returncode == 0


def test_without_anything_to_do_it_does_nothing(daemon: Daemon) -> None:
    done = kvd("run", server(daemon))
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("endpoint", ["tcp:localhost:1", "nonsense", "unix:/nowhere/at/all"])
def test_its_status_is_2_with_one_line_if_there_is_no_server(endpoint: str) -> None:
    done = kvd("run", "--connect", endpoint, "PING")
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("kvd: ")
    assert done.stderr.count("\n") == 1
    assert endpoint in done.stderr


def test_commands_behind_a_quit_are_not_sent_and_that_is_said(daemon: Daemon) -> None:
    done = kvd("run", server(daemon), "QUIT", "PUT a 1")
    assert (done.stdout, done.returncode) == ('{"status": "Ok"}\n', 2)
    assert done.stderr.count("\n") == 1
    assert kvd("run", server(daemon), "GET a").stdout == '{"status": "Ok", "result": null}\n'


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["run", "--nosuch"], ["run", ""], ["run", "PING\nPING"]])
def test_a_command_line_that_makes_no_sense_gets_status_2_and_one_line(arguments: list[str]) -> None:
    done = kvd(*arguments)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("kvd: ")
    assert done.stderr.count("\n") == 1


def test_help_and_version_are_there() -> None:
    assert "run" in kvd("--help").stdout
    assert "--connect" in kvd("run", "--help").stdout
    assert kvd("--version").stdout.startswith("kvd 0.")
