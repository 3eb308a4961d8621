"""The Deferred client over sockets, where those are what counts."""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ServerEndpoint

from kvd.client import connect
from kvd.daemon.service import StoreService
from kvd.errors import (
    OutcomeUnknown,
    Unavailable,
)
from kvd.protocols.line import factory as line_factory
from kvd.stores.memory.store import MemoryStore
from tests.support.client import add_one, transfer
from tests.support.daemon import Daemon

P = ParamSpec("P")


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
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(line_factory(service))
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
