"""The Deferred client, over memory and virtual time; over sockets where those are what counts."""

from __future__ import annotations

import gc
import inspect
import signal
import socket
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, ParamSpec

import pytest
from twisted.internet import reactor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from kvd import blocking, errors
from kvd import client as deferred
from kvd.client import Client, Page, Transaction, connect
from kvd.errors import (
    Aborted,
    BadRequest,
    Busy,
    Conflict,
    Internal,
    KvdError,
    NotANumber,
    NoTransaction,
    OutcomeUnknown,
    TransactionExpired,
    Unavailable,
)
from kvd.link import Link
from kvd.protocol import KvdFactory
from kvd.requests import full_jitter
from kvd.service import StoreService
from kvd.stores.memory import MemoryStore
from kvd.testing import MemoryServer
from kvd.wire import MAX_REPLY
from tests.daemon import Daemon

P = ParamSpec("P")


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def client(server: MemoryServer) -> Client:
    return server.connect()


@pytest.fixture(autouse=True)
def _no_error_goes_unhandled() -> Iterator[None]:
    with capturedLogs() as told:
        yield
        gc.collect()
    assert [event for event in told if event["log_level"] is LogLevel.critical] == []


def outcome_of(deferred: Deferred[Any]) -> list[Any]:
    """A list that will hold the result, or the exception, once it is there."""
    found: list[Any] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


def connections(server: MemoryServer, client: Client) -> tuple[int, int]:
    """How many connections there are, and how many there have been."""
    clients = server.run(client.info("clients"))
    return clients["connected"], clients["accepted"]


async def add_one(txn: Transaction, key: str) -> int:
    number = int(await txn.get(key) or 0) + 1
    await txn.put(key, str(number))
    return number


async def transfer(txn: Transaction, source: str, target: str, amount: int) -> None:
    have = int(await txn.get(source) or 0)
    await txn.put(source, str(have - amount))
    await txn.put(target, str(int(await txn.get(target) or 0) + amount))


# Commands.


def test_every_command_gives_what_it_says(server: MemoryServer, client: Client) -> None:
    run = server.run
    assert run(client.put("a key", "two\nlines")) is None
    assert run(client.get("a key")) == "two\nlines"
    assert run(client.get("none")) is None
    assert run(client.mget("a key", "none")) == ["two\nlines", None]
    assert run(client.exists("a key")) is True
    assert run(client.delete("a key")) is None
    assert run(client.exists("a key")) is False
    assert run(client.incr("n")) == 1
    assert run(client.incr("n", -3)) == -2
    assert run(client.cas("c", None, "1")) is True
    assert run(client.cas("c", None, "2")) is False
    assert run(client.cas("c", "1", None)) is True
    assert run(client.put("p1", "x")) is None
    assert run(client.put("p2", "y")) is None
    assert run(client.scan("p")) == Page([("p1", "x"), ("p2", "y")], None)
    assert run(client.scan("p", limit=1, keys_only=True)) == Page(["p1"], "p2")
    assert run(client.scan("p", start="p2")).items == [("p2", "y")]
    assert run(client.scan("p", end="p2", reverse=True)).items == [("p1", "x")]
    assert run(client.count()) == 3
    assert run(client.count("p")) == 2
    assert run(client.ping()) == "PONG"
    assert run(client.ping("hello")) == "hello"
    assert "version" in run(client.info())["server"]
    assert run(client.help("rollback to")).startswith("ROLLBACK TO")


def test_both_clients_have_the_same_commands_with_the_same_arguments() -> None:
    for mine, theirs in ((deferred.Commands, blocking.Commands), (deferred.Transaction, blocking.Transaction)):
        names = {name for name, _ in inspect.getmembers(theirs, inspect.isfunction) if name[0] != "_"}
        assert names == {name for name, _ in inspect.getmembers(mine, inspect.isfunction) if name[0] != "_"}
        for name in names:
            one, other = (inspect.signature(getattr(kind, name)).parameters for kind in (mine, theirs))
            assert [str(parameter) for parameter in one.values()] == [str(parameter) for parameter in other.values()]


