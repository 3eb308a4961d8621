"""Blocking clients of a real daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvd.blocking import Client
from tests.support.daemon import LIMIT, Daemon


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client("127.0.0.1", daemon.port, timeout=LIMIT) as client:
        yield client


@pytest.fixture
def other(daemon: Daemon) -> Iterator[Client]:
    with Client("127.0.0.1", daemon.port, timeout=LIMIT) as client:
        yield client
