"""Which transport serves, and how ports behave that serve with ours."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from kvd.daemon.listen import LoopEndpoint, server_endpoint
from kvd.daemon.transport import LoopTransport
from kvd.reactor import transport_name
from tests.support.daemon import LIMIT, Client, Daemon, wait_for
from tests.support.transports import Server, World, in_world


@pytest.fixture(params=["asyncio", "uvloop"])
def world(request: pytest.FixtureRequest) -> World:
    """A world served by our transport on each event loop in turn."""
    return World(request.param)


TCP = "tcp:0:interface=127.0.0.1"


# Ports.


@pytest.mark.parametrize("description", [TCP, r"tcp:0:interface=\:\:1", "unix:{}/socket"])
@in_world
async def test_it_serves_every_kind_of_stream_socket(world: World, description: str, tmp_path: Path) -> None:
    server, client = await world.connect(description=description.format(tmp_path))
    assert isinstance(server.transport, LoopTransport)
    await client.send(b"ping")
    await world.until(lambda: server.data == b"ping")
    server.transport.write(b"pong")
    server.transport.loseConnection()
    assert await client.rest() == b"pong"


@in_world
async def test_it_serves_a_socket_that_another_process_opened(world: World) -> None:
    inherited = socket.create_server(("127.0.0.1", 0))
    endpoint = LoopEndpoint(AdoptedStreamServerEndpoint(world.reactor, inherited.detach(), socket.AF_INET))
    factory = Factory.forProtocol(Server)
    world.ports.append(await endpoint.listen(factory))
    client = world.client(world.ports[0])
    await client.send(b"x")
    client.shut()
    assert await client.rest() == b""


def test_a_port_that_is_taken_fails_at_once_before_the_reactor_runs(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(CannotListenError):
            world.listen(description=f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1")

        async def nothing() -> None:
            pass

        world.run(nothing())


@in_world
async def test_clients_that_come_before_the_reactor_accepts_are_served_too(world: World) -> None:
    clients = [world.client(world.listen()) for _ in range(3)]
    await world.until(lambda: [server.events for server in world.servers] == [["made"]] * len(clients))


@in_world
async def test_after_stop_listening_nobody_can_connect_and_who_is_connected_stays(world: World) -> None:
    server, client = await world.connect()
    port = world.ports[0]
    await maybeDeferred(port.stopListening)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(client.socket.getpeername())
    await client.send(b"still here")
    await world.until(lambda: server.data == b"still here")


@in_world
async def test_a_client_that_is_accepted_while_the_port_stops_is_closed_and_never_made(world: World) -> None:
    def stop() -> Server:
        world.ports[0].stopListening()
        return Server()

    client = world.client(world.listen(stop))
    await client.rest()
    await world.turns()
    assert [server.events for server in world.servers] == [[]]


@in_world
async def test_a_client_that_the_factory_does_not_want_is_closed(world: World) -> None:
    client = world.client(world.listen(lambda: None))
    assert await client.rest() == b""


@in_world
async def test_a_client_that_is_gone_before_it_is_served_harms_nobody(world: World) -> None:
    port = world.listen()
    for _ in range(5):
        world.client(port).reset()
    world.client(port)
    await world.until(lambda: any(server.events == ["made"] for server in world.servers))


@in_world
async def test_the_factory_is_started_and_stopped_with_its_port(world: World) -> None:
    told: list[str] = []

    class Told(Factory):
        noisy = False

        def startFactory(self) -> None:
            told.append("start")

        def stopFactory(self) -> None:
            told.append("stop")

    port = await server_endpoint(world.reactor, TCP).listen(Told())
    assert told == ["start"]
    await maybeDeferred(port.stopListening)
    assert told == ["start", "stop"]


@in_world
async def test_a_unix_socket_has_the_mode_that_was_asked_for_and_is_removed(world: World, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    port = world.listen(description=f"unix:{path}:mode=600")
    assert port.getHost() == UNIXAddress(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await maybeDeferred(world.ports.pop().stopListening)
    assert list(tmp_path.iterdir()) == []


@in_world
async def test_a_unix_socket_that_a_dead_process_left_is_taken_over(world: World, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(LIMIT)
    (tmp_path / "socket.lock").symlink_to(str(dead.pid))
    await world.connect(description=f"unix:{path}")


@in_world
async def test_a_unix_socket_that_is_served_can_not_be_taken(world: World, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    world.listen(description=f"unix:{path}")
    with pytest.raises(CannotListenError):
        world.listen(description=f"unix:{path}")
    world.client(world.ports[0])
    await world.until(lambda: world.servers)


def test_when_no_more_files_can_be_opened_clients_are_refused_until_some_can(tmp_path: Path) -> None:
    few = ("sh", "-c", 'ulimit -n 40; exec "$@"', "sh")
    with Daemon(tmp_path, "--port", "0", through=few) as daemon:
        daemon.started()
        clients = [daemon.client() for _ in range(40)]
        served = [client for client in clients if serves(client)]
        assert 0 < len(served) < len(clients)
        assert serves(served[0])
        for client in clients:
            client.close()
        wait_for(lambda: serves(daemon.client()), "the daemon to serve again")


def serves(client: Client) -> bool:
    """Whether the client gets an answer; else it is disconnected."""
    try:
        return client.ask("PING") != ""
    except ConnectionError:
        return False


# The choice.


@in_world
async def test_only_plain_stream_sockets_are_served_by_ours(world: World) -> None:
    for description in "tcp:0", "tcp6:0", "unix:socket":
        assert isinstance(server_endpoint(world.reactor, description), LoopEndpoint)
    for description in "stdio:", "haproxy:tcp:0":
        assert not isinstance(server_endpoint(world.reactor, description), LoopEndpoint)


def test_under_another_reactor_twisteds_own_transports_serve() -> None:
    world = World("Twisted")

    async def test() -> None:
        assert not isinstance(server_endpoint(world.reactor, TCP), LoopEndpoint)
        assert transport_name(world.reactor) == "Twisted's SelectReactor"

    world.run(test())


@in_world
async def test_the_name_of_the_transport_is_that_of_the_event_loop(world: World) -> None:
    assert isinstance(world.reactor, AsyncioSelectorReactor)
    assert transport_name(world.reactor) == world.kind


def test_a_clock_has_no_transport_of_ours() -> None:
    assert transport_name(Clock()) == "Twisted's Clock"


def printed(code: str) -> str:
    """What a new process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True)
    return done.stdout.strip()


