"""What a disk does not take is never acknowledged, and not tried again; a slow disk stalls nobody who need not wait.

Each test fails, or blocks, one sync or write of a real daemon, at a place that it chooses. The next try would succeed,
so whatever tries again is seen in the record of what the disk was asked to do.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
from contextlib import suppress
from errno import EIO, ENOSPC
from typing import NamedTuple

import pytest
from twisted.internet.task import Clock

from kvd.testing.conversations import Server
from tests.support.daemon import Client, Daemon, wait_for
from tests.support.disk import Disk
from tests.support.sqlite import sqlite_store

OK = '{"status": "Ok"}'
STOPPED = -signal.SIGTERM
"""The exit status of a clean stop: twistd ends by the signal that asked for it."""

EAGER_CHECKPOINTS = {"journal.WAL_BYTES": 60_000}
BIG = "x" * 60_000
"""A value that makes a checkpoint due."""

EAGER_FOLDS = {"folding.FEW": 200, "folding.PIECE": 1, "journal.LOOK_EVERY": 0}


def said_last(client: Client) -> bytes:
    """What else a connection brings before it ends, however it does."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := client.socket.recv(4096):
            said += piece
    return said


def unanswered(client: Client) -> bool:
    """Whether the connection ends without another byte."""
    return said_last(client) == b""


def stored(disk: Disk) -> dict[str, str]:
    """What a store finds in the files."""
    clock = Clock()
    server = Server(sqlite_store(disk.path, clock), clock)
    reply = server.client(1).ask("SCAN LIMIT 10000")
    server.service.stopService()
    pairs: dict[str, str] = dict(reply["result"]["items"])
    return pairs


def figure(client: Client, name: str) -> int:
    """A figure of the store."""
    number: int = json.loads(client.ask("INFO store"))["result"][name]
    return number


def assert_fails_at_once(disk: Disk, daemon: Daemon, failure: tuple[str, str]) -> None:
    """The daemon has said why it ends, and has ended, and has left the files alone from the failure on."""
    assert daemon.stopped() == 1
    for told in (daemon.said(), daemon.log()):
        assert f"the store has failed: {disk.path} can't be written" in told
    assert disk.failures() == [failure]


class Place(NamedTuple):
    """A sync that is to fail.

    :ivar request: brings it about.
    :ivar answered: whether the request is answered before; else its reply waits for that sync.
    :ivar file: that is synced.
    :ivar after: how many syncs of that file go before.
    """

    request: str
    answered: bool
    file: str
    after: int


