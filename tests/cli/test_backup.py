"""``kvd backup``, as a process; what it writes is opened by a real daemon."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.test_dump_and_load import EXPIRED, ODD, is_as_it_was, lines_of, load, pages
from tests.support.command import begun, complaint, ended, kvd, to
from tests.support.daemon import Daemon, wait_for
from tests.support.scripted_server import ScriptedServer


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a backup goes: a file that does not exist, in a directory of its own."""
    directory = tmp_path / "backups"
    directory.mkdir()
    return directory / "backup.kvd"


@contextmanager
def opened(file: Path) -> Iterator[Daemon]:
    """A daemon whose store is in a file."""
    directory = file.parent.parent / "restored"
    directory.mkdir()
    with Daemon(directory, "--port", "0", "--store", f"sqlite:{file}") as daemon:
        yield daemon.started()


def test_a_server_that_opens_a_backup_has_all_pairs(daemon: Daemon, place: Path) -> None:
    load(daemon, lines_of(ODD) + lines_of({f"{number}": f"{number}" for number in range(20_000)}))
    done = kvd("backup", place, to(daemon))
    assert done.stderr.decode() == f"{20_000 + len(ODD):,} pairs written to {place}\n"
    assert (done.returncode, done.stdout, os.listdir(place.parent)) == (0, b"", [place.name])
    with opened(place) as restored:
        assert kvd("dump", "-", to(restored)).stdout == kvd("dump", "-", to(daemon)).stdout
        assert restored.client().ask("PUT a 1") == '{"status": "Ok"}'


def test_a_key_that_ends_has_its_end_in_the_backup_too(daemon: Daemon, place: Path) -> None:
    load(daemon, b'["a", "1", 4102444800000]\n["b", "2"]\n')
    assert kvd("backup", place, to(daemon)).returncode == 0
    with opened(place) as restored:
        assert kvd("dump", "-", to(restored)).stdout == b'["a", "1", 4102444800000]\n["b", "2"]\n'


def test_a_backup_of_a_server_without_keys_is_an_empty_store(daemon: Daemon, place: Path) -> None:
    assert kvd("backup", to(daemon), place).returncode == 0
    with opened(place) as restored:
        assert restored.client().ask("COUNT") == '{"status": "Ok", "result": 0}'


def test_a_backup_is_of_one_instant_while_others_write(daemon: Daemon, place: Path) -> None:
    load(daemon, lines_of({f"{number}": "x" * 1000 for number in range(20_000)}))
    over = threading.Event()

    def write() -> None:
        client = daemon.client()
        number = 0
        while not over.is_set():
            number += 1
            for line in ("START", f"PUT 0first {number}", f"PUT 9last {number}", "COMMIT"):
                client.ask(line)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: "null" not in daemon.client().ask("GET 9last"), "the first write")
        assert kvd("backup", place, to(daemon)).returncode == 0
    finally:
        over.set()
        writer.join()
    with closing(sqlite3.connect(place)) as store:
        found = dict(store.execute("SELECT key, value FROM pairs WHERE key IN ('0first', '9last')").fetchall())
    assert found["0first"] == found["9last"]


def test_the_server_is_not_told_where_the_backup_goes(place: Path) -> None:
    with ScriptedServer(lambda data: pages(data, more=False)) as scripted:
        assert kvd("backup", place, to(scripted)).returncode == 0
    assert b"backup" not in scripted.received


# What is refused.


def test_a_file_that_exists_is_left_as_it_is(daemon: Daemon, place: Path) -> None:
    place.write_bytes(b"an older dump\n")
    assert complaint(kvd("backup", place, to(daemon))) == (
        f"kvd: {place} exists already; name a file that does not exist\n"
    )
    assert is_as_it_was(place)


def test_a_file_that_appears_meanwhile_is_left_as_it_is(place: Path) -> None:
    def answer(data: bytes) -> bytes:
        place.write_bytes(b"an older dump\n")
        return pages(data, more=False)

    with ScriptedServer(answer) as scripted:
        assert f"{place} exists" in complaint(kvd("backup", place, to(scripted)))
    assert is_as_it_was(place)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_what_sqlite_would_take_for_a_part_of_the_backup_must_not_be_there(
    daemon: Daemon, place: Path, suffix: str
) -> None:
    Path(f"{place}{suffix}").write_bytes(b"")
    assert f"{place}{suffix} is left of another file" in complaint(kvd("backup", place, to(daemon)))
    assert not place.exists()


def test_a_backup_goes_to_a_file_and_not_to_standard_output(daemon: Daemon) -> None:
    assert "can't be written to standard output; kvd dump can" in complaint(kvd("backup", "-", to(daemon)))
    assert "one FILE is needed" in complaint(kvd("backup", to(daemon)))


def test_a_place_that_cannot_be_written_to_is_an_error_of_one_line(daemon: Daemon, tmp_path: Path) -> None:
    place = tmp_path / "nowhere" / "file"
    assert complaint(kvd("backup", place, to(daemon))).startswith(f"kvd: can't write to {place}: ")


# Backups that break off.


@pytest.mark.parametrize(
    ("reply", "status", "says"),
    [
        (b"", 2, "the server closed the connection"),
        (b"HTTP/1.1 400 Bad Request\n", 2, "not a kvd server"),
        (EXPIRED % b"it was idle for more than 60 seconds", 1, "(a higher --transaction-idle of the server prevents"),
        (EXPIRED % b"the old values that it and others could see took 9 bytes of memory", 1, "(a higher --max-memory"),
        (EXPIRED % b"KILL", 1, "TXN_EXPIRED: the server ended this transaction: KILL"),
    ],
)
def test_a_backup_that_breaks_off_leaves_nothing_behind(place: Path, reply: bytes, status: int, says: str) -> None:
    with ScriptedServer(lambda data: reply if b"FROM" in data else pages(data)) as scripted:
        done = kvd("backup", place, to(scripted))
    assert says in complaint(done, status)
    assert os.listdir(place.parent) == []


def test_an_interrupted_backup_leaves_nothing_behind(place: Path) -> None:
    with (
        ScriptedServer(lambda data: None if b"FROM" in data else pages(data)) as scripted,
        begun("backup", place, to(scripted)) as process,
    ):
        wait_for(lambda: b"FROM" in scripted.received, "the second page to be asked for")
        assert [name.endswith(".part") for name in os.listdir(place.parent)] == [True]
        process.send_signal(signal.SIGINT)
        assert "interrupted" in complaint(ended(process), 130)
    assert os.listdir(place.parent) == []
