"""What a transport promises to its protocol: ours, on both event loops, and Twisted's own, side by side."""

from __future__ import annotations

import gc
import weakref
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface.verify import verifyObject

from tests.transports import HalfCloseable, Server, World, in_world

MUCH = bytes(range(256)) * 4096 * 16  # 16 MiB, more than the system buffers for two sockets


@pytest.fixture(params=["Twisted", "asyncio", "uvloop"])
def world(request: pytest.FixtureRequest) -> World:
    """A world served by each transport in turn."""
    return World(request.param)


ours = pytest.mark.parametrize("world", ["asyncio", "uvloop"], indirect=True)
"""For what Twisted's own transport does otherwise."""


# Bytes.


@in_world
async def test_what_the_client_sends_arrives_whole_and_in_order(world: World) -> None:
    server, client = await world.connect()
    await client.send(MUCH)
    await world.until(lambda: len(server.data) == len(MUCH))
    assert server.data == MUCH


@in_world
async def test_what_is_written_arrives_whole_and_in_order(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(b"one")
    server.transport.write(b"")
    server.transport.writeSequence([b" two", b" three "])
    server.transport.writeSequence([])
    server.transport.write(MUCH)
    server.transport.write(b"end")
    assert await client.receive(len(MUCH) + 17) == b"one two three " + MUCH + b"end"


@in_world
async def test_a_greeting_can_be_written_as_soon_as_the_connection_is_made(world: World) -> None:
    def greeter() -> Server:
        server = Server()
        server.on["made"] = lambda: server.transport.write(b"hello")
        return server

    _, client = await world.connect(greeter)
    assert await client.receive(5) == b"hello"


@in_world
async def test_text_can_not_be_written(world: World) -> None:
    server, _ = await world.connect()
    with pytest.raises(TypeError):
        server.transport.write("text")
    with pytest.raises(TypeError):
        server.transport.writeSequence(["text"])


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


@in_world
async def test_after_the_end_nothing_can_be_done_and_nothing_happens(world: World) -> None:
    server, client = await world.connect(HalfCloseable)
    transport = server.transport
    client.reset()
    await world.until(lambda: "lost" in server.events)
    transport.write(b"x")
    transport.writeSequence([b"x"])
    transport.resumeProducing()
    transport.pauseProducing()
    transport.loseConnection()
    transport.abortConnection()
    transport.unregisterProducer()
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
async def test_an_abort_resets_the_connection_and_drops_what_waits(world: World) -> None:
    server, client = await world.connect()
    server.transport.write(MUCH)
    server.transport.abortConnection()
    assert "lost" not in server.events, "connectionLost was called from within abortConnection"
    server.transport.write(b"x")
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


# Faults of the protocol.


class Fault(Exception):
    """What a broken protocol raises."""


def raise_fault() -> None:
    """Be broken."""
    raise Fault


@in_world
async def test_a_fault_while_data_is_received_is_logged_and_ends_the_connection(world: World) -> None:
    server, client = await world.connect()
    server.on["data"] = raise_fault
    await client.send(b"x")
    await world.until(lambda: "lost" in server.events)
    assert isinstance(server.reason, Fault)
    assert world.logged == [server.reason]
    await client.rest()


@in_world
async def test_a_fault_is_not_hidden_by_an_abort_before_it(world: World) -> None:
    server, client = await world.connect()

    def abort_and_fail() -> None:
        server.transport.abortConnection()
        raise Fault

    server.on["data"] = abort_and_fail
    await client.send(b"x")
    await world.until(lambda: "lost" in server.events)
    await world.turns()
    assert server.events == ["made", "data", "lost"]
    assert isinstance(server.reason, Fault)


@pytest.mark.parametrize("event", ["read lost", "write lost"])
@in_world
async def test_a_fault_at_the_end_of_a_direction_is_logged_and_ends_the_connection(world: World, event: str) -> None:
    server, client = await world.connect(HalfCloseable)
    server.on[event] = raise_fault
    if event == "read lost":
        client.shut()
    else:
        server.transport.loseWriteConnection()
    await world.until(lambda: "lost" in server.events)
    assert isinstance(server.reason, Fault)
    assert [type(fault) for fault in world.logged] == [Fault]


@in_world
async def test_a_fault_at_the_end_of_the_connection_is_logged(world: World) -> None:
    server, client = await world.connect()
    server.on["lost"] = raise_fault
    client.socket.close()
    await world.until(lambda: world.logged)
    assert [type(fault) for fault in world.logged] == [Fault]


@ours
@in_world
async def test_a_fault_when_the_connection_is_made_is_logged_and_ends_it(world: World) -> None:
    def broken() -> Server:
        server = Server()
        server.on["made"] = raise_fault
        return server

    server, client = await world.connect(broken)
    await client.rest()
    await world.until(lambda: "lost" in server.events)
    assert isinstance(server.reason, Fault)
    assert [type(fault) for fault in world.logged] == [Fault]


# Pausing.


@in_world
async def test_a_paused_connection_delivers_nothing_until_it_is_resumed(world: World) -> None:
    server, client = await world.connect()
    server.transport.pauseProducing()
    server.transport.pauseProducing()
    await client.send(b"waits")
    await world.turns()
    assert server.events == ["made"]
    server.transport.resumeProducing()
    server.transport.resumeProducing()
    assert server.events == ["made"], "data was delivered from within resumeProducing"
    await world.until(lambda: server.data == b"waits")


@in_world
async def test_a_connection_paused_from_its_first_moment_delivers_nothing_until_it_is_resumed(world: World) -> None:
    def shy() -> Server:
        server = HalfCloseable()
        server.on["made"] = lambda: server.transport.pauseProducing()
        return server

    client = world.client(world.listen(shy))
    await client.send(b"waits")
    client.shut()
    await world.until(lambda: world.servers and world.servers[0].events)
    (server,) = world.servers
    await world.turns()
    assert server.events == ["made"]
    for _ in range(2):
        server.transport.resumeProducing()
        server.transport.pauseProducing()
    await world.turns()
    assert server.data == b""
    server.transport.resumeProducing()
    await world.until(lambda: "read lost" in server.events)
    assert server.events == ["made", "data", "read lost"]
    assert server.data == b"waits"


@in_world
async def test_pausing_while_data_is_received_holds_the_rest_back(world: World) -> None:
    server, client = await world.connect()
    server.on["data"] = lambda: server.transport.pauseProducing()
    await client.send(MUCH[: 1 << 20])
    await world.turns()
    assert server.events == ["made", "data"]
    while len(server.data) < 1 << 20:
        server.events.clear()
        server.transport.resumeProducing()
        await world.until(lambda: server.events)
        await world.turn()
        assert server.events == ["data"]
    assert server.data == MUCH[: 1 << 20]


@in_world
async def test_a_paused_connection_can_be_lost(world: World) -> None:
    server, client = await world.connect()
    server.transport.pauseProducing()
    server.transport.write(b"bye")
    server.transport.stopProducing()
    assert await client.rest() == b"bye"
    await world.until(lambda: "lost" in server.events)


# About the connection.


@in_world
async def test_it_provides_the_interfaces_of_a_tcp_transport_a_consumer_and_a_producer(world: World) -> None:
    server, _ = await world.connect()
    for interface in ITCPTransport, IConsumer, IPushProducer:
        assert verifyObject(interface, server.transport)


@pytest.mark.parametrize(("host", "kind"), [("127.0.0.1", IPv4Address), (r"\:\:1", IPv6Address)])
@in_world
async def test_the_addresses_of_both_ends_are_known_and_outlive_the_connection(
    world: World, host: str, kind: type
) -> None:
    server, client = await world.connect(description=f"tcp:0:interface={host}")
    transport = server.transport
    at, peer = transport.getHost(), transport.getPeer()
    assert isinstance(at, kind)
    assert isinstance(peer, kind)
    assert at == world.ports[0].getHost()
    assert (cast(Any, peer).host, cast(Any, peer).port) == client.socket.getsockname()[:2]
    assert (cast(Any, at).host, cast(Any, at).port) == client.socket.getpeername()[:2]


@in_world
async def test_a_unix_client_has_no_address(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("u") / "s"
    server, client = await world.connect(description=f"unix:{path}")
    assert server.transport.getHost() == UNIXAddress(str(path))
    assert server.transport.getPeer() == UNIXAddress(None)
    server.transport.setTcpNoDelay(True)
    assert not server.transport.getTcpNoDelay()
    await client.send(b"hello")
    await world.until(lambda: server.data == b"hello")


@in_world
async def test_nodelay_and_keepalive_can_be_switched(world: World) -> None:
    server, _ = await world.connect()
    transport = server.transport
    for wanted in True, False, True:
        transport.setTcpNoDelay(wanted)
        transport.setTcpKeepAlive(wanted)
        assert bool(transport.getTcpNoDelay()) is wanted
        assert bool(transport.getTcpKeepAlive()) is wanted


@ours
@in_world
async def test_replies_are_not_held_back_for_the_clients_acknowledgements(world: World) -> None:
    server, _ = await world.connect()
    assert server.transport.getTcpNoDelay()
    assert not server.transport.getTcpKeepAlive()
