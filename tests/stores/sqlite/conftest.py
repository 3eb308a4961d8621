"""A disk that fails as a test wishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.disk import Disk, compile_shim


@pytest.fixture(scope="session")
def disk_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def disk(disk_shim: Path, tmp_path: Path) -> Disk:
    return Disk(disk_shim, tmp_path)
