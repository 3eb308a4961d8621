"""A server in memory, and a client of it."""

from __future__ import annotations

import pytest

from kvd.testing.conversations import Connection, Server


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server) -> Connection:
    return server.client()
