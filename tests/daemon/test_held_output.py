"""Applied is not durable: no reply leaves before what it tells of is durable, and all connections share the sync."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from kvd.testing.conversations import Connection, Server
from kvd.testing.stores import SlowSync, slow_sync_store
from tests.support.replies import OK, code, result

SYNC = 0.004


class World:
    """A server on a store with a slow sync. Time passes only when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        store, self.journal = slow_sync_store(self.clock, SYNC)
        self.died: list[str] = []
        self.server = Server(store, self.clock)
        self.server.service._die = self.died.append

    def client(self, number: int = 1) -> Connection:
        return self.server.client(number)

    def say(self, number: int, data: bytes) -> None:
        """Let a packet arrive; no time passes."""
        self.client(number).protocol.dataReceived(data)

    def hears(self, number: int = 1) -> bytes:
        """What a client has got by the end of this turn of the event loop."""
        return self.client(number).received()

    def sync(self) -> None:
        """Let the syncs end that have begun."""
        self.clock.advance(0)
        self.clock.advance(SYNC)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def journal(world: World) -> SlowSync:
    return world.journal


# What is held, and what is not.


def test_a_put_is_answered_when_it_is_durable_and_not_before(world: World) -> None:
    world.say(1, b"PUT a 1\n")
    world.clock.advance(0)
    world.clock.advance(SYNC * 0.9)
    assert world.hears() == b""
    world.clock.advance(SYNC * 0.1)
    assert world.hears() == OK


UNSYNCED = [
    (b"PUT a 1\n", b"GET a\n", result("1")),
    (b"PUT a 1\n", b"MGET b a\n", result([None, "1"])),
    (b"PUT a 1\n", b"EXISTS a\n", result(True)),
    (b"DEL old\n", b"GET old\n", result(None)),
    (b"DEL old\n", b"DEL old\n", OK),
    (b"DEL old\n", b"EXISTS old\n", result(False)),
    (b"PUT a 1\n", b"CAS a 2 3\n", result(False)),
    (b"PUT a 1\n", b"COUNT\n", result(2)),
    (b"DEL old\n", b"COUNT PREFIX old\n", result(0)),
    (b"PUT a 1\n", b"SCAN KEYS PREFIX z\n", result({"items": [], "next": None})),
    (b"PUT a 1\n", b"SCAN KEYS LIMIT 600\n", result({"items": ["a", "old"], "next": None})),
    (b"PUT a 1\n", b"START\nGET old\n", OK + result("x")),
    (b"PUT a 1\n", b"START READONLY\nCOUNT PREFIX old\n", OK + result(1)),
    (b"PUT a x\n", b"INCR a\n", b"NOT_A_NUMBER"),
]


@pytest.mark.parametrize(("change", "look", "seen"), UNSYNCED)
def test_what_rests_on_a_commit_that_is_not_durable_is_held(
    world: World, change: bytes, look: bytes, seen: bytes
) -> None:
    world.client().ask("PUT old x")
    world.say(1, change)
    world.say(2, look)
    for _ in range(5):  # a SCAN in pieces takes some turns
        world.clock.advance(0)
    heard = world.hears(2)
    assert heard in (b"", OK)  # START alone rests on nothing
    world.sync()
    heard += world.hears(2)
    assert heard == seen or code(heard) == seen.decode()


def test_a_conflict_with_a_commit_that_is_not_durable_is_held(world: World) -> None:
    world.say(1, b"START\nGET a\nPUT b 1\n")
    assert world.hears(1) == OK + result(None) + OK
    world.say(2, b"PUT a 2\n")
    world.say(1, b"CHECK\nCOMMIT\n")
    assert world.hears(1) == b""
    world.sync()
    check, commit = world.hears(1).splitlines(keepends=True)
    assert b'"commits": false' in check
    assert code(commit) == "CONFLICT"


def test_a_key_that_no_such_commit_wrote_is_answered_at_once(world: World) -> None:
    world.client().ask("PUT old x")
    world.say(1, b"PUT a 1\n")
    world.say(2, b"GET old\nEXISTS b\nPING\n")
    assert world.hears(2) == result("x") + result(False) + result("PONG")
    assert world.hears(1) == b""


def test_a_transaction_that_began_before_it_is_answered_at_once(world: World) -> None:
    world.client().ask("PUT old x")
    world.say(2, b"START\n")
    world.say(1, b"PUT a 1\n")
    world.say(2, b"GET a\nGET old\nCOMMIT\n")
    assert world.hears(2) == OK + result(None) + result("x") + OK


def test_no_reply_overtakes_one_that_is_held(world: World) -> None:
    world.say(1, b"PUT a 1\n")
    world.say(1, b"PING\nGET b\n")
    world.clock.advance(0)
    assert world.hears() == b""
    world.sync()
    assert world.hears() == OK + result("PONG") + result(None)


