"""How much memory this process can have."""

from __future__ import annotations

import os
import resource
from contextlib import suppress


def memory_limit(root: str = "") -> int:
    """The least of the machine's memory, the limits of the control groups that the process is in, and RLIMIT_AS.

    A service's own limit stands at the path of its group, and those around it on the way to the root.

    :param root: what /proc and /sys stand under, for tests.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        found.append(address_space)
    for controllers, path in _groups(root):
        if controllers == "":  # the one hierarchy of version 2
            found += _limits_up(f"{root}/sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            found += _limits_up(f"{root}/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(found)


def _groups(root: str) -> list[tuple[str, str]]:
    """The control groups of this process: the controllers of each hierarchy, and the path in it."""
    groups = []
    with suppress(OSError), open(f"{root}/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            groups.append((controllers, path))
    return groups


def _limits_up(mount: str, path: str, name: str) -> list[int]:
    """The limits of a group and of all groups around it. In a container, its group may be all that is mounted."""
    found = []
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        with suppress(OSError, ValueError), open("/".join([mount, *parts[:length], name])) as file:  # it may say "max"
            found.append(int(file.read()))
    return found
