"""What protects the server: its limits, with their defaults. A limit of 0 means: none."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvd.accounts import MIB
from kvd.core.machine import memory_limit


def half_of_memory() -> int:
    """Half of the memory that this process can have."""
    return memory_limit() // 2


@dataclass
class Limits:
    """Times are in seconds, sizes in bytes."""

    clients: int = 10_000
    """Connections at a time."""
    line_time: float = 60.0
    """For a line that has begun to arrive whole."""
    idle_time: float = 0.0
    """For which a connection may be silent, and may leave what was sent to it unread."""
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
    receipt_time: float = 3600.0
    """For which receipts are remembered."""
    store_wait: float = 30.0
    """For which a request waits for the store."""