def test_an_incr_that_commits_later_waits_for_what_it_has_read(world: World) -> None:
    world.say(1, b"INCR n\nINCR n\n")
    world.say(2, b"INCR n\n")
    world.clock.advance(0)
    assert (world.hears(1), world.hears(2)) == (b"", b"")
    world.sync()
    world.sync()
    assert (world.hears(1), world.hears(2)) == (result(1) + result(2), result(3))


# Syncs are shared.


def test_64_puts_and_64_gets_in_flight_take_two_or_three_syncs(world: World, journal: SlowSync) -> None:
    for number in range(64):
        world.say(1, b"PUT key%d %d\n" % (number, number))
    world.say(1, b"".join(b"GET key%d\n" % number for number in range(64)))
    for _ in range(3):
        world.sync()
    assert world.hears() == OK * 64 + b"".join(result(str(number)) for number in range(64))
    assert journal.syncs <= 3


def test_50_clients_share_the_sync(world: World, journal: SlowSync) -> None:
    for number in range(1, 51):
        world.say(number, b"PUT key%d x\n" % number)
    world.sync()
    assert [world.hears(number) for number in range(1, 51)] == [OK] * 50
    assert journal.syncs == 1


def test_what_comes_during_a_sync_waits_for_the_next_one(world: World, journal: SlowSync) -> None:
    world.say(1, b"PUT a 1\n")
    world.clock.advance(0)
    world.say(2, b"PUT b 1\n")
    world.say(3, b"PUT c 1\n")
    world.clock.advance(SYNC)
    assert [world.hears(number) for number in (1, 2, 3)] == [OK, b"", b""]
    world.clock.advance(SYNC)
    assert [world.hears(number) for number in (2, 3)] == [OK, OK]
    assert journal.syncs == 2


# Limits.


def test_held_replies_count_in_the_connections_account_and_stop_its_reading(world: World) -> None:
    value = b"x" * 10_000
    world.say(1, b"PUT a " + value + b"\n")
    for _ in range(9):
        world.say(1, b"GET a\n")
    client = world.client()
    assert client.protocol.session.buffers.held >= 7 * 10_000
    assert client.transport.producerState == "paused"
    arrived = world.client().protocol.session.buffers.held
    world.say(1, b"GET a\n" * 100)  # what arrives all the same is kept, and not answered
    assert client.protocol.session.buffers.held < arrived + 10_000
    world.server.settle()
    assert client.received() == OK + result(value.decode()) * 109
    assert client.transport.producerState == "producing"
    assert client.protocol.session.buffers.held == 0


# The end of a connection.


def test_quit_is_answered_and_the_connection_closed_after_what_is_held(world: World) -> None:
    world.say(1, b"PUT a 1\nQUIT\nGET a\n")
    world.clock.advance(0)
    assert not world.client().closed
    world.sync()
    assert world.hears() == OK * 2
    assert world.client().closed


def test_a_client_that_sends_no_more_gets_what_is_held_before_the_close(world: World) -> None:
    world.say(1, b"PUT a 1\n")
    world.client().protocol.readConnectionLost()
    assert not world.client().closed
    world.sync()
    assert world.hears() == OK
    assert world.client().closed


def test_a_line_that_closes_the_connection_does_so_after_what_is_held(world: World) -> None:
    world.say(1, b"PUT a 1\nGET / HTTP/1.1\n")
    assert not world.client().closed
    world.sync()
    first, second = world.hears().splitlines(keepends=True)
    assert (first, code(second)) == (OK, "BAD_REQUEST")
    assert world.client().closed


def test_a_client_that_leaves_takes_what_is_held_with_it(world: World) -> None:
    world.say(1, b"PUT a 1\n")
    world.say(2, b"GET a\n")
    world.client(1).transport.loseConnection()
    world.sync()
    assert world.hears(1) == b""
    assert world.hears(2) == result("1")
    assert world.server.service.core.budget.buffers.used == 0


def test_a_server_that_stops_delivers_what_is_held(world: World) -> None:
    world.say(1, b"PUT a 1\n")
    stopped = world.server.service.stopService()
    assert not stopped.called
    world.sync()
    assert world.hears() == OK
    assert stopped.called


def test_nobody_is_told_of_what_a_failed_sync_has_not_made_durable(world: World, journal: SlowSync) -> None:
    world.say(3, b"PING\n")
    world.say(1, b"PUT a 1\nPING\n")
    world.say(2, b"GET a\n")
    journal.broken = True
    world.sync()
    assert [world.hears(number) for number in (1, 2, 3)] == [b"", b"", result("PONG")]
    assert [world.client(number).closed for number in (1, 2)] == [True, True]
    assert world.died == ["the disk is broken"]
