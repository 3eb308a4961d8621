"""The SQLite store: serves from memory, and keeps every commit in a file."""

from __future__ import annotations

import os

from kvd.errors import BadArguments
from kvd.stores.memory.store import MemoryStore
from kvd.stores.sqlite.journal import SqliteJournal


def sqlite(argument: str) -> MemoryStore:
    """The store of ``--store sqlite:PATH``."""
    if not argument:
        raise BadArguments("the sqlite store needs the path of its file: sqlite:PATH")
    return MemoryStore(SqliteJournal(os.path.realpath(argument)))
