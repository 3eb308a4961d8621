"""A real ``twistd kvd --store sqlite:PATH``: started, stopped, killed, started twice, refused; and what stays."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.support.daemon import Client, Daemon

OK = {"status": "Ok"}
PAIRS = {
    "a": "1",
    "nul\0key": "\0",
    "\0": "nul\0",
    "\0\0": "\0\0",
    "\"quoted\" and 'quoted'": "\\'\"",
    "emoji \U0001f600": "\u00e9\U0010ffff",
    "lines\n": "\r\n\t",
    "empty": "",
    "null": "null",
    "[1]": '["a", null]',
}


class Start(Protocol):
    """Starts a daemon on the file, or on another store that is named."""

    def __call__(
        self, *options: str, store: str = "", daemonize: bool = False, directory: Path | None = None
    ) -> Daemon: ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "kvd.db"


@pytest.fixture
def launch(tmp_path: Path, path: Path) -> Iterator[Start]:
    """Starts a daemon, and does not wait for it."""
    with ExitStack() as daemons:
        lives = 0

        def launch(*options: str, store: str = "", daemonize: bool = False, directory: Path | None = None) -> Daemon:
            nonlocal lives
            lives += 1
            home = directory or tmp_path / f"life{lives}"
            home.mkdir(exist_ok=True)
            daemon = Daemon(home, "--port", "0", "--store", store or f"sqlite:{path}", *options, daemonize=daemonize)
            return daemons.enter_context(daemon)

        yield launch


def ask(client: Client, *words: Any) -> dict[str, Any]:
    """The reply to a request in the JSON form."""
    reply: dict[str, Any] = json.loads(client.ask(json.dumps(words)))
    return reply


def result(client: Client, *words: Any) -> Any:
    reply = ask(client, *words)
    assert reply["status"] == "Ok", reply
    return reply["result"]


def stored(daemon: Daemon) -> dict[str, str]:
    """What a daemon shows."""
    return dict(result(daemon.client(), "SCAN", "LIMIT", 10_000)["items"])


def put_and_remove(client: Client) -> None:
    """Leave :data:`PAIRS`, some of them overwritten, and others removed."""
    for key, value in PAIRS.items():
        assert ask(client, "PUT", key, "old") == OK
        assert ask(client, "PUT", f"{key} removed", value) == OK
    for key, value in PAIRS.items():
        assert ask(client, "PUT", key, value) == OK
        assert ask(client, "DEL", f"{key} removed") == OK


def shown(path: Path, query: str = "SELECT key, value FROM pairs") -> list[Any]:
    """What plain SQLite finds in the file."""
    with closing(sqlite3.connect(path)) as file:
        return file.execute(query).fetchall()


def kill(daemon: Daemon) -> None:
    daemon.stop(signal.SIGKILL)


# What stays.


@pytest.mark.parametrize("daemonize", [False, True])
def test_what_was_stored_is_there_after_a_restart(launch: Start, daemonize: bool) -> None:
    daemon = launch(daemonize=daemonize).started()
    put_and_remove(daemon.client())
    daemon.stop()
    assert "Traceback" not in daemon.log()
    assert stored(launch(daemonize=daemonize).started()) == PAIRS


@pytest.mark.parametrize("daemonize", [False, True])
@pytest.mark.parametrize("sync", ["always", "5"])
def test_what_was_acknowledged_is_there_after_kill_9_however_seldom_the_disk_is_synced(
    launch: Start, sync: str, daemonize: bool
) -> None:
    daemon = launch("--sync", sync, daemonize=daemonize).started()
    put_and_remove(daemon.client())
    kill(daemon)
    assert stored(launch().started()) == PAIRS


def test_pairs_that_one_life_has_folded_can_be_changed_and_removed_by_the_next(launch: Start) -> None:
    daemon = launch().started()
    for key in PAIRS:
        assert ask(daemon.client(), "PUT", key, "old") == OK
        assert ask(daemon.client(), "PUT", f"{key} removed", "old") == OK
    daemon.stop()
    daemon = launch().started()
    put_and_remove(daemon.client())
    kill(daemon)
    daemon = launch().started()
    assert stored(daemon) == PAIRS
    daemon.stop()
    assert stored(launch().started()) == PAIRS


def test_receipts_outlive_a_stop_and_a_kill(launch: Start) -> None:
    daemon = launch().started()
    client = daemon.client()
    for number, end in enumerate((signal.SIGTERM, signal.SIGKILL)):
        for words in (["START"], ["PUT", "a", "1"], ["COMMIT", f"done{number}"]):
            assert ask(client, *words) == OK
        assert result(client, "OUTCOME", f"never{number}") == "never"
        daemon.stop(end)
        daemon = launch().started()
        client = daemon.client()
        for earlier in range(number + 1):
            assert result(client, "OUTCOME", f"done{earlier}") == "committed"
            for receipt in (f"done{earlier}", f"never{earlier}"):
                assert ask(client, "START") == OK
                assert ask(client, "COMMIT", receipt)["code"] == "RECEIPT_USED"
            assert result(client, "OUTCOME", f"never{earlier}") == "never"


def test_kept_does_not_begin_anew_with_a_restart(launch: Start) -> None:
    daemon = launch().started()
    begun = time.monotonic()
    for end in (signal.SIGTERM, signal.SIGKILL):
        daemon.stop(end)
        daemon = launch().started()
        lived = time.monotonic() - begun
        assert ask(daemon.client(), "OUTCOME", "x")["kept"] >= lived - 0.01  # the file counts in milliseconds


# The file, for people with plain SQLite.


def test_a_clean_stop_folds_everything_into_one_file(launch: Start, path: Path) -> None:
    daemon = launch().started()
    client = daemon.client()
    put_and_remove(client)
    for words in (["START"], ["PUT", "a", "1"], ["COMMIT", "receipt"]):
        assert ask(client, *words) == OK
    daemon.stop()
    assert shown(path, "SELECT count(*) FROM commits WHERE receipt = ''") == [(0,)]
    assert dict(shown(path, "SELECT key, value FROM folded")) == PAIRS
    assert dict(shown(path)) == PAIRS
    assert [each.name for each in path.parent.iterdir() if each.name.startswith("kvd.db")] == ["kvd.db"]


def test_after_kill_9_the_view_shows_current_data(launch: Start, path: Path) -> None:
    daemon = launch().started()
    put_and_remove(daemon.client())
    kill(daemon)
    found = shown(path)
    assert dict(found) == PAIRS
    assert [key for key, _ in found] == sorted(PAIRS)
    assert shown(path, "SELECT count(*) FROM folded") == [(0,)]


def test_while_a_daemon_has_the_file_others_are_told_that_it_is_locked(launch: Start, path: Path) -> None:
    daemon = launch(daemonize=True).started()
    assert ask(daemon.client(), "PUT", "a", "1") == OK
    with closing(sqlite3.connect(path, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM pairs")


# A second daemon.


def assert_refused(daemon: Daemon, why: str, daemonize: bool) -> None:
    """It has ended with status 1 and one clear line, and has left no pid file."""
    status, said = daemon.refused()
    assert status == 1
    if daemonize:  # twistd tells the beginning, about a hundred bytes in words of its own, and points to the log
        told = re.match(r"An error has occurred: b['\"]kvd\.CannotStart: (.*)['\"]\n", said.replace("\\'", "'"))
        assert told, said
        assert why.startswith(told[1][: len(why)])
        assert len(told[1]) > 50
        assert said.endswith("\nPlease look at log file for more information.\n")
        assert said.count("\n") == 2
    else:
        assert said.startswith(f"kvd: {why}")
        assert said.count("\n") == 1
    assert why in daemon.log()
    assert "Traceback" not in daemon.log()
    assert not daemon.pid_file.exists()


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_second_daemon_on_the_file_ends_with_one_clear_line(
    launch: Start, path: Path, first: bool, second: bool
) -> None:
    daemon = launch(daemonize=first).started()
    assert ask(daemon.client(), "PUT", "a", "1") == OK
    why = f"{path} is in use by another process; only one can have it open"
    for _ in range(2):
        assert_refused(launch(daemonize=second), why, second)
    assert ask(daemon.client(), "PUT", "b", "2") == OK
    kill(daemon)
    assert stored(launch().started()) == {"a": "1", "b": "2"}


def test_a_second_daemon_on_a_link_to_the_file_ends_too(launch: Start, path: Path) -> None:
    launch().started()
    link = path.with_name("link.db")
    link.symlink_to(path)
    assert_refused(launch(store=f"sqlite:{link}"), f"{path} is in use by another process", False)


# Paths.


@pytest.mark.parametrize("daemonize", [False, True])
def test_a_relative_path_is_one_of_the_directory_in_which_it_was_started(
    launch: Start, tmp_path: Path, daemonize: bool
) -> None:
    home = tmp_path.resolve() / "home"
    (home / "data").mkdir(parents=True)
    daemon = launch(store="sqlite:data/mine.db", daemonize=daemonize, directory=home).started()
    assert ask(daemon.client(), "PUT", "a", "1") == OK
    assert f"in the file {home}/data/mine.db: " in result(daemon.client(), "INFO", "store")["promise"]
    daemon.stop()
    assert shown(home / "data" / "mine.db") == [("a", "1")]


@pytest.mark.parametrize("daemonize", [False, True])
@pytest.mark.parametrize("kind", ["missing directory", "directory", "text", "other database", "damaged"])
def test_a_file_that_it_can_not_have_ends_with_one_clear_line(
    launch: Start, path: Path, kind: str, daemonize: bool
) -> None:
    place, why = path, f"can't open {path}: "
    if kind == "missing directory":
        place = path.parent / "missing" / "kvd.db"
        why = f"can't open {place}: "
    elif kind == "directory":
        path.mkdir()
    elif kind == "text":
        path.write_text("Dear diary,")
        why = f"{path} is not a file of kvd; name another one"
    elif kind == "other database":
        with closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE bookmarks (url)")
        why = f"{path} is an SQLite database, but not one of kvd; name another file"
    else:
        path.write_bytes(b"SQLite format 3\0" + b"\1" * 8176)
        why = f"{path} is damaged ("
    assert_refused(launch(store=f"sqlite:{place}", daemonize=daemonize), why, daemonize)


def test_a_store_without_a_path_is_refused(launch: Start) -> None:
    status, said = launch(store="sqlite").refused()
    assert status == 1
    assert "the sqlite store needs the path of its file: sqlite:PATH" in said
    assert said.count("\n") == 1


# --sync.


@pytest.mark.parametrize(
    ("options", "sync", "cost"),
    [
        ([], "always", "what was acknowledged survives every crash"),
        (["--sync", "always"], "always", "what was acknowledged survives every crash"),
        (["--sync", "0.5"], 0.5, "a crash of the machine can cost the last 0.5 s, and a crash of the process nothing"),
    ],
)
def test_info_and_the_start_up_line_tell_when_the_disk_is_synced_and_what_that_promises(
    launch: Start, path: Path, options: list[str], sync: object, cost: str
) -> None:
    daemon = launch(*options).started()
    info = result(daemon.client(), "INFO", "store")
    assert (info["name"], info["sync"], info["file"]) == ("sqlite", sync, str(path))
    assert info["promise"] == f"in the file {path}: {cost}"
    assert f"; store sqlite (in the file {path}: {cost})" in daemon.log()


@pytest.mark.parametrize("value", ["0", "-1", "never", "", "nan", "inf", "1s"])
def test_a_sync_that_makes_no_sense_is_refused_in_one_line(launch: Start, path: Path, value: str) -> None:
    daemon = launch("--sync", value)
    status, said = daemon.refused()
    assert status == 1
    assert said.startswith(f"twistd kvd: --sync takes the word always, or a number of seconds above 0, not {value!r}")
    assert said.count("\n") == 1
    assert not path.exists()
