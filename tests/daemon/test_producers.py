"""What a transport promises to producers: ours, on both event loops, and Twisted's own, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.interfaces import IPullProducer, IPushProducer
from zope.interface import implementer

from tests.support.transports import HalfCloseable, Server, World, in_world, ours

MUCH = bytes(1 << 24)  # 16 MiB, more than the system buffers for two sockets
CHUNK = bytes(1 << 14)


@pytest.fixture(params=["Twisted", "asyncio", "uvloop"])
def world(request: pytest.FixtureRequest) -> World:
    """A world served by each transport in turn."""
    return World(request.param)


@implementer(IPushProducer)
class Push:
    """Records what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.on_resume: Callable[[], object] = bool

    def pauseProducing(self) -> None:
        """Recorded as "pause"."""
        self.told.append("pause")

    def resumeProducing(self) -> None:
        """Recorded as "resume"."""
        self.told.append("resume")
        self.on_resume()

    def stopProducing(self) -> None:
        """Recorded as "stop"."""
        self.told.append("stop")


@implementer(IPullProducer)
class Pull:
    """Writes a chunk whenever it is asked, and unregisters itself behind the last.

    :param chunks: how many there are.
    """

    def __init__(self, transport: Any, chunks: int) -> None:
        self._transport = transport
        self.left = chunks
        self.stopped = 0

    def resumeProducing(self) -> None:
        """Write a chunk."""
        assert self.left, "it was asked for more than it has"
        self.left -= 1
        self._transport.write(CHUNK)
        if not self.left:
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        """Counted."""
        self.stopped += 1


# Push producers.


@in_world
async def test_a_push_producer_is_paused_while_the_client_does_not_read_and_resumed_when_it_does(world: World) -> None:
    server, client = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    await world.turns()
    assert producer.told == []
    server.transport.write(MUCH)
    assert set(producer.told) == {"pause"}
    await world.turns()
    assert set(producer.told) == {"pause"}
    await client.receive(len(MUCH))
    await world.until(lambda: "resume" in producer.told)
    assert producer.told.count("resume") == 1


@in_world
async def test_what_a_push_producer_can_make_the_server_hold_is_bounded(world: World) -> None:
    server, client = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    written = 0
    while not producer.told:
        server.transport.write(CHUNK)
        written += len(CHUNK)
        await world.turn()
        assert written < 1 << 25, "it was not paused though nobody reads"
    await client.receive(written)
    await world.until(lambda: "resume" in producer.told)


@in_world
async def test_a_producer_that_writes_when_it_is_resumed_is_paused_again(world: World) -> None:
    server, client = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    producer.on_resume = lambda: server.transport.write(MUCH)
    server.transport.write(MUCH)
    await client.receive(len(MUCH))
    await world.until(lambda: "resume" in producer.told)
    await world.turns()
    assert producer.told[-1] == "pause"


@ours
@in_world
async def test_a_push_producer_that_comes_while_the_buffer_is_full_is_paused_at_once(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    producer = Push()
    server.transport.registerProducer(producer, True)
    assert producer.told == ["pause"]
    await client.receive(len(MUCH))
    await world.until(lambda: producer.told == ["pause", "resume"])


@in_world
async def test_a_producer_that_unregistered_is_told_nothing_more(world: World) -> None:
    server, client = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    server.transport.write(MUCH)
    server.transport.unregisterProducer()
    producer.told.clear()
    await client.receive(len(MUCH))
    client.reset()
    await world.until(lambda: "lost" in server.events)
    assert producer.told == []


@ours
@in_world
async def test_a_producer_is_not_resumed_if_the_buffer_is_full_again_meanwhile(world: World) -> None:
    server, _ = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    server.transport.write(MUCH)
    server.transport.resume_writing()
    server.transport.pause_writing()
    await world.turns()
    assert set(producer.told) == {"pause"}


# Pull producers.


@in_world
async def test_a_pull_producer_is_asked_until_it_has_no_more(world: World) -> None:
    server, client = await world.connect()
    producer = Pull(server.transport, 1024)
    server.transport.registerProducer(producer, False)
    assert await client.receive(1024 * len(CHUNK)) == 1024 * CHUNK
    await world.turns()
    assert producer.left == 0
    server.transport.write(b"behind")
    assert (await client.receive(1024 * len(CHUNK) + 6))[-6:] == b"behind"


@in_world
async def test_a_pull_producer_is_not_asked_while_the_client_does_not_read(world: World) -> None:
    server, client = await world.connect()
    producer = Pull(server.transport, 4096)  # 64 MiB
    server.transport.registerProducer(producer, False)
    left = -1
    while left != producer.left:
        left = producer.left
        await world.turns()
    assert left > 0, "it was asked for everything though nobody reads"
    await client.receive(4096 * len(CHUNK))
    assert producer.left == 0


@ours
@in_world
async def test_a_pull_producer_that_unregisters_before_it_is_asked_is_not_asked(world: World) -> None:
    server, client = await world.connect()
    producer = Pull(server.transport, 1)
    server.transport.registerProducer(producer, False)
    server.transport.unregisterProducer()
    await client.send(b"x")
    await world.until(lambda: server.data == b"x")
    assert producer.left == 1


@ours
@in_world
async def test_a_pull_producer_is_not_asked_after_the_end_of_the_client(world: World) -> None:
    server, client = await world.connect()
    producer = Pull(server.transport, 4096)
    server.transport.registerProducer(producer, False)
    left = -1
    while left != producer.left:
        left = producer.left
        await world.turns()
    client.shut()
    await world.turns()
    assert producer.left == left > 0
    await client.rest()
    await world.until(lambda: "lost" in server.events)
    assert producer.left == left
    assert producer.stopped == 1


# Both.


@in_world
async def test_there_is_one_producer_at_a_time(world: World) -> None:
    server, _ = await world.connect()
    server.transport.registerProducer(Push(), True)
    with pytest.raises(RuntimeError):
        server.transport.registerProducer(Push(), True)
    server.transport.unregisterProducer()
    server.transport.registerProducer(Push(), True)


@in_world
async def test_a_producer_is_stopped_when_the_connection_ends(world: World) -> None:
    server, client = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    client.reset()
    await world.until(lambda: "lost" in server.events)
    assert producer.told == ["stop"]


@in_world
async def test_a_producer_that_comes_after_the_end_is_stopped_at_once(world: World) -> None:
    server, client = await world.connect()
    transport = server.transport
    transport.registerProducer(Push(), True)
    client.reset()
    await world.until(lambda: "lost" in server.events)
    for streaming in True, False:
        producer = Push()
        transport.registerProducer(producer, streaming)
        assert producer.told == ["stop"]


@in_world
async def test_losing_the_connection_waits_until_a_pull_producer_is_done(world: World) -> None:
    server, client = await world.connect()
    producer = Pull(server.transport, 2048)
    server.transport.registerProducer(producer, False)
    server.transport.loseConnection()
    assert await client.rest() == 2048 * CHUNK
    assert client.end == "closed"
    await world.until(lambda: "lost" in server.events)
    assert producer.stopped == 0


@in_world
async def test_nothing_is_received_while_losing_the_connection_waits_for_a_producer(world: World) -> None:
    server, client = await world.connect()
    server.transport.registerProducer(Pull(server.transport, 4096), False)
    server.transport.loseConnection()
    await client.send(b"too late")
    await world.turns()
    server.transport.resumeProducing()
    await world.turns()
    await client.rest()
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "lost"]


