"""What protects the server: limits with defaults, and the account of its memory.

A limit of 0 means: none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from kvd.errors import OutOfMemory

MIB: Final = 1024 * 1024

SPARE = 8 * MIB
"""Bytes by which transactions and buffers may exceed the memory limit before the largest of them has to go."""

NO_LIMIT = 2**62


def memory_of(text: str | None) -> int:
    """The bytes that a text, or None, takes in memory."""
    return text.__sizeof__()  # what sys.getsizeof gives, in half its time


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


class Budget:
    """The account of memory. Whoever holds bytes for clients adds them to ``used``, and takes them off again.

    :ivar buffers: how many of the used bytes are input and output of connections.
    :ivar room: how many bytes may be used by what grows. The rest of the limit is for old values, so that what is
        overwritten at the limit does not end every open transaction at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit or NO_LIMIT
        self.used = 0
        self.buffers = 0
        self.room = 0
        self.crowded = False
        self.set_crowded(False)

    def set_crowded(self, crowded: bool) -> None:
        """Tell whether the process takes more memory than the limit, though less may be used; then nothing may grow."""
        self.crowded = crowded
        self.room = 0 if crowded else self.limit - min(SPARE, self.limit // 16)

    def strained(self) -> bool:
        """Whether the largest of transactions and buffers has to go.

        Buffers may take a quarter of all memory, so that clients that only fill buffers can't keep others from
        storing something.
        """
        return self.used > self.limit + SPARE or self.buffers > self.limit // 4 + SPARE

    def exceeded(self) -> OutOfMemory:
        """The error for what would grow, at the limit."""
        holes = " (and the process takes more, for memory that was given up is not all of use yet)" * self.crowded
        return OutOfMemory(
            f"the server is at its memory limit: {self.used} of {self.limit} bytes are used{holes}; "
            "reading, DEL, and overwriting with something no larger still work"
        )
