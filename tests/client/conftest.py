"""A server and a client joined in memory; and no error of a test goes unhandled."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from twisted.logger import LogLevel, capturedLogs

from kvd.client import Client
from kvd.testing import MemoryServer


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
