"""The Deferred client: how it connects; what a server can do instead of answering."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from kvd.client import Client, connect
from kvd.errors import BadArguments, Busy, Idle, KvdError, OutcomeUnknown, Unavailable
from kvd.testing import MemoryServer
from tests.support.client import add_one, connections, outcome_of

OK = b'{"status": "Ok"}\n'
PONG = b'{"status": "Ok", "result": "PONG"}\n'


def told(code: str) -> bytes:
    return json.dumps({"status": "Error", "mesg": f"this is {code}", "code": code}).encode() + b"\n"


class Script:
    """A server that says what a test wants; it takes the place of the real one.

    :ivar lines: what it was sent, of all connections together.
    :ivar answer: makes the bytes that answer a line.
    """

    def __init__(self, server: MemoryServer, answer: Callable[[bytes], bytes]) -> None:
        self.lines: list[bytes] = []
        self.answer = answer
        self.connections: list[Protocol] = []
        self._rest = b""
        script = self

        class Scripted(Protocol):
            def connectionMade(self) -> None:
                script.connections.append(self)

            def dataReceived(self, data: bytes) -> None:
                *lines, script._rest = (script._rest + data).split(b"\n")
                for line in lines:
                    script.lines.append(line)
                    script.say(script.answer(line), self)

        server._factory = Factory.forProtocol(Scripted)

    def say(self, data: bytes, to: Protocol | None = None) -> None:
        """Say something, on the newest connection if it isn't told on which."""
        transport = (to or self.connections[-1]).transport
        assert transport is not None
        transport.write(data)


def polite(line: bytes) -> bytes:
    """Answers PING, and nothing else."""
    return PONG if line == b'["PING"]' else b""


def silent(_: bytes) -> bytes:
    return b""


def test_every_connection_is_greeted_with_a_whole_line_at_once(server: MemoryServer) -> None:
    script = Script(server, lambda line: PONG if line == b'["PING"]' else OK)
    client = server.connect()
    assert script.lines == [b'["PING"]']
    server.lose_links()
    server.advance(5)
    assert script.lines == [b'["PING"]'] * 2
    server.run(client.transact(lambda txn: txn.put("a", "1")))
    assert script.lines[2:4] == [b'["PING"]', b'["START"]']
    assert len(script.connections) == 3


def test_a_server_that_accepts_and_says_nothing_is_told_in_a_sentence(server: MemoryServer) -> None:
    Script(server, silent)
    with pytest.raises(Unavailable) as caught:
        server.connect(wait=1)
    assert str(caught.value) == "can't connect: the server did not answer within 1 seconds"
    assert server.clock.seconds() == 1
    server.flush()
    assert server._ends == []


def test_a_server_that_never_accepts_is_told_in_a_sentence(server: MemoryServer) -> None:
    @implementer(IStreamClientEndpoint)
    class Nowhere:
        def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
            return Deferred()

    with pytest.raises(Unavailable) as caught:
        server.run(connect(server.clock, Nowhere(), wait=1))
    assert str(caught.value) == "can't connect: there was no connection within 1 seconds"


