"""A disk that is nearly full: what grows is refused before anything is stored, and all else goes on."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.daemon import Client
from tests.support.disk import Disk

OK = {"status": "Ok"}
VALUE = "x" * 1000

WATCHFUL = {"journal.LOOK_EVERY": 0}
"""Looks at the disk before every commit, so that no test waits for the next look."""


def ask(client: Client, request: str) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(client.ask(request))
    return reply


def info(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = ask(client, "INFO store")["result"]
    return found


def leave_free(disk: Disk, client: Client, part: float) -> None:
    """Have only this part of the reserve be free."""
    disk.order(f"free {int(info(client)['disk_reserve'] * part)}")


def assert_refused(reply: dict[str, Any]) -> None:
    assert reply["code"] == "UNAVAILABLE"
    assert "the disk is nearly full" in reply["mesg"]
    assert "nothing was stored" in reply["mesg"]


def test_what_grows_is_refused_and_not_stored_while_reads_and_removals_go_on(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        for key in ("a", "b", "n"):
            assert ask(client, f"PUT {key} 1") == OK
        leave_free(disk, client, 0.7)
        for request in (f"PUT c {VALUE}", f"PUT a {VALUE}", "INCR n", "INCR new", "CAS a 1 2"):
            assert_refused(ask(client, request))
        assert ask(client, "SCAN")["result"]["items"] == [["a", "1"], ["b", "1"], ["n", "1"]]
        assert ask(client, "COUNT")["result"] == 3
        assert ask(client, "DEL a") == OK
        assert ask(client, '["CAS", "b", "1", null]')["result"] is True
        assert ask(client, "SCAN")["result"]["items"] == [["n", "1"]]


def test_info_tells_how_much_is_free_and_how_much_is_kept(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        before = info(client)
        assert before["disk_free"] > before["disk_reserve"] > 0
        leave_free(disk, client, 0.7)
        assert_refused(ask(client, f"PUT a {VALUE}"))
        after = info(client)
        assert after["disk_reserve"] == before["disk_reserve"]
        assert 0.6 < after["disk_free"] / after["disk_reserve"] < 0.8


def test_a_transaction_that_grows_is_refused_as_a_whole_at_its_commit_and_one_that_removes_is_not(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        assert ask(client, "PUT a 1") == OK
        leave_free(disk, client, 0.7)
        for request in ("START", "DEL a", f"PUT b {VALUE}"):
            assert ask(client, request) == OK
        assert_refused(ask(client, "COMMIT"))
        assert ask(client, "SCAN")["result"]["items"] == [["a", "1"]]
        for request in ("START", "DEL a", "COMMIT"):
            assert ask(client, request) == OK
        assert ask(client, "SCAN")["result"]["items"] == []


def test_receipts_are_settled_and_a_refused_commit_leaves_its_receipt_unused(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        leave_free(disk, client, 0.7)
        assert ask(client, "OUTCOME of-nothing")["result"] == "never"
        for request in ("START", f"PUT b {VALUE}"):
            assert ask(client, request) == OK
        assert_refused(ask(client, "COMMIT receipt"))
        disk.order()
        for request in ("START", f"PUT b {VALUE}"):
            assert ask(client, request) == OK
        assert ask(client, "COMMIT receipt") == OK
        assert ask(client, "OUTCOME receipt")["result"] == "committed"


def test_below_a_quarter_of_the_reserve_removals_and_receipts_are_refused_as_well_and_reads_go_on(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        for key in ("a", "b"):
            assert ask(client, f"PUT {key} 1") == OK
        for request in ("START", "DEL b"):
            assert ask(client, request) == OK
        leave_free(disk, client, 0.1)
        assert_refused(ask(client, "COMMIT"))
        assert_refused(ask(client, "DEL a"))
        assert_refused(ask(client, "OUTCOME of-nothing"))
        assert ask(client, "GET a")["result"] == "1"
        assert ask(client, "COUNT")["result"] == 2


def test_it_recovers_by_itself_when_there_is_room_again(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        leave_free(disk, client, 0.1)
        assert_refused(ask(client, f"PUT a {VALUE}"))
        disk.order()
        assert ask(client, f"PUT a {VALUE}") == OK
        assert ask(client, "DEL a") == OK


def test_a_disk_that_was_filled_while_nobody_wrote_is_noticed_before_the_next_commit(disk: Disk) -> None:
    with disk.daemon().started() as daemon:
        client = daemon.client()
        assert ask(client, "PUT a 1") == OK
        time.sleep(0.3)  # longer than it relies on what it saw
        leave_free(disk, client, 0.1)
        assert_refused(ask(client, f"PUT b {VALUE}"))
        assert ask(client, "COUNT")["result"] == 1


def test_a_disk_that_fills_during_a_checkpoint_is_noticed_before_the_next_commit(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL | {"journal.WAL_BYTES": 60_000}).started() as daemon:
        client = daemon.client()
        disk.order("block_sync d 0")
        assert ask(client, f"PUT a {'x' * 60_000}") == OK
        disk.wait_for(lambda disk: disk.syncing() == "d", "the checkpoint")
        disk.order(f"free {info(client)['disk_reserve'] // 2}", "delay_sync d 300")  # it goes on for a while
        assert_refused(ask(client, f"PUT b {VALUE}"))


def test_commits_that_wait_for_the_disk_count_as_if_they_were_there(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        disk.order(f"free {info(client)['disk_reserve'] + 10_000_000}", "block_sync w 0")
        client.send(b"PUT first 1\n")
        disk.wait_for(lambda disk: disk.syncing() == "w", "the sync")
        other = daemon.client()
        other.send(b"".join(b"PUT %d %s\n" % (number, b"x" * 1_000_000) for number in range(10)))
        watcher = daemon.client()
        disk.wait_for(lambda disk: ask(watcher, "INFO commands")["result"]["calls"]["PUT"] == 11, "the commits")
        disk.order()
        replies = [json.loads(other.line()) for _ in range(10)]
        assert 1 <= replies.count(OK) <= 4  # four bytes are reckoned for a character
        assert_refused(replies[-1])


def test_what_was_removed_makes_room_in_the_file_for_what_comes(disk: Disk) -> None:
    with disk.daemon(constants=WATCHFUL).started() as daemon:
        client = daemon.client()
        reserve = info(client)["disk_reserve"]
        client.send(b"".join(b"PUT %d %s\n" % (number, b"x" * 500_000) for number in range(20)))
        assert {client.line() for _ in range(20)} == {json.dumps(OK)}
        disk.order(f"free {reserve - 15_000_000}")
        assert_refused(ask(client, f"PUT more {VALUE}"))
        assert ask(client, "DEL 0") == OK
        # Now commits are folded, and their own texts make room; but less than is wanted.
        disk.wait_for(lambda disk: info(client)["commits_to_fold"] == 0, "the fold")
        assert_refused(ask(client, f"PUT more {VALUE}"))
        client.send(b"".join(b"DEL %d\n" % number for number in range(20)))
        assert {client.line() for _ in range(20)} == {json.dumps(OK)}
        disk.wait_for(lambda disk: ask(client, f"PUT more {VALUE}") == OK, "the room to be found")