PLACES = {
    "a commit": Place("PUT asked 1", False, "w", 0),
    "a checkpoint, of the -wal file": Place(f"PUT asked {BIG}", True, "w", 1),
    "a checkpoint, of the database": Place(f"PUT asked {BIG}", True, "d", 0),
    "the first write after a checkpoint": Place(f"PUT asked {BIG}", True, "w", 2),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_failed_sync_is_not_acknowledged_nor_tried_again_and_what_was_acknowledged_stays(
    disk: Disk, place: Place
) -> None:
    with disk.daemon(constants=EAGER_CHECKPOINTS).started() as daemon:
        asks, writes, reads, others = (daemon.client() for _ in range(4))
        assert others.ask("PUT before 1") == OK
        disk.order(f"block_sync {place.file} {place.after}")
        asks.send(place.request.encode() + b"\n")
        if place.answered:
            assert asks.line() == OK
        disk.wait_for(lambda disk: disk.syncing() == place.file, "the sync")
        writes.send(b"PUT waits 1\n")
        wait_for(lambda: figure(others, "commits_to_sync") == (1 if place.answered else 2), "the write to be applied")
        reads.send(b"GET waits\n")
        assert others.ask("GET before") == '{"status": "Ok", "result": "1"}'
        disk.order(f"fail_sync {place.file} 0 {EIO}")
        assert [unanswered(client) for client in (asks, writes, reads)] == [True, True, True]
        assert_fails_at_once(disk, daemon, ("E", place.file))
    found = stored(disk)
    assert found["before"] == "1"
    assert found.get("asked") == (BIG if place.answered else "1")  # the machine has not failed, so it is there
    assert "waits" not in found


def test_a_failed_sync_that_a_commit_did_not_wait_for_ends_the_daemon_too(disk: Disk) -> None:
    with disk.daemon("--sync", "0.2").started() as daemon:
        client = daemon.client()
        disk.order(f"fail_sync w 0 {EIO}")
        assert client.ask("PUT a 1") == OK
        assert unanswered(client)
        assert_fails_at_once(disk, daemon, ("E", "w"))
    assert stored(disk) == {"a": "1"}


@pytest.mark.parametrize("file", ["w", "d"])
def test_a_failed_sync_at_a_clean_stop_is_told_and_is_no_clean_stop(disk: Disk, file: str) -> None:
    with disk.daemon().started() as daemon:
        assert daemon.client().ask("PUT a 1") == OK
        disk.order(f"fail_sync {file} 0 {EIO}")
        daemon.send_signal(signal.SIGTERM)
        assert_fails_at_once(disk, daemon, ("E", file))
    assert stored(disk) == {"a": "1"}


@pytest.mark.parametrize("sync", ["always", "0.05"])
def test_a_sync_that_is_under_way_at_a_clean_stop_and_fails_is_not_tried_again(disk: Disk, sync: str) -> None:
    with disk.daemon("--sync", sync).started() as daemon:
        client, other = daemon.client(), daemon.client()
        disk.order("block_sync w 0")
        client.send(b"PUT a 1\n")
        disk.wait_for(lambda disk: disk.syncing() == "w", "the sync")
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # without waiting for the reply, or the stop would wait for it as well
        wait_for(lambda: json.loads(other.ask("INFO clients"))["result"]["connected"] == 1, "it to be gone")
        daemon.send_signal(signal.SIGTERM)
        wait_for(lambda: "SIGTERM" in daemon.log(), "the daemon to stop")
        time.sleep(0.2)  # now its stop waits for the sync; earlier, the failure would be an easier one
        disk.order(f"fail_sync w 0 {EIO}")
        assert_fails_at_once(disk, daemon, ("E", "w"))


# Writes.

ERRORS = pytest.mark.parametrize("error", [EIO, ENOSPC])


@ERRORS
def test_a_commit_that_cant_be_written_is_not_acknowledged_nor_tried_again(disk: Disk, error: int) -> None:
    with disk.daemon().started() as daemon:
        client, reader = daemon.client(), daemon.client()
        assert client.ask("PUT before 1") == OK
        disk.order(f"fail_write w 0 {error}")
        client.send(b"PUT a 1\n")
        reader.send(b"GET a\n")
        assert unanswered(client)
        assert said_last(reader) in (b"", b'{"status": "Ok", "result": null}\n')  # it may have come first
        assert_fails_at_once(disk, daemon, ("W", "w"))
    assert stored(disk) == {"before": "1"}


@ERRORS
def test_a_fold_that_cant_be_written_ends_the_daemon_and_costs_nothing(disk: Disk, error: int) -> None:
    with disk.daemon(constants=EAGER_FOLDS).started() as daemon:
        client = daemon.client()
        client.send(b"".join(b"PUT %d x\n" % number for number in range(200)))
        assert [client.line() for _ in range(200)] == [OK] * 200
        disk.order(f"fail_write w 50 {error}")  # one commit takes fewer; and each piece of a fold, some
        client.send(b"PUT last x\n")
        assert said_last(client) in (b"", f"{OK}\n".encode())  # the fold may be quicker than the sync
        assert_fails_at_once(disk, daemon, ("W", "w"))
    assert stored(disk) == {**{str(number): "x" for number in range(200)}, "last": "x"}


@ERRORS
def test_a_checkpoint_that_cant_be_written_ends_the_daemon_and_costs_nothing(disk: Disk, error: int) -> None:
    with disk.daemon(constants=EAGER_CHECKPOINTS).started() as daemon:
        client = daemon.client()
        disk.order(f"fail_write d 3 {error}")
        assert client.ask(f"PUT a {BIG}") == OK
        assert unanswered(client)
        assert_fails_at_once(disk, daemon, ("W", "d"))
    assert stored(disk) == {"a": BIG}


@pytest.mark.parametrize("file", ["w", "d"])
@ERRORS
def test_a_write_that_fails_at_a_clean_stop_is_told_and_costs_nothing(disk: Disk, file: str, error: int) -> None:
    with disk.daemon().started() as daemon:
        assert daemon.client().ask("PUT a 1") == OK
        disk.order(f"fail_write {file} 0 {error}")
        daemon.send_signal(signal.SIGTERM)
        assert_fails_at_once(disk, daemon, ("W", file))
    assert stored(disk) == {"a": "1"}


# A disk that is slow.


@pytest.mark.parametrize("file", ["w", "d"])
def test_reads_of_what_is_durable_are_answered_while_a_sync_or_a_checkpoint_goes_on(disk: Disk, file: str) -> None:
    with disk.daemon(constants=EAGER_CHECKPOINTS).started() as daemon:
        writer, late, reader = (daemon.client() for _ in range(3))
        assert reader.ask("PUT old 1") == OK
        disk.order(f"block_sync {file} 0")
        writer.send(f"PUT a {BIG}\n".encode())
        disk.wait_for(lambda disk: disk.syncing() == file, "the sync")
        late.send(b"PUT b 1\n")
        wait_for(lambda: figure(reader, "commits_to_sync") > 0, "the write")
        assert reader.ask("GET old") == '{"status": "Ok", "result": "1"}'
        assert reader.ask("EXISTS nothing") == '{"status": "Ok", "result": false}'
        assert disk.syncing() == file
        disk.order()
        assert [writer.line(), late.line()] == [OK, OK]
        assert daemon.stop() == STOPPED


def test_reads_are_answered_and_a_fold_goes_on_while_a_commit_waits_for_a_slow_disk(disk: Disk) -> None:
    with disk.daemon(constants=EAGER_FOLDS).started() as daemon:
        writer, late, reader = (daemon.client() for _ in range(3))
        writer.send(b"".join(b"PUT %d x\n" % number for number in range(200)))
        assert [writer.line() for _ in range(200)] == [OK] * 200
        disk.order("block_sync w 0")
        writer.send(b"PUT last 1\n")
        disk.wait_for(lambda disk: disk.syncing() == "w", "the sync, after which commits are folded")
        late.send(b"PUT waits 1\n")
        wait_for(lambda: figure(reader, "commits_to_sync") == 2, "the write")
        disk.order("block_sync w 0")  # lets go of the one, and blocks the next
        assert writer.line() == OK
        disk.wait_for(lambda disk: disk.syncing() == "w", "the next sync")
        wait_for(lambda: figure(reader, "commits_to_fold") <= 1, "the fold to end")  # it may have begun before
        assert reader.ask("GET 7") == '{"status": "Ok", "result": "x"}'
        assert disk.syncing() == "w"
        disk.order()
        assert late.line() == OK
        assert daemon.stop() == STOPPED


def test_what_a_disk_of_20_ms_a_sync_has_not_taken_is_not_acknowledged(disk: Disk) -> None:
    disk.order("delay_sync w 20")
    with disk.daemon().started() as daemon:
        client = daemon.client()
        for number in range(10):
            assert client.ask(f"PUT {number} x") == OK
            disk.note(f"{number}")
        kinds = [record.kind for record in disk.records() if record.file == "w" or record.kind == "A"]
        places = [place for place, kind in enumerate(kinds) if kind == "A"]
        assert all("E" in kinds[before:place] for before, place in zip([0, *places], places, strict=False))
