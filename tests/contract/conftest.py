"""What every store must do, through the real protocol: one suite, run on each store that stands here."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.server import Server
from tests.slow_store import SlowStore


@pytest.fixture(params=["memory", "slow-1", "slow-2"])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "memory":
        return Server()
    clock = Clock()
    return Server(SlowStore(clock, int(request.param[-1])), clock)
