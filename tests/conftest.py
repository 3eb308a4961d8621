"""Fixtures that several test modules use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.daemon import Daemon

settings.register_profile("kvd", deadline=None)  # a busy machine is no fault
settings.load_profile("kvd")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A real daemon on a free port, that has started."""
    directory = tmp_path / "daemon"
    directory.mkdir()
    with Daemon(directory, "--port", "0") as daemon:
        yield daemon.started()