def test_an_error_is_raised_as_the_class_of_its_code(server: MemoryServer, client: Client) -> None:
    server.run(client.put("word", "abc"))
    with pytest.raises(NotANumber, match="'word' is no integer"):
        server.run(client.incr("word"))
    with pytest.raises(errors.UnknownCommand, match="did you mean GET"):
        server.run(client.call("GETT", "a"))
    assert server.run(client.get("word")) == "abc"


def test_a_thousand_requests_at_once_share_one_connection_and_each_gets_its_own_reply(
    server: MemoryServer, client: Client
) -> None:
    server.run(gatherResults([client.put(f"key{n}", f"value{n}") for n in range(1000)]))
    assert server.run(gatherResults([client.get(f"key{n}") for n in range(1000)])) == [f"value{n}" for n in range(1000)]
    assert connections(server, client) == (1, 1)


def test_the_reply_to_a_cancelled_request_goes_to_nobody_else(server: MemoryServer, client: Client) -> None:
    server.run(gatherResults([client.put("a", "1"), client.put("b", "2")]))
    cancelled = client.get("a")
    found = outcome_of(cancelled)
    other = client.get("b")
    cancelled.cancel()
    assert isinstance(found[0], CancelledError)
    assert server.run(other) == "2"
    assert len(found) == 1
    assert connections(server, client) == (1, 1)


@pytest.mark.parametrize("word", ["START", "start", "QUIT"])
def test_what_would_disturb_others_on_the_shared_connection_is_not_sent(
    server: MemoryServer, client: Client, word: str
) -> None:
    with pytest.raises(BadRequest, match="has no place"):
        server.run(client.call(word))
    assert server.run(client.info("transactions"))["open"] == 0


# Time-outs, and connections that end.


def test_a_reply_that_is_late_fails_all_that_is_under_way_and_is_never_taken_for_another(server: MemoryServer) -> None:
    client = server.connect(timeout=10)
    server.run(client.put("a", "1"))
    server.store_delay = 25
    read, write = outcome_of(client.get("a")), outcome_of(client.incr("n"))
    server.advance(9.9)
    assert read == []
    server.advance(0.2)
    assert isinstance(read[0], Unavailable)
    assert "within 10 seconds" in str(read[0])
    assert isinstance(write[0], OutcomeUnknown)
    server.store_delay = 0
    assert server.run(client.get("b")) is None
    server.advance(60)
    assert server.run(client.get("a")) == "1"
    assert server.run(client.get("n")) is None  # it was behind the GET, and had not begun


def test_requests_that_get_their_replies_in_time_are_not_counted_together(server: MemoryServer) -> None:
    client = server.connect(timeout=10)
    server.store_delay = 4
    first, second = client.get("a"), client.get("a")
    assert server.run(gatherResults([first, second])) == [None, None]
    server.advance(9)
    assert server.run(client.get("a")) is None
    assert connections(server, client) == (1, 1)


def test_each_request_has_its_own_time(server: MemoryServer) -> None:
    client = server.connect(timeout=10)
    server.run(client.get("a"))
    server.advance(3)
    server.store_delay = 25
    found = outcome_of(client.get("a"))
    server.advance(9.9)
    assert found == []
    server.advance(0.2)
    assert type(found[0]) is Unavailable


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda client: client.get("a"), Unavailable),
        (lambda client: client.scan(), Unavailable),
        (lambda client: client.put("a", "1"), OutcomeUnknown),
        (lambda client: client.delete("a"), OutcomeUnknown),
        (lambda client: client.incr("a"), OutcomeUnknown),
        (lambda client: client.cas("a", None, "1"), OutcomeUnknown),
        (lambda client: client.call("put", "a", "1"), OutcomeUnknown),
    ],
)
def test_a_lost_connection_tells_apart_what_may_have_been_done(
    server: MemoryServer, client: Client, ask: Callable[[Client], Deferred[Any]], error: type[KvdError]
) -> None:
    found = outcome_of(ask(client))
    server.lose_links()
    assert type(found[0]) is error


