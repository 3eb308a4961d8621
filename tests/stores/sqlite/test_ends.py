"""Keys that end, in a file: over restarts and crashes, whatever the clock says, and folded."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from kvd.interfaces import CannotOpen
from kvd.testing.conversations import Server
from tests.support.sqlite import sqlite_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def started(path: Path, seconds: float) -> Server:
    """A server whose clock says so many seconds since 1970."""
    clock = Clock()
    clock.rightNow = seconds
    return Server(sqlite_store(path, clock), clock)


def stop(server: Server) -> None:
    server.service.stopService()
    server.clock.advance(10)


def after_crash(path: Path) -> Path:
    """The file as it would be found after a crash now."""
    found = path.with_name(f"{path.name}.found")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{found}{suffix}")
    return found


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def change(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


@pytest.mark.parametrize("crash", [False, True])
def test_ends_survive_a_restart_and_pass_meanwhile(path: Path, crash: bool) -> None:
    server = started(path, 1000)
    server.play(r"""
        1 ["PUT", "a", "1", 10]       -> ok
        1 ["PUT", "b\u0000", ""]      -> ok
        1 ["EXPIREAT", "b\u0000", 1100000] -> true
        1 PUT c 3                     -> ok
        1 EXPIREAT c 1200000          -> true
        1 ["PUT", "d", "4", 100]      -> ok
        1 PERSIST d                   -> true
        1 ["PUT", "e", "5", 10]       -> ok
        1 DEL e                       -> ok
    """)
    if crash:
        path = after_crash(path)
    else:
        stop(server)
    server = started(path, 1050)
    items = r'["b\u0000", "", 1100000], ["c", "3", 1200000], ["d", "4", null]'
    server.play(f"""
        1 GET a        -> null
        1 COUNT        -> 3
        1 SCAN ENDS    -> {{"items": [{items}], "next": null}}
    """)
    server.clock.advance(50)
    server.play("1 COUNT -> 2")


@pytest.mark.parametrize("question", ["GET a", "COUNT", "START READONLY", "DEL a", "SCAN"])
def test_what_was_told_to_have_ended_does_not_come_back_when_the_clock_goes_back(path: Path, question: str) -> None:
    server = started(path, 1000)
    server.play("""
        1 ["PUT", "a", "1", 5]  -> ok
        1 ["PUT", "b", "1", 50] -> ok
    """)
    server.clock.rightNow = 1006
    server.client().ask(question)
    server = started(after_crash(path), 300)
    server.play("1 GET a -> null")
    assert 43 < server.client().ask("TTL b")["result"] < 44.1


def test_what_had_ended_at_a_start_does_not_come_back_when_the_clock_goes_back(path: Path) -> None:
    server = started(path, 1000)
    server.play('1 ["PUT", "a", "1", 5] -> ok')
    path = after_crash(path)
    server = started(path, 1010)
    server.play("1 GET a -> null")
    for _ in range(2):
        server = started(path := after_crash(path), 300)
        server.play("1 GET a -> null")


def test_what_a_fold_says_of_the_time_outlives_the_commits(path: Path) -> None:
    server = started(path, 1000)
    server.play("""
        1 ["PUT", "a", "1", 5]   -> ok
        1 ["PUT", "b", "1", 50]  -> ok
    """)
    server.clock.rightNow = 1006
    server.play("1 COUNT -> 1")
    stop(server)
    ((key, value, end),) = rows(path, "SELECT key, value, ends FROM folded")
    assert (key, value) == ("b", "1")
    assert 1_050_000 <= end < 1_050_100
    assert rows(path, "SELECT count(*) FROM commits") == [(0,)]
    server = started(path, 300)
    assert 33 < server.client().ask("TTL b")["result"] < 44.1
    stop(server)


def test_folded_keys_that_have_ended_are_removed_from_the_file(path: Path) -> None:
    server = started(path, 1000)
    server.play("""
        1 ["PUT", "a", "1", 50] -> ok
        1 ["PUT", "b", "1", 90] -> ok
        1 PUT c 1               -> ok
    """)
    stop(server)
    assert [key for (key,) in rows(path, "SELECT key FROM folded")] == ["a", "b", "c"]
    server = started(path, 1060)  # a has ended before
    server.clock.advance(40)  # b ends
    stop(server)
    assert rows(path, "SELECT key, ends FROM folded") == [("c", None)]


def test_the_view_shows_ends_and_hides_what_has_ended(path: Path) -> None:
    later = 4_000_000_000_000
    server = started(path, 1000)
    server.play(f"""
        1 ["PUT", "a", "1", 10]  -> ok
        1 PUT b 2                -> ok
        1 PUT c 3                -> ok
        1 EXPIREAT c {later}     -> true
    """)
    found = [("b", "2", None), ("c", "3", later)]
    assert rows(after_crash(path), "SELECT * FROM pairs") == found
    stop(server)
    assert rows(path, "SELECT * FROM pairs") == found


def test_a_damaged_end_is_noticed(path: Path) -> None:
    server = started(path, 1000)
    server.play('1 ["PUT", "a", "1", 50] -> ok')
    stop(server)
    change(path, "UPDATE folded SET ends = ends + 1")
    with pytest.raises(CannotOpen, match="the sum of the key 'a' is wrong"):
        started(path, 1000)


def test_a_file_that_never_recorded_a_time_is_opened(path: Path) -> None:
    server = started(path, 1000)
    server.play("1 PUT a 1 -> ok")
    stop(server)
    change(path, "DELETE FROM about WHERE name = 'time'")
    server = started(path, 1000)
    server.play('1 ["PUT", "a", "1", 50] -> ok')
    stop(server)
    assert rows(path, "SELECT value FROM about WHERE name = 'time'") >= [(1_000_000,)]
