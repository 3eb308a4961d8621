"""How a connection ends, whole or one direction alone: on our transport, and on Twisted's own, side by side."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from tests.support.transports import HalfCloseable, World, in_world, ours

MUCH = bytes(range(256)) * 4096 * 16  # 16 MiB, more than the system buffers for two sockets


@pytest.fixture(params=["Twisted", "asyncio", "uvloop"])
def world(request: pytest.FixtureRequest) -> World:
    """A world served by each transport in turn."""
    return World(request.param)


@implementer(IPushProducer)
class Paused:
    """A producer that knows whether it is paused."""

    is_paused = False

    def pauseProducing(self) -> None:
        """From now on."""
        self.is_paused = True

    def resumeProducing(self) -> None:
        """No more."""
        self.is_paused = False

    def stopProducing(self) -> None:
        """That is all."""


# The end, from the client's side.


@in_world
async def test_the_end_of_the_client_ends_the_connection_cleanly_and_is_told_once(world: World) -> None:
    server, client = await world.connect()
    await client.send(b"bye")
    client.socket.close()
    await world.until(lambda: "lost" in server.events)
    await world.turns()
    assert server.events == ["made", "data", "lost"]
    assert isinstance(server.reason, ConnectionDone)


@in_world
async def test_a_reset_by_the_client_is_told_as_a_lost_connection(world: World) -> None:
    server, client = await world.connect()
    client.reset()
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "lost"]
    assert type(server.reason) is ConnectionLost


@in_world
async def test_a_reset_while_something_waits_to_be_sent_is_told_as_a_lost_connection(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    server.transport.pauseProducing()
    await world.turns()
    client.reset()
    await world.until(lambda: "lost" in server.events)
    assert type(server.reason) is ConnectionLost


@ours
@in_world
async def test_what_is_written_after_losing_the_connection_is_dropped(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    server.transport.loseConnection()
    server.transport.write(b"too late")
    assert await client.rest() == MUCH


@in_world
async def test_after_the_end_nothing_can_be_done_and_nothing_happens(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    transport = server.transport
    transport.registerProducer(Paused(), True)
    transport.loseWriteConnection()
    client.reset()
    await world.until(lambda: "lost" in server.events)
    transport.unregisterProducer()
    transport.write(b"x")
    transport.writeSequence([b"x"])
    transport.resumeProducing()
    transport.pauseProducing()
    transport.loseConnection()
    transport.loseWriteConnection()
    transport.abortConnection()
    await world.turns()
    assert server.events == ["made", "lost"]


@in_world
async def test_after_the_end_the_transport_holds_its_protocol_no_more(world: World) -> None:
    server, client = await world.connect()
    transport, gone = server.transport, weakref.ref(server)
    client.socket.close()
    await world.until(lambda: "lost" in world.servers[0].events)
    await world.turns()
    del server.transport, server
    world.servers.clear()
    gc.collect()
    assert gone() is None
    transport.write(b"x")


# The end, from our side.


@in_world
async def test_losing_the_connection_sends_all_that_was_written_first(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    server.transport.loseConnection()
    server.transport.loseConnection()
    assert server.transport.disconnecting
    await world.turns()
    assert "lost" not in server.events
    assert await client.rest() == MUCH
    assert client.end == "closed"
    await world.until(lambda: "lost" in server.events)
    assert isinstance(server.reason, ConnectionDone)


@in_world
async def test_nothing_is_received_while_the_connection_is_being_lost(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    server.transport.loseConnection()
    server.transport.resumeProducing()
    await client.send(b"too late")
    await world.turns()
    assert server.events == ["made"]


@in_world
async def test_the_connection_can_be_lost_while_data_is_received(world: World) -> None:
    server, client = await world.connect()
    server.on["data"] = lambda: (server.transport.write(b"bye"), server.transport.loseConnection())
    await client.send(b"hello")
    assert await client.rest() == b"bye"
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "data", "lost"]


@in_world
async def test_an_abort_resets_the_connection_and_drops_what_waits(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    server.transport.abortConnection()
    assert "lost" not in server.events, "connectionLost was called from within abortConnection"
    for _ in range(10):
        server.transport.write(b"x")
    assert caplog.records == [], "the event loop was bothered with it"
    server.transport.abortConnection()
    server.transport.loseConnection()
    await client.rest()
    assert client.end == "reset"
    assert len(client.received) < len(MUCH)
    await world.until(lambda: "lost" in server.events)
    await world.turns()
    assert server.events == ["made", "lost"]
    assert type(server.reason) is ConnectionAborted


@in_world
async def test_an_abort_works_while_the_connection_is_being_lost(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    server.transport.loseConnection()
    await world.turns()
    server.transport.abortConnection()
    await world.until(lambda: "lost" in server.events)
    assert type(server.reason) is ConnectionAborted
    await client.rest()
    assert client.end == "reset"


@in_world
async def test_an_abort_while_data_is_received_is_the_last_of_it(world: World) -> None:
    server, client = await world.connect()
    server.on["data"] = lambda: server.transport.abortConnection()
    await client.send(MUCH[: 1 << 20])
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "data", "lost"]


# One direction alone.


@in_world
async def test_a_client_that_sends_no_more_can_still_be_written_to(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    await client.send(b"question")
    client.shut()
    await world.until(lambda: "read lost" in server.events)
    assert server.data == b"question"
    server.transport.write(MUCH)
    server.transport.loseConnection()
    assert await client.rest() == MUCH
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "data", "read lost", "lost"]
    assert isinstance(server.reason, ConnectionDone)


@in_world
async def test_the_connection_can_be_lost_when_the_client_sends_no_more(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    server.on["read lost"] = lambda: (server.transport.write(b"bye"), server.transport.loseConnection())
    client.shut()
    assert await client.rest() == b"bye"
    await world.until(lambda: "lost" in server.events)


@ours
@in_world
async def test_that_the_client_sends_no_more_is_told_once_whatever_is_resumed(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    client.shut()
    await world.until(lambda: "read lost" in server.events)
    server.transport.pauseProducing()
    server.transport.resumeProducing()
    await world.turns()
    assert server.events == ["made", "read lost"]


@ours
@in_world
async def test_without_half_close_the_end_of_the_client_still_lets_it_read_what_was_written(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    client.shut()
    assert await client.rest() == MUCH
    await world.until(lambda: "lost" in server.events)
    assert isinstance(server.reason, ConnectionDone)


@in_world
async def test_closing_our_direction_sends_all_that_was_written_and_still_receives(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    server.transport.write(MUCH)
    server.transport.loseWriteConnection()
    server.transport.loseWriteConnection()
    await world.turns()
    assert server.events == ["made"], "it was told before all was sent"
    assert await client.rest() == MUCH
    await world.until(lambda: "write lost" in server.events)
    server.transport.write(b"x")
    await client.send(b"more")
    await world.until(lambda: server.data == b"more")
    server.transport.loseConnection()
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "write lost", "data", "lost"]
    assert isinstance(server.reason, ConnectionDone)


@in_world
async def test_closing_our_direction_with_nothing_to_send_is_told_too(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    server.transport.loseWriteConnection()
    assert server.events == ["made"]
    await world.until(lambda: "write lost" in server.events)
    assert await client.rest() == b""


@ours
@in_world
async def test_that_our_direction_is_closed_is_told_when_the_last_byte_is_sent(world: World, tmp_path: Path) -> None:
    measured, _ = await world.connect(HalfCloseable, f"unix:{tmp_path}/socket")
    producer = Paused()
    measured.transport.registerProducer(producer, True)
    chunk, chunks = MUCH[:4096], 0
    while not producer.is_paused:  # find out how much the system takes
        measured.transport.write(chunk)
        chunks += 1
    chunks -= 8  # so that something waits, but less than would pause a producer
    client = world.client(world.ports[0])
    await world.until(lambda: len(world.servers) == 2 and world.servers[1].events)
    server = world.servers[1]
    for _ in range(chunks):
        server.transport.write(chunk)
    server.transport.loseWriteConnection()
    await world.turns()
    assert server.events == ["made"]
    assert len(await client.rest()) == chunks * len(chunk)
    await world.until(lambda: server.events == ["made", "write lost"])


@in_world
async def test_the_connection_can_be_lost_when_our_direction_is_closed(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    server.on["write lost"] = lambda: server.transport.loseConnection()
    server.transport.write(MUCH)
    server.transport.loseWriteConnection()
    assert await client.rest() == MUCH
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "write lost", "lost"]


@in_world
async def test_the_connection_can_be_lost_while_our_direction_is_being_closed(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    server.transport.write(MUCH)
    server.transport.loseWriteConnection()
    server.transport.loseConnection()
    assert await client.rest() == MUCH
    await world.until(lambda: "lost" in server.events)
    await world.turns()
    assert server.events[-1] == "lost"
    assert isinstance(server.reason, ConnectionDone)


@in_world
async def test_a_protocol_that_knows_no_half_close_can_close_its_direction(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(b"bye")
    server.transport.loseWriteConnection()
    assert await client.rest() == b"bye"
    await client.send(b"bye too")
    client.shut()
    await world.until(lambda: "lost" in server.events)
    assert server.data == b"bye too"
    assert isinstance(server.reason, ConnectionDone)


@in_world
async def test_each_side_may_close_its_direction_after_the_other(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    server.on["read lost"] = lambda: server.transport.loseWriteConnection()
    server.on["write lost"] = lambda: server.transport.loseConnection()
    client.shut()
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "read lost", "write lost", "lost"]