def test_after_a_lost_connection_the_client_has_a_new_one(server: MemoryServer, client: Client) -> None:
    server.run(client.put("a", "1"))
    server.lose_links()
    assert server.run(client.get("a")) == "1"
    assert connections(server, client) == (1, 2)


def test_commands_wait_in_order_for_a_server_that_is_away_for_a_moment(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    commands: list[Deferred[Any]] = [client.put("a", "1"), client.get("a"), client.put("a", "2"), client.get("a")]
    server.advance(2)
    server.reachable = True
    assert server.run(gatherResults(commands)) == [None, "1", None, "2"]


def test_commands_fail_after_five_seconds_without_a_server_and_surely_were_not_done(
    server: MemoryServer, client: Client
) -> None:
    server.reachable = False
    server.lose_links()
    found = outcome_of(client.put("a", "1"))
    server.advance(4.9)
    assert found == []
    server.advance(0.2)
    assert type(found[0]) is Unavailable
    assert not client._waiting
    server.reachable = True
    server.advance(5)
    assert server.run(client.get("a")) is None


def test_a_command_that_is_cancelled_while_it_waits_for_the_server_is_never_sent(
    server: MemoryServer, client: Client
) -> None:
    server.reachable = False
    server.lose_links()
    waiting = client.put("a", "1")
    found = outcome_of(waiting)
    waiting.cancel()
    assert isinstance(found[0], CancelledError)
    assert not client._waiting
    server.reachable = True
    server.advance(5)
    assert server.run(client.get("a")) is None


def test_connecting_to_nothing_fails_and_leaves_nothing_behind(server: MemoryServer) -> None:
    server.reachable = False
    before = len(server.clock.getDelayedCalls())
    with pytest.raises(Unavailable, match="refused"):
        server.connect()
    assert len(server.clock.getDelayedCalls()) == before


def test_connecting_to_what_is_no_endpoint_fails(server: MemoryServer) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        server.run(connect(server.clock, "nonsense:1"))


class Says(Protocol):
    """A server that says something to everyone who comes, and closes."""

    greeting = b'{"status": "Error", "mesg": "too many clients", "code": "BUSY"}\n'

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.greeting)
        self.transport.loseConnection()


def test_a_server_that_is_full_is_told_from_one_that_is_away(server: MemoryServer) -> None:
    server._factory = Factory.forProtocol(Says)
    with pytest.raises(Busy, match="too many clients"):
        server.connect()


def test_something_that_is_no_kvd_server_is_recognized(server: MemoryServer) -> None:
    class SpeaksSmtp(Says):
        greeting = b"220 mail.example ESMTP\r\n"

    server._factory = Factory.forProtocol(SpeaksSmtp)
    with pytest.raises(Unavailable, match="no kvd server"):
        server.connect()


def test_a_reply_that_is_none_is_the_error_of_its_request(server: MemoryServer) -> None:
    class Parrot(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data)

    server._factory = Factory.forProtocol(Parrot)
    with pytest.raises(Internal, match="no reply of a kvd server"):
        server.connect()


def test_replies_are_found_however_they_are_cut(server: MemoryServer, client: Client) -> None:
    long = "x" * 100_000
    server.run(client.put("long", long))
    (end,) = server._ends
    receive, cuts = end.protocol.dataReceived, [1, 2, 3, 50_000, 7]

    def in_pieces(data: bytes) -> None:
        for size in cuts:
            receive(data[:size])
            data = data[size:]
        receive(data)

    end.protocol.dataReceived = in_pieces
    requests: list[Deferred[Any]] = [client.ping(), client.get("long"), client.ping()]
    assert server.run(gatherResults(requests)) == ["PONG", long, "PONG"]


@pytest.fixture
def link() -> Link:
    link = Link()
    link.makeConnection(StringTransport(peerAddress=UNIXAddress(None)))
    return link


