"""How much memory there is: the least of all limits around the process counts, wherever it is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvd.core.machine import memory_limit

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


CASES = [
    ({}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{64 * MIB}\n"}, 64 * MIB),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
    (
        {
            "proc/self/cgroup": "0::/system.slice/kvd.service\n",
            "sys/fs/cgroup/system.slice/kvd.service/memory.max": f"{32 * MIB}\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{64 * MIB}\n",
        },
        32 * MIB,
    ),
    (
        {
            "proc/self/cgroup": "0::/system.slice/kvd.service\n",
            "sys/fs/cgroup/system.slice/kvd.service/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{16 * MIB}\n",
        },
        16 * MIB,
    ),
    (
        {
            "proc/self/cgroup": "12:cpu,cpuacct:/a\n4:memory:/docker/1\n0::/\n",
            "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": f"{8 * MIB}\n",
        },
        8 * MIB,
    ),
    (
        {"proc/self/cgroup": "4:memory:/docker/1\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{9 * MIB}\n"},
        9 * MIB,
    ),
    ({"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
    ({"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/other/memory.max": f"{7 * MIB}\n"}, 7 * MIB),
]


@pytest.mark.parametrize(("files", "limit"), CASES)
def test_the_least_limit_on_the_way_to_the_root_counts(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    (tmp_path / "none").mkdir()
    machine = memory_limit(str(tmp_path / "none"))
    assert machine > 64 * MIB
    assert memory_limit(write(tmp_path / "root", files)) == (machine if limit is None else limit)