@ours
@pytest.mark.parametrize("full", [False, True])
@in_world
async def test_losing_the_connection_waits_until_a_push_producer_is_done(world: World, full: bool) -> None:
    server, client = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    if full:
        server.transport.write(MUCH)
    server.transport.loseConnection()
    await client.receive(len(MUCH) * full)
    await world.turns()
    assert server.events == ["made"]
    server.transport.write(b"last")
    server.transport.unregisterProducer()
    assert (await client.rest())[-4:] == b"last"
    await world.until(lambda: "lost" in server.events)


@in_world
async def test_closing_our_direction_waits_until_a_pull_producer_is_done(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    server.transport.registerProducer(Pull(server.transport, 2048), False)
    server.transport.loseWriteConnection()
    assert await client.rest() == 2048 * CHUNK
    await world.until(lambda: "write lost" in server.events)
    await client.send(b"more")
    await world.until(lambda: server.data == b"more")


@pytest.mark.parametrize("abort", [False, True])
@in_world
async def test_a_fault_of_a_producer_is_logged_and_ends_the_connection(world: World, abort: bool) -> None:
    server, client = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)

    def fail() -> None:
        if abort:
            server.transport.abortConnection()
        raise ZeroDivisionError

    producer.on_resume = fail
    server.transport.write(MUCH)
    await client.receive(len(MUCH))
    await world.until(lambda: "lost" in server.events)
    assert isinstance(server.reason, ZeroDivisionError)
    assert world.logged == [server.reason]


@ours
@in_world
async def test_a_producer_that_can_not_be_stopped_does_not_keep_the_end_from_the_protocol(world: World) -> None:
    server, client = await world.connect()

    class Broken(Push):
        def stopProducing(self) -> None:
            raise ZeroDivisionError

    server.transport.registerProducer(Broken(), True)
    client.reset()
    await world.until(lambda: "lost" in server.events)
    assert [type(fault) for fault in world.logged] == [ZeroDivisionError]


@in_world
async def test_an_abort_ends_a_connection_whose_producer_is_paused(world: World) -> None:
    server, _ = await world.connect()
    producer = Push()
    server.transport.registerProducer(producer, True)
    server.transport.write(MUCH)
    server.transport.abortConnection()
    await world.until(lambda: "lost" in server.events)
    assert producer.told[-1] == "stop"
    assert "resume" not in producer.told


@in_world
async def test_the_protocol_itself_can_be_the_producer(world: World) -> None:
    @implementer(IPushProducer)
    class Both(Server, Push):
        def __init__(self) -> None:
            Server.__init__(self)
            Push.__init__(self)

    server, client = await world.connect(Both)
    server.transport.registerProducer(server, True)
    server.transport.write(MUCH)
    await client.receive(len(MUCH))
    await world.until(lambda: "resume" in server.told)
    server.transport.unregisterProducer()
    server.transport.loseConnection()
    await client.rest()
    await world.until(lambda: "lost" in server.events)