def test_a_reply_that_never_ends_is_not_kept(link: Link) -> None:
    found = outcome_of(link.send(b"PING\n"))
    for _ in range(MAX_REPLY // 2**20):
        link.dataReceived(b"x" * 2**20)
    assert found == []
    link.dataReceived(b"x")
    assert "too long" in str(found[0])
    assert isinstance(link.transport, StringTransport)
    assert link.transport.disconnecting


def test_long_replies_are_not_counted_together(link: Link) -> None:
    half = b"x" * (MAX_REPLY // 3 * 2)
    replies = [link.send(b"PING\n") for _ in range(3)]
    for _ in replies:
        link.dataReceived(half)
        link.dataReceived(b"\n")
    assert [len(outcome_of(reply)[0]) for reply in replies] == [len(half)] * 3
    assert link.lost is None


def test_a_disconnected_client_is_disconnected_for_good(server: MemoryServer, client: Client) -> None:
    server.run(client.transact(add_one, "a"))
    under_way = outcome_of(client.put("a", "5"))
    disconnecting = client.disconnect()
    too_late = outcome_of(client.put("b", "5"))
    assert type(too_late[0]) is Unavailable
    server.run(disconnecting)
    assert len(under_way) == 1
    for use in (client.get("a"), client.transact(add_one, "a")):
        with pytest.raises(Unavailable, match="disconnected"):
            server.run(use)
    server.advance(100)
    assert connections(server, server.connect()) == (1, 3)


def test_a_disconnected_client_leaves_nothing_behind(server: MemoryServer) -> None:
    before = len(server.clock.getDelayedCalls())
    client = server.connect()
    server.run(gatherResults([client.transact(add_one, key) for key in "abc"]))
    server.run(client.disconnect())
    assert len(server.clock.getDelayedCalls()) == before
    assert server._ends == []


def test_disconnecting_fails_the_commands_that_wait_for_a_server(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    found = outcome_of(client.put("a", "1"))
    server.run(client.disconnect())
    assert type(found[0]) is Unavailable
    assert "disconnected" in str(found[0])


@implementer(IStreamClientEndpoint)
class LateEndpoint:
    """Connects to a server once it is told to, but for the first connection, which it makes at once."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.late: list[Deferred[IProtocol]] = []
        self.factories: list[IProtocolFactory] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if not self.factories:
            self.factories.append(protocolFactory)
            return self.server.endpoint.connect(protocolFactory)
        self.factories.append(protocolFactory)
        self.late.append(Deferred())
        return self.late[-1]


def test_a_connection_that_is_not_made_in_time_is_given_up(server: MemoryServer) -> None:
    endpoint = LateEndpoint(server)
    client = server.run(connect(server.clock, endpoint, retry_for=0))
    found = outcome_of(client.transact(add_one, "a"))
    server.advance(4.9)
    assert found == []
    server.advance(0.2)
    assert type(found[0]) is Unavailable
    assert endpoint.late[0].called  # it was cancelled


def test_a_connection_that_is_made_when_the_client_is_disconnected_already_is_closed(server: MemoryServer) -> None:
    endpoint = LateEndpoint(server)
    client = server.run(connect(server.clock, endpoint))
    found = outcome_of(client.transact(add_one, "a"))
    server.flush()
    server.run(client.disconnect())
    server.endpoint.connect(endpoint.factories[1]).chainDeferred(endpoint.late[0])
    server.flush()
    assert server._ends == []
    assert type(found[0]) is Unavailable


def test_disconnecting_turns_away_who_waits_for_a_connection(server: MemoryServer) -> None:
    client = server.connect(pool=1)

    async def hold() -> None:
        async with client.transaction():
            await Deferred()

    holding, waiting = outcome_of(Deferred.fromCoroutine(hold())), outcome_of(client.transact(add_one, "a"))
    server.flush()
    assert (holding, waiting) == ([], [])
    server.run(client.disconnect())
    assert type(waiting[0]) is Unavailable
    assert holding == []


# Transactions.


def test_a_transaction_is_stored_as_a_whole_at_its_end(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await txn.put("b", "2")
            assert await txn.get("a") == "1"
            assert await client.get("a") is None
        assert await client.mget("a", "b") == ["1", "2"]

    server.run(play())


def test_a_transaction_rolls_back_when_its_block_raises(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            raise LookupError("no")

    with pytest.raises(LookupError):
        server.run(play())
    server.flush()
    assert server.run(client.info("transactions"))["rolled_back"] == 1
    assert server.run(client.get("a")) is None


def test_a_transaction_rolls_back_when_its_deferred_is_cancelled(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await Deferred()

    playing = Deferred.fromCoroutine(play())
    found = outcome_of(playing)
    server.flush()
    playing.cancel()
    assert isinstance(found[0], CancelledError)
    server.flush()
    assert server.run(client.info("transactions"))["rolled_back"] == 1
    assert server.run(client.transact(add_one, "a")) == 1
    assert connections(server, client) == (2, 2)


def test_a_transaction_rolls_back_when_its_coroutine_is_closed(server: MemoryServer, client: Client) -> None:
    never: Deferred[None] = Deferred()

    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await never

    coroutine = play()
    while coroutine.send(None) is not never:
        server.flush()
    assert server.run(client.info("transactions"))["open"] == 1
    coroutine.close()
    server.flush()
    assert server.run(client.info("transactions"))["open"] == 0
    assert server.run(client.get("a")) is None


def test_a_transaction_never_shares_its_connection(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as one, client.transaction() as other:
            await one.put("a", "1")
            await other.put("b", "2")
            await client.put("c", "3")
            assert await client.mget("a", "b", "c") == [None, None, "3"]
            assert [(await txn.check())["writes"] for txn in (one, other)] == [1, 1]

    server.run(play())
    assert server.run(client.mget("a", "b", "c")) == ["1", "2", "3"]
    assert connections(server, client) == (3, 3)


def test_transactions_one_after_the_other_use_one_connection(server: MemoryServer, client: Client) -> None:
    for number in range(1, 6):
        assert server.run(client.transact(add_one, "a")) == number
    assert connections(server, client) == (2, 2)


def test_a_transaction_whose_connection_broke_has_failed_and_nothing_of_it_runs_outside(
    server: MemoryServer, client: Client
) -> None:
    ran: list[type[BaseException]] = []

    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            server.lose_links()
            for use in (txn.put("b", "2"), txn.get("a"), txn.savepoint("s")):
                try:
                    await use
                except KvdError as error:
                    ran.append(type(error))
            assert await client.get("a") is None  # the client itself is connected again

    with pytest.raises(Unavailable, match="nothing was stored"):
        server.run(play())
    assert ran == [Unavailable] * 3
    assert server.run(client.count()) == 0


def test_what_is_under_way_in_a_transaction_is_surely_not_stored_when_its_connection_breaks(
    server: MemoryServer, client: Client
) -> None:
    failed: list[Any] = []

    async def under_way() -> None:
        async with client.transaction() as txn:
            failed.append(outcome_of(txn.put("a", "1")))
            server.lose_links()

    with pytest.raises(Unavailable):
        server.run(under_way())
    assert type(failed[0][0]) is Unavailable


def test_a_transaction_can_not_be_opened_twice_at_once(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        txn = client.transaction()
        async with txn:
            await txn.put("a", "1")
            with pytest.raises(NoTransaction):
                await txn.__aenter__()
            await txn.put("b", "2")

    server.run(play())
    assert server.run(client.count()) == 2


def test_a_transaction_that_is_over_can_not_be_used(server: MemoryServer, client: Client) -> None:
    async def play() -> Transaction:
        async with client.transaction() as txn:
            await txn.put("a", "1")
        return txn

    txn = server.run(play())
    for use in (txn.put("a", "2"), client.transaction().get("a")):
        with pytest.raises(NoTransaction):
            server.run(use)
    assert server.run(client.get("a")) == "1"


@pytest.mark.parametrize("words", [("COMMIT",), ("commit",), ("ROLLBACK",), ("START",), ("QUIT",)])
def test_a_transaction_can_not_be_ended_behind_its_back(
    server: MemoryServer, client: Client, words: tuple[str, ...]
) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            with pytest.raises(BadRequest):
                await txn.call(*words)
            await txn.put("b", "2")
            assert await client.count() == 0

    server.run(play())
    assert server.run(client.count()) == 2


def test_an_error_inside_dooms_the_transaction_though_nobody_waited_for_it(
    server: MemoryServer, client: Client
) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "word")
            outcome_of(txn.incr("a"))

    with pytest.raises(Aborted, match="no integer"):
        server.run(play())
    assert server.run(client.get("a")) is None


def test_savepoints_take_back_a_part(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await txn.savepoint("s")
            await txn.put("b", "2")
            assert (await txn.check())["writes"] == 2
            await txn.rollback_to("s")
            await txn.release("s")

    server.run(play())
    assert server.run(client.mget("a", "b")) == ["1", None]


def test_a_read_only_transaction_may_not_write(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction(read_only=True) as txn:
            assert await txn.get("a") is None
            await txn.put("a", "1")

    with pytest.raises(errors.ReadOnly):
        server.run(play())


def test_a_commit_whose_reply_is_lost_has_an_unknown_outcome_either_way(server: MemoryServer, client: Client) -> None:
    runs: list[None] = []

    async def counted(txn: Transaction) -> None:
        runs.append(None)
        await add_one(txn, "a")

    for lose, stored in ((server.lose_link_before_next_commit, None), (server.lose_link_after_next_commit, "1")):
        lose()
        with pytest.raises(OutcomeUnknown):
            server.run(client.transact(counted))
        assert server.run(client.get("a")) == stored
    assert len(runs) == 2  # an unknown outcome is never repeated


def test_a_commit_of_a_transaction_that_only_read_is_never_of_unknown_outcome(
    server: MemoryServer, client: Client
) -> None:
    async def read() -> None:
        async with client.transaction() as txn:
            await txn.get("a")

    server.lose_link_after_next_commit()
    with pytest.raises(Unavailable):
        server.run(read())


# The pool.


def test_a_connection_is_used_again_only_when_its_transaction_has_surely_ended(server: MemoryServer) -> None:
    client = server.connect(retry_for=0, timeout=100)
    server.run(client.transact(add_one, "a"))
    assert connections(server, client) == (2, 2)

    server.conflict_at_next_commit()
    with pytest.raises(Conflict):
        server.run(client.transact(add_one, "a"))
    assert server.run(client.transact(add_one, "a")) == 2
    assert connections(server, client) == (2, 2)

    async def idle(txn: Transaction) -> None:
        await txn.put("a", "9")
        server.advance(70)

    with pytest.raises(TransactionExpired):
        server.run(client.transact(idle))
    assert server.run(client.transact(add_one, "a")) == 3
    assert connections(server, client) == (2, 2)

    server.store_delay = 40  # longer than the server waits for its store
    commit = outcome_of(client.transact(lambda txn: txn.put("b", "1")))
    with pytest.raises(AssertionError):
        server.run(Deferred(), limit=100)
    server.store_delay = 0
    assert type(commit[0]) is Unavailable  # START was refused, and that leaves a doomed transaction open
    server.advance(100)
    assert server.run(client.transact(add_one, "a")) == 4
    assert connections(server, client) == (2, 3)


def test_a_commit_that_is_cancelled_drops_its_connection(server: MemoryServer, client: Client) -> None:
    async def begin(txn: Transaction) -> None:
        await txn.put("a", "1")
        server.store_delay = 1

    committing = client.transact(begin)
    found = outcome_of(committing)
    server.flush()
    assert found == []
    committing.cancel()
    assert isinstance(found[0], CancelledError)
    server.store_delay = 0
    server.advance(2)
    assert server.run(client.get("a")) == "1"  # it had been accepted
    server.run(client.transact(add_one, "a"))
    assert connections(server, client) == (2, 3)


def test_transactions_wait_for_a_connection_in_order_and_a_cancelled_one_gives_up_its_place(
    server: MemoryServer,
) -> None:
    client = server.connect(pool=2)
    gates: dict[str, Deferred[None]] = {name: Deferred() for name in "abcde"}
    began: list[str] = []

    async def wait_at(txn: Transaction, name: str) -> None:
        began.append(name)
        await gates[name]

    running = {name: client.transact(wait_at, name) for name in "abcde"}
    server.flush()
    assert began == ["a", "b"]
    found = outcome_of(running["c"])
    running["c"].cancel()
    assert isinstance(found[0], CancelledError)
    gates["b"].callback(None)
    server.flush()
    assert began == ["a", "b", "d"]
    for name in "ade":
        gates[name].callback(None)
    server.flush()
    assert began == ["a", "b", "d", "e"]
    server.run(gatherResults([running[name] for name in "abde"]))
    assert connections(server, client) == (3, 3)


def test_connections_are_closed_in_the_order_in_which_they_were_made(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.connect(pool=20)
    made: list[int] = []
    closed: list[int] = []

    async def play(txn: Transaction) -> None:
        made.append(id(txn._link))
        await txn.get("a")

    server.run(gatherResults([client.transact(play) for _ in range(20)]))
    close = Link.close

    def closing(link: Link) -> None:
        closed.append(id(link))
        close(link)

    monkeypatch.setattr(Link, "close", closing)
    server.run(client.disconnect())
    assert closed == made


def test_a_closed_coroutine_gives_up_its_place(server: MemoryServer) -> None:
    client = server.connect(pool=1)

    async def play() -> None:
        async with client.transaction():
            pass

    async def hold() -> None:
        async with client.transaction():
            waiting = play()
            waiting.send(None)
            waiting.close()

    server.run(hold())
    assert server.run(client.transact(add_one, "a")) == 1


def test_a_transaction_inside_a_transaction_does_not_wait_for_ever_for_the_last_connection(
    server: MemoryServer,
) -> None:
    client = server.connect(pool=1)

    async def play() -> None:
        async with client.transaction(), client.transaction():
            pass

    with pytest.raises(Unavailable, match="all 1 connections for transactions were in use for 60 seconds"):
        server.run(play())
    assert server.run(client.transact(add_one, "a")) == 1


def test_a_connection_that_broke_while_it_was_idle_is_not_used(server: MemoryServer, client: Client) -> None:
    server.run(client.transact(add_one, "a"))
    server.lose_links()

    async def play() -> None:
        async with client.transaction() as txn:
            await add_one(txn, "a")

    server.run(play())
    assert server.run(client.get("a")) == "2"


# transact.


def test_transact_gives_what_its_function_returned_and_passes_arguments_on(
    server: MemoryServer, client: Client
) -> None:
    async def told(txn: Transaction, /, *args: int, **options: int) -> Any:
        return args, options

    assert server.run(client.transact(told, 1, 2, three=3)) == ((1, 2), {"three": 3})


def test_transact_takes_functions_that_return_deferreds(server: MemoryServer, client: Client) -> None:
    @inlineCallbacks
    def add(txn: Transaction, key: str) -> Generator[Deferred[Any], Any, int]:
        number = int((yield txn.get(key)) or 0) + 1
        yield txn.put(key, str(number))
        return number

    assert server.run(client.transact(add, "a")) == 1
    assert server.run(client.transact(lambda txn: txn.incr("a"))) == 2

    def copy(txn: Transaction) -> Deferred[None]:
        return txn.get("a").addCallback(lambda value: txn.put("b", str(value)))

    server.run(client.transact(copy))
    assert server.run(client.mget("a", "b")) == ["2", "2"]


def test_transact_refuses_a_function_that_could_not_have_waited_for_anything(
    server: MemoryServer, client: Client
) -> None:
    def plain(txn: Transaction) -> Any:
        txn.put("a", "1")

    with pytest.raises(TypeError):
        server.run(client.transact(plain))
    assert server.run(client.get("a")) is None


def test_transact_runs_again_after_a_conflict(server: MemoryServer, client: Client) -> None:
    server.conflict_at_next_commit()
    assert server.run(client.transact(add_one, "a")) == 1
    assert server.run(client.info("transactions"))["conflicts"] == 1


def test_transact_does_not_repeat_what_its_function_raises(server: MemoryServer, client: Client) -> None:
    runs: list[None] = []

    async def fails(txn: Transaction) -> None:
        runs.append(None)
        await txn.put("a", "1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        server.run(client.transact(fails))
    assert len(runs) == 1
    assert server.run(client.get("a")) is None


def test_transact_gives_up_with_the_last_conflict_when_its_time_is_over(server: MemoryServer) -> None:
    client = server.connect(retry_for=3, rand=lambda: 1.0)
    began: list[float] = []

    async def always_loses(txn: Transaction) -> None:
        began.append(server.clock.seconds())
        await txn.put("a", str(await txn.get("a")))
        await client.put("a", "changed meanwhile")

    with pytest.raises(Conflict) as caught:
        server.run(client.transact(always_loses))
    assert caught.value.fields["key"] == "a"
    pauses = [round(later - sooner, 6) for sooner, later in pairwise(began)]
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]
    assert server.clock.seconds() < 3


def test_pauses_are_spread_over_all_of_a_limit_that_doubles() -> None:
    assert [full_jitter(attempt, 0.01, 1.0, lambda: 0.5) for attempt in (1, 2, 3, 8, 5000)] == [
        0.005,
        0.01,
        0.02,
        0.5,
        0.5,
    ]
    assert full_jitter(3, 0.01, 1.0, lambda: 0.0) == 0


def test_transact_outlives_a_server_that_is_away_for_a_moment(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    adding = client.transact(add_one, "a")
    server.advance(3)
    server.reachable = True
    assert server.run(adding) == 1


def test_transact_stops_trying_when_the_client_is_disconnected(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    found = outcome_of(client.transact(add_one, "a"))
    server.flush()
    server.run(client.disconnect())
    server.advance(2)
    assert type(found[0]) is Unavailable


def test_a_cancelled_transact_does_not_try_again(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    adding = client.transact(add_one, "a")
    found = outcome_of(adding)
    server.flush()
    adding.cancel()
    assert isinstance(found[0], CancelledError)
    server.reachable = True
    server.advance(40)
    assert server.run(client.get("a")) is None


def test_forty_transfers_at_once_between_the_same_two_keys_all_get_through(server: MemoryServer) -> None:
    client = server.connect()
    server.network_delay = lambda from_client: 0.0005
    server.run(gatherResults([client.transact(transfer, "alice", "bob", 1) for _ in range(40)]))
    assert server.run(client.mget("alice", "bob")) == ["-40", "40"]
    assert server.run(client.info("transactions"))["conflicts"] > 40
    assert server.clock.seconds() < 30


# Over sockets.


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def over_sockets(test: Callable[P, Awaitable[None]]) -> Callable[P, Deferred[None]]:
    """Run a test on the real reactor, for at most half a minute; pytest-twisted waits for its Deferred."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> Deferred[None]:
        return Deferred.fromCoroutine(_run(test(*args, **kwargs))).addTimeout(30, reactor)

    return run


async def _run(running: Awaitable[None]) -> None:
    await running


@over_sockets
async def test_the_same_transfers_get_through_over_tcp() -> None:
    service = StoreService(MemoryStore(), reactor)
    service.startService()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(KvdFactory(service))
    client = await connect(reactor, f"tcp:127.0.0.1:{port.getHost().port}")
    try:
        await gatherResults([client.transact(transfer, "alice", "bob", 1) for _ in range(40)])
        assert await client.mget("alice", "bob") == ["-40", "40"]
        assert await gatherResults([client.get("bob") for _ in range(1000)]) == ["40"] * 1000
    finally:
        await client.disconnect()
        await port.stopListening()
        await service.stopService()


@over_sockets
async def test_a_program_lives_on_when_its_daemon_is_killed_and_started_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Daemon(first, "--port", "0").started() as daemon:
        client = await connect(reactor, f"tcp:127.0.0.1:{daemon.port}")
        assert await client.transact(add_one, "a") == 1
        daemon.stop(signal.SIGKILL)
        waiting, adding = client.put("b", "2"), client.transact(add_one, "a")
        with Daemon(second, "--port", str(daemon.port)).started():
            with pytest.raises((OutcomeUnknown, Unavailable)):  # its connection was there when it was sent
                await waiting
            assert await adding == 1
            assert await client.get("b") is None
            await client.disconnect()


@over_sockets
async def test_connecting_over_tcp_to_nothing_fails(unused_port: int) -> None:
    with pytest.raises(Unavailable, match="refused"):
        await connect(reactor, f"tcp:127.0.0.1:{unused_port}")