INSTALL = """
from kvd.daemon.listen import server_endpoint
from kvd.reactor import install_reactor, transport_name
install_reactor()
install_reactor()
from twisted.internet import reactor
"""
PRINT_NAME = "print(transport_name(reactor))"


def test_a_socket_that_systemd_opened_is_served_by_ours() -> None:
    inherit = "import os; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='kvd')"
    show = "print(type(server_endpoint(reactor, 'systemd:domain=INET:index=0')).__name__)"
    assert printed(inherit + INSTALL + show) == "LoopEndpoint"


def test_uvloop_is_installed_where_there_is_one() -> None:
    assert printed(INSTALL + PRINT_NAME) == "uvloop"


def test_without_uvloop_it_is_asyncio() -> None:
    assert printed("import sys; sys.modules['uvloop'] = None" + INSTALL + PRINT_NAME) == "asyncio"


@pytest.mark.parametrize("loop", ["", "import sys; sys.modules['uvloop'] = None"])
def test_a_step_of_the_wall_clock_stops_no_time_limit(loop: str) -> None:
    step = """
import time
real = time.time
fired = []
reactor.callLater(0.3, fired.append, 1)
reactor.callLater(0.4, reactor.stop)
for step in (-3600, 3600):
    time.time = lambda step=step: real() + step
began = time.monotonic()
assert abs(reactor.seconds() - began) < 0.2
reactor.run()
print(fired, 0.3 < time.monotonic() - began < 15)
"""
    assert printed(loop + INSTALL + step) == "[1] True"


def test_a_reactor_that_is_installed_already_stays() -> None:
    before = "from twisted.internet import selectreactor; selectreactor.install()"
    assert printed(before + INSTALL + PRINT_NAME) == "Twisted's SelectReactor"


@pytest.mark.parametrize("daemonize", [False, True])
@pytest.mark.parametrize(
    ("twistd", "name"), [((), "uvloop"), (("--reactor=asyncio",), "asyncio"), (("--reactor=poll",), "Twisted's Poll")]
)
def test_the_daemon_says_what_serves(tmp_path: Path, daemonize: bool, twistd: tuple[str, ...], name: str) -> None:
    with Daemon(tmp_path, "--port", "0", twistd=twistd, daemonize=daemonize) as daemon:
        client = daemon.started().client()
        assert f'"transport": "{name}' in client.ask("INFO server")
        assert f"; transport {name}" in daemon.log()


@pytest.mark.parametrize("daemonize", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_daemon_though_the_loop_is_not_twisteds(
    tmp_path: Path, daemonize: bool, number: signal.Signals
) -> None:
    with Daemon(tmp_path, "--port", "0", "--listen", "unix:socket", daemonize=daemonize) as daemon:
        client = daemon.started().client()
        daemon.send_signal(signal.SIGHUP)
        assert client.ask("PUT a 1") == '{"status": "Ok"}'
        daemon.stop(number)
        assert not (tmp_path / "socket").exists()
        assert "Traceback" not in daemon.log()
        assert "Server Shut Down" in daemon.log()


def test_a_daemon_in_the_background_serves_many_clients_at_a_time(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", daemonize=True) as daemon:
        daemon.started()
        clients = [daemon.client() for _ in range(40)]
        for client in clients:
            client.send(b"INCR n\n" * 50)
        last = [[client.line() for _ in range(50)][-1] for client in clients]
        assert '{"status": "Ok", "result": 2000}' in last
