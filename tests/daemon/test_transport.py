"""What a transport promises to its protocol: ours, on both event loops, and Twisted's own, side by side."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface.verify import verifyObject

from tests.support.transports import HalfCloseable, Server, World, in_world, ours

MUCH = bytes(range(256)) * 4096 * 16  # 16 MiB, more than the system buffers for two sockets


@pytest.fixture(params=["Twisted", "asyncio", "uvloop"])
def world(request: pytest.FixtureRequest) -> World:
    """A world served by each transport in turn."""
    return World(request.param)


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

    server, client = await world.connect(shy)
    await client.send(b"waits")
    await world.turns()
    await client.send(b", and waits")
    client.shut()
    await world.turns()
    assert server.events == ["made"]
    server.transport.resumeProducing()
    server.transport.pauseProducing()
    await world.turns()
    assert server.events == ["made"]
    server.transport.resumeProducing()
    server.transport.pauseProducing()
    server.transport.resumeProducing()
    await world.until(lambda: "read lost" in server.events)
    assert server.data == b"waits, and waits"
    assert server.events.count("read lost") == 1
    assert server.events.count("data") <= 2


@in_world
async def test_a_connection_paused_from_its_first_moment_is_not_told_of_the_end_either(world: World) -> None:
    def shy() -> Server:
        server = HalfCloseable()
        server.on["made"] = lambda: server.transport.pauseProducing()
        return server

    client = world.client(world.listen(shy))
    client.shut()
    await world.until(lambda: world.servers and world.servers[0].events)
    await world.turns()
    (server,) = world.servers
    assert server.events == ["made"]
    server.transport.resumeProducing()
    await world.until(lambda: server.events == ["made", "read lost"])


@pytest.mark.parametrize("end", ["loseConnection", "abortConnection"])
@in_world
async def test_what_waited_while_it_was_paused_is_not_delivered_after_the_end(world: World, end: str) -> None:
    def shy() -> Server:
        server = Server()
        server.on["made"] = lambda: server.transport.pauseProducing()
        return server

    server, client = await world.connect(shy)
    await client.send(b"x")
    await world.turns()
    server.transport.resumeProducing()
    getattr(server.transport, end)()
    await world.until(lambda: "lost" in server.events)
    assert server.events == ["made", "lost"]


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


@ours
@in_world
async def test_a_fault_is_not_hidden_by_an_abort_behind_it(world: World) -> None:
    server, _ = await world.connect()
    server.on["data"] = raise_fault
    server.transport.data_received(b"x")
    server.transport.abortConnection()
    await world.until(lambda: "lost" in server.events)
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
