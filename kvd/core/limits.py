"""What protects the server: its limits, with their defaults. A limit of 0 means: none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from kvd.accounts import MIB


def half_of_memory() -> int:
    """Half of the memory that this process can have: the machine's, or that of its control group if that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            memory = min(memory, int(file.read()))
    except (OSError, ValueError):  # there is no such group, or its limit is "max"
        pass
    return memory // 2


@dataclass
class Limits:
    """Times are in seconds, sizes in bytes."""

    clients: int = 10_000
    """Connections at a time."""
    line_time: float = 60.0
    """For a line to arrive whole, and for the first line of a connection to arrive at all."""
    idle_time: float = 0.0
    """For which a connection may be silent."""
    transaction_idle: float = 60.0
    """For which an open transaction may be unused."""
    transaction_time: float = 600.0
    """For which a transaction that may write may be open."""
    transaction_keys: int = 10_000
    """Keys and ranges that a transaction may read and write, taken together."""
    transaction_bytes: int = 64 * MIB
    """Memory that a transaction may take for what it reads and writes."""
    memory: int = field(default_factory=half_of_memory)
    """Memory for everything that depends on clients: data, old values, transactions, buffers, connections."""
    store_wait: float = 30.0
    """For which a request waits for the store."""