def test_a_server_that_falls_silent_is_told_in_a_sentence(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect(timeout=7)
    script.answer = silent
    read, write = outcome_of(client.get("a")), outcome_of(client.put("a", "1"))
    server.advance(7)
    assert [str(error) for error in (*read, *write)] == [
        "the connection broke: no reply within 7 seconds; nothing was stored",
        "the connection broke: no reply within 7 seconds; the change may or may not have been stored",
    ]
    waiting = outcome_of(client.put("a", "1"))
    server.advance(5)
    assert type(waiting[0]) is Unavailable
    assert "could not be reached for 5 seconds" in str(waiting[0])


def test_nothing_is_sent_before_a_new_connection_has_answered_the_greeting(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect()
    script.answer = silent
    server.lose_links()
    writing = outcome_of(client.put("a", "1"))
    server.advance(4)
    assert script.lines == [b'["PING"]'] * 2
    assert writing == []
    script.say(PONG)
    script.answer = lambda line: OK
    server.flush()
    assert writing == [None]


def test_commands_say_why_the_server_can_not_be_reached(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    with pytest.raises(Unavailable, match=r"could not be reached for 5 seconds \(can't connect: .*refused.*\)"):
        server.run(client.get("a"))
    with pytest.raises(Unavailable, match=r"can't connect: .*refused"):
        server.run(client.transaction().__aenter__())


def test_a_server_that_is_full_for_a_moment_is_waited_for(server: MemoryServer) -> None:
    script = Script(server, lambda line: told("BUSY"))
    connecting = connect(server.clock, server.endpoint, wait=10)
    server.advance(5)
    script.answer = polite
    client = server.run(connecting)
    assert server.run(client.ping()) == "PONG"


@pytest.mark.parametrize("code", [Busy, Idle])
def test_a_server_that_stays_full_says_so_to_everyone_who_waits(server: MemoryServer, code: type[KvdError]) -> None:
    script = Script(server, lambda line: told(code.code))
    with pytest.raises(code, match=code.code):
        server.connect()
    script.answer = polite
    client = server.connect()
    script.answer = lambda line: told("BUSY")
    server.lose_links()
    with pytest.raises(Busy, match="this is BUSY"):
        server.run(client.get("a"))
    with pytest.raises(Busy, match="this is BUSY"):
        server.run(client.transact(add_one, "a"))


@pytest.mark.parametrize("code", [Busy, Idle])
@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_what_is_under_way_when_the_server_turns_a_client_away_was_not_run(
    server: MemoryServer, code: type[KvdError], pieces: int
) -> None:
    script = Script(server, polite)
    client = server.connect()
    found = [outcome_of(ask) for ask in (client.put("a", "1"), client.get("a"), client.incr("n"))]
    cancelled = client.put("b", "1")
    gone = outcome_of(cancelled)
    cancelled.cancel()
    word = told(code.code)
    for start in range(0, len(word), len(word) // pieces):
        script.say(word[start : start + len(word) // pieces])
        server.flush()
    assert [type(error) for (error,) in found] == [code] * 3
    assert type(gone[0]) is CancelledError
    server.advance(5)
    assert server.run(client.ping()) == "PONG"


def test_a_client_that_was_turned_away_for_its_silence_has_a_new_connection(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect()
    script.say(told("IDLE"))
    server.advance(1)
    assert len(script.connections) == 2
    assert server.run(client.ping()) == "PONG"


def test_transact_begins_anew_when_the_server_turned_it_away_for_its_silence(server: MemoryServer) -> None:
    idle = ["START", "COMMIT"]

    def answer(line: bytes) -> bytes:
        name = json.loads(line)[0]
        if name in idle:
            idle.remove(name)
            return told("IDLE")
        return PONG if line == b'["PING"]' else OK

    script = Script(server, answer)
    client = server.connect()
    server.run(client.transact(lambda txn: txn.put("a", "1")))
    names = [json.loads(line)[0] for line in script.lines]
    assert (names.count("START"), names.count("COMMIT"), names.count("OUTCOME")) == (3, 2, 0)


def test_any_other_error_that_nobody_asked_for_leaves_open_what_was_done(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect()
    later: list[Deferred[Any]] = []
    client.get("a").addCallback(lambda _: later.extend([client.put("a", "1"), client.get("a")]))
    script.say(PONG + told("UNAVAILABLE"))
    server.flush()
    found = [outcome_of(ask)[0] for ask in later]
    assert [type(error) for error in found] == [OutcomeUnknown, Unavailable]
    assert "this is not a kvd server" in str(found[1])


@pytest.mark.parametrize("extra", [OK, b"x", b'{"status": "Ok", "result"', PONG + PONG])
def test_what_comes_after_a_reply_is_never_the_reply_to_a_later_request(server: MemoryServer, extra: bytes) -> None:
    def answer(line: bytes) -> bytes:
        if line == b'["PING"]':
            return PONG
        return b'{"status": "Ok", "result": "1"}\n' + extra if b'"a"' in line else b""

    script = Script(server, answer)
    client = server.connect()
    later: list[Any] = []
    # Asked for when the first reply is there, and before what comes with it has been looked at.
    client.get("a").addCallback(lambda value: later.append(outcome_of(client.get("b"))))
    server.flush()
    script.say(b': "2"}\n')
    server.flush()
    assert [type(error) for (error,) in later] == [Unavailable]


@pytest.mark.parametrize("garbage", [b"garbage", b"[]", b"{}", b'{"status": "Ok"', b"\xff", b"", b'{"status": "OK"}'])
def test_after_garbage_no_reply_is_believed(server: MemoryServer, garbage: bytes) -> None:
    script = Script(server, polite)
    client = server.connect()
    asks: list[Deferred[Any]] = [client.ping("1"), client.get("a"), client.put("a", "1"), client.get("b")]
    found = [outcome_of(ask) for ask in asks]
    script.say(PONG + garbage + b"\n" + OK + b'{"status": "Ok", "result": "b"}\n')
    server.flush()
    assert found[0] == ["PONG"]
    assert [error.code for (error,) in found[1:]] == ["INTERNAL", "OUTCOME_UNKNOWN", "UNAVAILABLE"]
    assert "not a reply of a kvd server" in str(found[1][0])


def test_garbage_in_place_of_a_cancelled_reply_is_not_overlooked(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect()
    cancelled, other = client.get("a"), client.get("b")
    outcome_of(cancelled)
    found = outcome_of(other)
    cancelled.cancel()
    script.say(b"garbage\n" + PONG)
    server.flush()
    assert type(found[0]) is Unavailable


def test_a_reply_that_drips_is_given_up_when_its_time_is_over(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect(timeout=10)
    found = outcome_of(client.get("a"))
    for _ in range(99):
        server.advance(0.1)
        script.say(b" ")
    server.flush()
    assert found == []
    server.advance(0.2)
    assert type(found[0]) is Unavailable
    assert "no reply within 10 seconds" in str(found[0])


def test_a_server_that_greets_and_breaks_off_again_and_again_is_not_tried_without_pause(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect(rand=lambda: 0.5)

    def break_off(line: bytes) -> bytes:
        server.clock.callLater(0.001, server.lose_links)
        return PONG

    script.answer = break_off
    server.lose_links()
    server.advance(10)
    assert 2 < len(script.connections) <= 102
    server.run(client.disconnect())


@pytest.mark.parametrize("rand", [0.0, 1.0])
def test_time_passes_between_two_tries_whatever_chance_says(server: MemoryServer, rand: float) -> None:
    server.reachable = False
    with pytest.raises(Unavailable):
        server.connect(rand=lambda: rand)
    server.reachable = True
    client = server.connect(rand=lambda: rand)
    server.reachable = False
    server.lose_links()
    with pytest.raises(Unavailable):
        server.run(client.transact(add_one, "a"))
    assert server.clock.seconds() > 30


@implementer(IStreamClientEndpoint)
class Tcp:
    """Fails as Twisted's own endpoints do when it is cancelled."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred(lambda connecting: connecting.errback(ConnectingCancelledError(None)))


def test_cancelling_what_waits_for_a_connection_is_told_as_that(server: MemoryServer) -> None:
    connecting = connect(server.clock, Tcp())
    found = outcome_of(connecting)
    connecting.cancel()
    assert type(found[0]) is CancelledError
    client = server.connect()
    client._dialer._endpoint = Tcp()
    transacting = client.transact(add_one, "a")
    found = outcome_of(transacting)
    server.flush()
    transacting.cancel()
    assert type(found[0]) is CancelledError
    assert server.run(client.info("transactions"))["open"] == 0


def test_an_endpoint_that_raises_is_told_as_one_that_can_not_connect(server: MemoryServer) -> None:
    @implementer(IStreamClientEndpoint)
    class Broken:
        def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
            raise OSError("no such interface")

    with pytest.raises(Unavailable, match="can't connect: no such interface") as caught:
        server.run(connect(server.clock, Broken()))
    assert type(caught.value.__cause__) is OSError


@pytest.mark.parametrize(
    "options",
    [{name: value} for name in ("timeout", "wait", "pool", "retry_for") for value in (-1, float("nan"), "5", None)]
    + [{name: 0} for name in ("timeout", "wait", "pool")]
    + [{"pool": 1.5}, {"timeout": float("inf")}, {"retry_for": float("inf")}],
    ids=repr,
)
def test_connecting_with_a_number_that_can_not_be_fails_and_says_which(
    server: MemoryServer, options: dict[str, Any]
) -> None:
    with pytest.raises(BadArguments, match=f"^{next(iter(options))} must be a number of"):
        server.connect(**options)


# Disconnecting, in every state.


def test_disconnecting_while_a_new_connection_is_greeted_closes_that(server: MemoryServer) -> None:
    script = Script(server, polite)
    client = server.connect()
    script.answer = silent
    server.lose_links()
    server.advance(0.5)
    found = [outcome_of(client.get("a")), outcome_of(client.transact(add_one, "a"))]
    server.flush()
    before = server.clock.seconds()
    server.run(client.disconnect())
    assert [type(error) for (error,) in found] == [Unavailable] * 2
    assert server.clock.seconds() == before
    server.flush()
    assert server._ends == []
    assert server.clock.getDelayedCalls() == before_anything(server)


def before_anything(server: MemoryServer) -> list[Any]:
    """What is left to be done: what the real server does anyway."""
    return [call for call in server.clock.getDelayedCalls() if "LoopingCall" in repr(call)]


def test_disconnecting_between_two_tries_ends_the_trying(server: MemoryServer, client: Client) -> None:
    server.reachable = False
    server.lose_links()
    server.flush()
    server.run(client.disconnect())
    server.reachable = True
    server.advance(60)
    assert connections(server, server.connect()) == (1, 2)


def test_disconnecting_twice_does_no_harm(server: MemoryServer, client: Client) -> None:
    server.run(client.transact(add_one, "a"))
    server.run(gatherResults([client.disconnect(), client.disconnect()]))
    server.run(client.disconnect())
    assert server._ends == []


def test_disconnecting_from_a_callback_ends_everything(server: MemoryServer, client: Client) -> None:
    found: list[Any] = []
    client.get("a").addCallback(lambda _: client.disconnect()).addBoth(found.append)
    others = [outcome_of(client.get("b")), outcome_of(client.transact(add_one, "a"))]
    server.advance(10)
    assert found == [None]
    assert [len(each) for each in others] == [1, 1]
    assert server._ends == []


def test_disconnecting_inside_a_transaction_stores_nothing_of_it(server: MemoryServer, client: Client) -> None:
    async def play() -> None:
        async with client.transaction() as txn:
            await txn.put("a", "1")
            await client.disconnect()

    with pytest.raises(Unavailable):
        server.run(play())
    assert server.run(server.connect().count()) == 0


def test_disconnecting_from_a_peer_that_reads_nothing_ends(server: MemoryServer, client: Client) -> None:
    found = outcome_of(client.put("a", "1"))
    server.network_delay = lambda from_client: 1000
    server.run(client.disconnect(), limit=6)
    assert type(found[0]) is OutcomeUnknown


def test_a_disconnect_that_is_cancelled_closes_the_connections_all_the_same(
    server: MemoryServer, client: Client
) -> None:
    server.network_delay = lambda from_client: 3
    disconnecting = client.disconnect()
    found = outcome_of(disconnecting)
    server.advance(1)
    disconnecting.cancel()
    assert type(found[0]) is CancelledError
    server.advance(5)
    assert server._ends == []


def test_a_transaction_whose_pause_between_two_tries_is_cut_short_by_disconnecting_ends_at_once(
    server: MemoryServer,
) -> None:
    client = server.connect(rand=lambda: 1.0)
    server.conflict_at_next_commit()
    found = outcome_of(client.transact(add_one, "a"))
    server.flush()
    client.disconnect()
    assert type(found[0]) is Unavailable
    assert "disconnected" in str(found[0])


def test_an_endpoint_that_fails_at_once_is_tried_as_often_as_one_that_fails_later(server: MemoryServer) -> None:
    tries: list[float] = []

    @implementer(IStreamClientEndpoint)
    class Refuses:
        def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
            tries.append(server.clock.seconds())
            return fail(OSError("refused"))

    with pytest.raises(Unavailable):
        server.run(connect(server.clock, Refuses(), wait=20, rand=lambda: 0.5))
    assert [round(later - sooner, 6) for sooner, later in pairwise(tries)][:5] == [
        0.1,
        0.2,
        0.4,
        0.8,
        1.0,
    ]
    assert 19 <= server.clock.seconds() <= 20
