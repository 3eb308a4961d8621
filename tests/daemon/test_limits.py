"""Limits: what a client can't do to the server, and what it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

import kvd.daemon.resident
from kvd.accounts import MIB, spare
from kvd.core.connection import TURN_REQUESTS
from kvd.core.limits import Limits, half_of_memory
from kvd.core.session import SESSION_BYTES
from kvd.daemon.stream import Refusal
from kvd.protocols.line import factory as line_factory
from kvd.stores.memory.data import pair_bytes
from kvd.stores.memory.store import MemoryStore
from kvd.stores.memory.validation import PIECE
from kvd.testing.conversations import Server
from kvd.testing.stores import SlowStore


def server_with(**limits: Any) -> Server:
    return Server(limits=Limits(**limits))


# Clients


def test_one_client_too_many_is_told_so_and_the_others_are_served() -> None:
    server = server_with(clients=2)
    server.play("""
        1 PING -> "PONG"
        2 PING -> "PONG"
    """)
    refusal = server.factory.buildProtocol(None)
    assert isinstance(refusal, Refusal)
    transport = StringTransport()
    refusal.makeConnection(transport)
    told = json.loads(transport.value())
    assert told["code"] == "BUSY"
    assert "2 clients" in told["mesg"]
    assert transport.disconnecting
    assert server.client(1).ask("INFO clients")["result"]["refused"] == 1
    server.client(2).transport.loseConnection()
    assert not isinstance(line_factory(server.service).buildProtocol(None), Refusal)


def test_a_client_that_says_nothing_at_first_may_be_silent_for_as_long_as_it_likes() -> None:
    server = server_with(line_time=60)
    client = server.client()
    server.clock.pump([1] * 1000)
    assert not client.closed
    server.play('1 PING -> "PONG"')


def test_a_line_that_comes_byte_by_byte_is_cut_off_in_time() -> None:
    server = server_with(line_time=60)
    client = server.client()
    client.send(b"PING\n")
    for _ in range(50):
        client.send(b"x")
        server.clock.advance(1)
    assert not client.closed
    for _ in range(12):
        client.protocol.dataReceived(b"x")
        server.clock.advance(1)
    assert client.closed


def test_a_client_that_has_said_something_may_be_silent_for_as_long_as_it_likes() -> None:
    server = server_with()
    client = server.client()
    client.send(b"PING\n")
    server.clock.pump([1] * 1000)
    assert not client.closed


def test_with_an_idle_time_a_silent_client_is_disconnected_and_rolled_back() -> None:
    server = server_with(idle_time=30, transaction_idle=0)
    server.play("""
        1 START   -> ok
        1 PUT a 1 -> ok
    """)
    server.clock.pump([1] * 20)
    server.play('2 PING -> "PONG"')
    server.clock.pump([1] * 12)
    assert server.client(1).closed
    assert not server.client(2).closed
    server.play("2 GET a -> null")


def test_a_client_is_not_blamed_for_the_time_that_the_store_takes() -> None:
    slow = SlowStore(Clock())
    server = Server(slow, slow.clock)
    server.service.core.limits.idle_time = 5
    server.service.core.limits.line_time = 5
    slow.silent = True
    client = server.client()
    client.protocol.dataReceived(b"GET a\nGET ")
    slow.clock.pump([1] * 20)
    assert not client.closed


# Transactions


def test_a_transaction_touches_at_most_so_many_keys() -> None:
    server = server_with(transaction_keys=4)
    server.play("""
        1 START      -> ok
        1 MGET a b   -> [null, null]
        1 GET a      -> null
        1 PUT x 1    -> ok
        1 PUT x 2    -> ok
        1 COUNT      -> 1
    """)
    reply = server.client(1).ask("PUT y 1")
    assert reply["code"] == "TOO_LARGE"
    assert "5 keys" in reply["mesg"]
    assert "at most 4" in reply["mesg"]
    server.play("""
        1 COMMIT     -> ABORTED
        1 COUNT      -> 0
    """)


def test_a_transaction_takes_at_most_so_much_memory() -> None:
    server = server_with(transaction_bytes=10_000)
    server.play("1 START -> ok")
    for _ in range(100):
        assert server.client(1).ask("PUT same " + "x" * 5000)["status"] == "Ok"
    reply = server.client(1).ask("PUT other " + "x" * 5000)
    assert reply["code"] == "TOO_LARGE"
    assert "at most 10000" in reply["mesg"]
    server.play("""
        1 ROLLBACK -> ok
        1 COUNT    -> 0
    """)


def test_savepoints_and_what_they_keep_count_as_memory_of_the_transaction() -> None:
    server = server_with(transaction_bytes=100_000)
    client = server.client()
    client.ask("START")
    kinds = [client.ask(f"SAVEPOINT s{number}")["status"] for number in range(1000)]
    assert "Error" in kinds or client.ask("PUT a 1")["code"] == "TOO_LARGE"
    client.ask("ROLLBACK")
    client.ask("START")
    for number in range(30):
        client.ask("PUT a " + "x" * 5000)
        client.ask(f"SAVEPOINT s{number}")
    assert client.ask("PUT a 1")["code"] in ("TOO_LARGE", "ABORTED")


# Memory


def fill(server: Server) -> int:
    """Put pairs until there is no more room; how many there was room for."""
    number = 0
    while True:
        reply = server.client(9).ask(f"PUT key{number} " + "x" * 10_000)
        if reply["status"] != "Ok":
            assert reply["code"] == "OUT_OF_MEMORY"
            assert "memory limit" in reply["mesg"]
            return number
        number += 1


def test_at_the_memory_limit_what_grows_is_refused_and_all_else_goes_on() -> None:
    server = server_with(memory=2 * MIB)
    assert fill(server) > 150
    same, larger = "y" * 10_000, "y" * 20_000
    server.play(f"""
        1 PUT key1 {same}    -> ok
        1 PUT key1 {larger}  -> OUT_OF_MEMORY
        1 GET key1           -> "{same}"
        1 EXISTS key2        -> true
        1 PUT key2 short     -> ok
        1 PUT new {larger}   -> OUT_OF_MEMORY
        1 DEL key3           -> ok
        1 DEL key4           -> ok
        1 PUT key5 {larger}  -> ok
    """)


def test_at_the_memory_limit_transactions_read_delete_and_overwrite() -> None:
    server = server_with(memory=2 * MIB)
    fill(server)
    same, larger = "y" * 10_000, "y" * 20_000
    server.play(f"""
        1 START              -> ok
        1 EXISTS key1        -> true
        1 PUT key1 {same}    -> ok
        1 DEL key2           -> ok
        1 COMMIT             -> ok
        1 GET key1           -> "{same}"
    """)
    fill(server)
    server.play(f"""
        1 START              -> ok
        1 PUT new {larger}   -> OUT_OF_MEMORY
        1 GET key1           -> ABORTED
        1 ROLLBACK           -> ok
    """)


def test_the_room_that_a_transaction_holds_is_there_for_its_commit() -> None:
    server = server_with(memory=2 * MIB)
    value = "x" * 20_000
    server.play(f"""
        1 START          -> ok
        1 PUT a {value}  -> ok
    """)
    fill(server)
    server.play(f"""
        1 COMMIT -> ok
        2 GET a  -> "{value}"
    """)


def test_nothing_grows_while_the_process_takes_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    resident = [100 * MIB]
    monkeypatch.setattr(kvd.daemon.resident, "resident_bytes", lambda: resident[0])
    trims: list[float] = []
    monkeypatch.setattr(kvd.daemon.resident, "give_back", lambda: trims.append(1))
    server = server_with()
    limit = server.service.core.budget.limit
    server.play("""
        1 PUT a 12345 -> ok
        2 START       -> ok
    """)
    resident[0] = limit + 101 * MIB
    server.clock.advance(1)
    assert trims
    server.play("""
        1 PUT b 1     -> OUT_OF_MEMORY
        1 PUT a 54321 -> ok
        1 GET a       -> "54321"
        2 PUT b 1     -> OUT_OF_MEMORY
        1 DEL a       -> ok
    """)
    assert "the process takes more" in server.client(1).ask("PUT b 1")["mesg"]
    resident[0] = limit + 99 * MIB
    server.clock.advance(1)
    server.play("1 PUT b 1     -> ok")


def test_at_the_limit_short_transactions_go_on_while_others_overwrite() -> None:
    server = server_with(memory=2 * MIB)
    fill(server)
    for number in range(10):
        server.play("1 START -> ok")
        server.client(1).ask("GET key1")
        for other in range(5):
            assert server.client(2).ask(f"PUT key{10 * number + other} " + "z" * 10_000)["status"] == "Ok"
        server.play("1 COMMIT -> ok")


def test_the_process_has_a_size() -> None:
    assert MIB < kvd.daemon.resident.resident_bytes() < 100 * 1024 * MIB
    kvd.daemon.resident.give_back()


def test_a_snapshot_that_pins_too_much_is_ended_and_told_why() -> None:
    server = server_with(memory=32 * MIB)
    server.client(1).ask("PUT key 1")
    server.play("1 START READONLY -> ok")
    for number in range(20):
        server.client(2).ask("PUT key " + "x" * MIB)
        server.client(3 + number).ask("START")
    info = server.service.core.info()
    assert info["transactions"]["expired"] > 0
    assert info["transactions"]["open"] == 21  # the shells too
    assert info["store"]["old_values_bytes"] <= 8 * MIB
    reply = server.client(1).ask("GET key")
    assert reply["code"] == "TXN_EXPIRED"
    assert "old values" in reply["mesg"]
    assert server.client(22).ask("EXISTS key")["result"] is True


def test_overwriting_at_the_limit_ends_snapshots_before_it_exceeds_the_limit() -> None:
    server = server_with(memory=2 * MIB)
    fill(server)
    server.play("1 START -> ok")
    for number in range(100):
        assert server.client(2).ask(f"PUT key{number} " + "z" * 10_000)["status"] == "Ok"
    assert server.service.core.budget.used <= 2 * MIB
    server.play("1 GET key1 -> TXN_EXPIRED")


@pytest.mark.parametrize("grow", ["PUT", "GET", "DEL", "SAVEPOINT", "COUNT PREFIX"])
def test_no_transaction_keeps_others_from_storing(grow: str) -> None:
    server = server_with(memory=64 * MIB, transaction_keys=0)
    hog = server.client(1)
    hog.ask("START")
    for number in range(80):
        value = " " + "v" * 60_000 if grow == "PUT" else ""
        names = ["a"] * 2000 if grow == "SAVEPOINT" else [f"{number:05}{each:04}" * 100 for each in range(600)]
        hog.exchange("".join(f"{grow} {name[:1000]}{value}\n" for name in names[: 20 if value else None]).encode())
        assert server.client(2).ask(f"PUT other{number} {'v' * 100_000}")["status"] == "Ok"
    assert server.service.core.budget.transactions.used < 21 * MIB


def test_many_transactions_together_do_not_keep_others_from_storing() -> None:
    server = server_with(memory=64 * MIB)
    for number in range(2, 40):
        server.client(number).exchange(b"START\n" + b"PUT a%d %s\n" % (number, b"v" * MIB) * 3)
        assert server.client(1).ask(f"PUT other{number} {'v' * 100_000}")["status"] == "Ok"


def test_a_snapshot_that_is_kept_alive_does_not_keep_others_from_storing() -> None:
    server = server_with(memory=64 * MIB)
    server.play("1 START READONLY -> ok")
    for start in range(0, 30_000, 1000):
        keys = [f"{number:05}" * 200 for number in range(start, start + 1000)]
        replies = server.client(2).exchange("".join(f"PUT {key} v\nDEL {key}\n" for key in keys).encode())
        assert replies == b'{"status": "Ok"}\n' * 2000
        server.client(1).ask("GET a")
    assert server.client(1).ask("GET a")["code"] == "TXN_EXPIRED"
    assert server.service.store.info()["old_values"] == 0


def test_forgotten_shells_of_expired_transactions_hold_nothing() -> None:
    server = server_with(transaction_idle=10)
    for number in range(1, 20):
        server.play(f"{number} START -> ok\n{number} GET a -> null")
        server.play("20 PUT a 1 -> ok\n20 DEL a -> ok")
    server.clock.pump([1] * 12)
    server.play("1 GET a -> TXN_EXPIRED")
    assert server.service.core.budget.used == 20 * SESSION_BYTES
    server.play('20 PUT a 1 -> ok\n20 START -> ok\n19 PING -> "PONG"')
    assert server.service.store.info()["old_values"] == 0


def test_while_the_process_takes_too_much_the_largest_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_with(memory=64 * MIB)
    server.client(1).exchange(b"START\n" + b"PUT a %s\n" % (b"v" * MIB) * 2)
    server.client(2).exchange(b"START\nPUT b %s\n" % (b"v" * MIB) + b"PUT c %s\n" % (b"v" * MIB))
    monkeypatch.setattr(kvd.daemon.resident, "resident_bytes", lambda: 2**40)
    server.clock.advance(0.1)
    assert server.client(2).ask("GET b")["code"] == "TXN_EXPIRED"
    assert server.client(1).ask("EXISTS a")["result"] is True
    server.clock.pump([0.1] * 10)
    assert server.client(1).ask("GET a")["code"] == "TXN_EXPIRED"


def test_what_is_held_is_given_back() -> None:
    server = server_with()
    budget = server.service.core.budget
    server.play("""
        1 PUT a 1       -> ok
        1 START         -> ok
        1 GET b         -> null
        1 PUT c 3       -> ok
        1 SAVEPOINT s   -> ok
        1 PUT c 4       -> ok
        2 PUT a 2       -> ok
    """)
    assert budget.used > 2 * SESSION_BYTES + pair_bytes("a", "2")
    server.client(1).send(b"half a line")
    for number in (1, 2):
        server.client(number).transport.loseConnection()
    assert budget.used == pair_bytes("a", "2")


def test_half_lines_count_and_the_largest_is_given_up_first() -> None:
    server = server_with(memory=20 * MIB)
    server.client(1).send(b"PUT polite ")
    for number in range(2, 7):
        server.client(number).send(b"x" * (5 * MIB))
    assert server.service.core.budget.buffers.used <= 5 * MIB + spare(20 * MIB)
    assert sum(server.client(number).closed for number in range(2, 7)) >= 2
    assert server.client(1).exchange(b"1\n") == b'{"status": "Ok"}\n'


def test_replies_that_are_not_read_count_and_their_client_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_with(memory=16 * MIB)
    server.client(1).ask("PUT big " + "x" * MIB)
    for number in range(2, 40):
        client = server.client(number)
        protocol = client.protocol  # whose transport now says at each write that its buffer is full
        monkeypatch.setattr(client.transport, "write", lambda _, protocol=protocol: protocol.pauseProducing())
        client.protocol.dataReceived(b"GET big\n")
    assert server.service.core.budget.used <= 16 * MIB + spare(16 * MIB)
    assert any(server.client(number).closed for number in range(2, 40))
    server.play('1 PING -> "PONG"')


def test_who_is_given_up_holds_nothing_even_if_its_transport_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_with(memory=20 * MIB)
    for number in range(1, 6):
        monkeypatch.setattr(server.client(number).transport, "abortConnection", lambda: None)
        server.client(number).send(b"x" * (5 * MIB))
    budget = server.service.core.budget
    assert budget.buffers.used <= 5 * MIB + spare(20 * MIB)
    assert server.service.core.info()["clients"]["dropped"] == 4
    for number in range(1, 6):
        server.client(number).transport.loseConnection()
    assert (budget.used, budget.buffers.used) == (0, 0)


@pytest.mark.parametrize(("text", "bytes_each"), [("x", 1), ("😀", 4)])
def test_lines_that_wait_for_their_client_to_read_count_with_their_text(text: str, bytes_each: int) -> None:
    server = server_with()
    client = server.client(1)
    client.ask("PUT big " + "x" * 70_000)
    client.protocol.dataReceived(f"GET big\nPUT a {text}{'x' * 30_000}\nPUT b {'x' * 30_000}\n".encode())  # one turn
    client.protocol.pauseProducing()
    assert client.protocol.session.buffers.held >= 60_000 * bytes_each
    assert server.service.core.budget.buffers.used == client.protocol.session.buffers.held
    client.protocol.resumeProducing()
    server.settle()
    assert client.protocol.session.buffers.held == 0
    assert server.service.core.budget.buffers.used == 0


def test_waiting_lines_count() -> None:
    server = server_with()
    client = server.client()
    client.protocol.dataReceived(b"GET a\n" * 10_000)
    assert client.protocol.session.buffers.held >= 10_000 * len("GET a\n")
    server.settle()
    assert client.protocol.session.buffers.held == 0


def test_the_default_limit_is_half_of_what_there_is() -> None:
    assert Limits().memory == half_of_memory()
    assert 64 * MIB < half_of_memory() < 2**50


# Fairness


def test_a_long_scan_lets_others_have_their_turn_and_sees_one_instant() -> None:
    server = server_with()
    for number in range(3 * PIECE):
        server.service.store.latest().commit((), {f"key{number:05}": "old"}, 0)
    scanner = server.client(1)
    scanner.protocol.dataReceived(b"SCAN LIMIT 10000\n")
    assert scanner.received() == b""
    for number in range(3 * PIECE):
        server.client(2).protocol.dataReceived(f"PUT key{number:05} new\n".encode())
    server.client(2).protocol.dataReceived(b"PUT key99999 new\nDEL key00000\n")
    server.settle()
    items = json.loads(scanner.received())["result"]["items"]
    assert items == [[f"key{number:05}", "old"] for number in range(3 * PIECE)]
    assert server.service.store.info()["old_values"] == 0


@pytest.mark.parametrize("command", ["SCAN LIMIT 10000", "SCAN KEYS LIMIT 10000 REVERSE", "COUNT", "CHECK"])
def test_a_request_in_pieces_whose_transaction_is_ended_meanwhile_says_so(command: str) -> None:
    server = server_with()
    for number in range(3 * PIECE):
        server.service.store.latest().commit((), {f"key{number:05}": "old"}, 0)
    server.play("1 START -> ok\n1 PUT mine 1 -> ok\n1 COUNT PREFIX key -> 1500")
    for number in range(3 * PIECE):
        server.service.store.latest().commit((), {f"other{number:05}": "new"}, 0)
    server.client(1).protocol.dataReceived(f"{command}\n".encode())
    assert server.client(1).received() == b""
    server.client(1).protocol.session.end_transaction("as the test wanted")
    server.settle()
    assert json.loads(server.client(1).received())["code"] == "TXN_EXPIRED"
    server.play("1 COMMIT -> TXN_EXPIRED\n1 GET mine -> null")
    assert server.service.store.info()["old_values"] == 0


def test_very_short_time_limits_do_not_keep_the_server_busy() -> None:
    server = server_with(transaction_time=1e-5, transaction_idle=1e-9, line_time=1e-7, idle_time=0)
    server.client(1).ask("START")
    looks = 0
    while server.clock.seconds() < 1:
        due = min(call.getTime() for call in server.clock.getDelayedCalls())
        server.clock.advance(due - server.clock.seconds())
        looks += 1
    assert looks < 80
    assert server.client(1).ask("GET a")["code"] == "TXN_EXPIRED"


def test_a_long_scan_backwards_and_a_count_of_the_past_do_the_same() -> None:
    server = server_with()
    for number in range(3 * PIECE):
        server.service.store.latest().commit((), {f"key{number:05}": "old"}, 0)
    server.play("1 START -> ok")
    for number in range(2 * PIECE):
        server.service.store.latest().commit((), {f"key{number:05}": None, f"new{number}": "new"}, 0)
    server.client(1).protocol.dataReceived(b"COUNT\nSCAN KEYS REVERSE LIMIT 10000\nSCAN PREFIX new\nCOMMIT\n")
    server.client(2).protocol.dataReceived(b"PING\n")
    assert server.client(2).received() != b""
    server.settle()
    replies = [json.loads(line) for line in server.client(1).received().splitlines()]
    assert replies[0]["result"] == 3 * PIECE
    assert replies[1]["result"]["items"] == [f"key{number:05}" for number in range(3 * PIECE)][::-1]
    assert replies[2]["result"]["items"] == []
    assert replies[3]["status"] == "Ok"


def test_who_leaves_in_the_middle_of_a_long_scan_leaves_nothing_behind() -> None:
    server = server_with()
    for number in range(3 * PIECE):
        server.service.store.latest().commit((), {f"key{number:05}": "old"}, 0)
    server.client(1).protocol.dataReceived(b"SCAN LIMIT 10000\n")
    store = server.service.store
    assert isinstance(store, MemoryStore)
    assert store.data.history.oldest is not None
    server.client(1).transport.loseConnection()
    server.settle()
    assert store.data.history.oldest is None


def test_of_two_that_pipeline_without_end_neither_starves() -> None:
    server = server_with()
    for number in (1, 2):
        server.client(number).protocol.dataReceived(b"PING\n" * 10_000)
    for _ in range(10):
        server.clock.advance(0)
        first, second = (server.client(number).transport.value().count(b"\n") for number in (1, 2))
        assert abs(first - second) <= 256
    polite = server.client(3)
    polite.protocol.dataReceived(b"PING\n")
    assert polite.received() != b""


def test_a_connection_whose_turn_took_long_waits_until_others_had_theirs() -> None:
    server = server_with()
    greedy = server.client(1)
    server.service.core.about = lambda: _take_time(server.clock)
    greedy.protocol.dataReceived(b"INFO\n")
    assert greedy.received() != b""
    greedy.protocol.dataReceived(b"PING\n")
    assert greedy.received() == b""
    server.client(2).protocol.dataReceived(b"PING\n")
    assert server.client(2).received() != b""
    server.settle()
    assert greedy.received() != b""


def _take_time(clock: Clock) -> dict[str, dict[str, object]]:
    clock.rightNow += 0.1
    return {}


def test_a_new_batch_has_one_turn_at_once_and_keeps_its_order() -> None:
    server = server_with()
    client = server.client(1)
    lines = [f"PING {number}\n".encode() for number in range(20_000)]
    for start in range(0, 20_000, 5_000):  # a transport may deliver more though it was paused
        client.protocol.dataReceived(b"".join(lines[start : start + 5_000]))
    replies = client.received()
    assert replies.count(b"\n") == TURN_REQUESTS
    server.client(2).protocol.dataReceived(b"PING\n")
    assert server.client(2).received() != b""
    server.settle()
    replies += client.received()
    assert [json.loads(line)["result"] for line in replies.splitlines()] == list(map(str, range(20_000)))


def test_large_batches_wait_for_a_turn_while_turns_are_slow() -> None:
    server = server_with()
    batch = b"PUT key " + b"x" * 1000 + b"\n"
    server.client(1).protocol.dataReceived(batch * 60)
    assert server.client(1).received().count(b"\n") == 60
    server.client(1).protocol.dataReceived(batch * 80)  # over 64 KiB
    assert server.client(1).received() == b""
    server.settle()
    assert server.client(1).received().count(b"\n") == 80
    server.service.core.about = lambda: _take_time(server.clock)
    server.client(2).ask("INFO")
    server.client(1).protocol.dataReceived(batch * 60)
    assert server.client(1).received() == b""
    server.client(3).protocol.dataReceived(batch * 8)
    assert server.client(3).received().count(b"\n") == 8
    server.settle()
    assert server.client(1).received().count(b"\n") == 60
    server.clock.advance(2.1)  # 20 times the 0.1 seconds of that turn
    server.client(1).protocol.dataReceived(batch * 60)
    assert server.client(1).received().count(b"\n") == 60


def test_who_took_long_is_not_kept_waiting_for_ever() -> None:
    server = server_with()
    client = server.client(1)
    server.service.core.about = lambda: _take_time(server.clock)
    client.protocol.dataReceived(b"INFO\n")
    server.clock.advance(3)
    client.received()
    client.protocol.dataReceived(b"PING\n")
    assert client.received() != b""


def test_a_turn_ends_after_two_milliseconds() -> None:
    server = server_with()
    server.service.core.about = lambda: _take_time(server.clock)
    server.client(1).protocol.dataReceived(b"INFO\n" * 9)
    assert server.client(1).received().count(b"\n") == 4
    server.settle()
    assert server.client(1).received().count(b"\n") == 5
    server.play("2 START -> ok")
    server.client(2).protocol.dataReceived(b"INFO\n" * 3)
    assert server.client(2).received().count(b"\n") == 1
    server.client(3).protocol.dataReceived((b"INFO" + b" " * 1100 + b"\n") * 3)  # a long line may take long by itself
    assert server.client(3).received().count(b"\n") == 1


@pytest.mark.parametrize("words", [b"SCAN LIMIT 500", b"COUNT", b"MGET " + b"a " * 1000])
def test_what_is_short_is_answered_at_once(words: bytes) -> None:
    server = server_with()
    server.client(1).protocol.dataReceived(words + b"\n")
    assert server.client(1).received() != b""
