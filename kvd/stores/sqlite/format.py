"""The format of the SQLite store's file: its tables, and how pairs and commits are written into them.

A commit is one row of ``commits``. Now and then the older commits are folded into ``folded``, the table of pairs. So
the pairs of a store are those in ``folded`` and, on top of them, the commits after the number ``folded`` in ``about``.
The view ``pairs`` puts the two together, for people who open the file with ``sqlite3``.

``writes`` is a JSON array. Each of its items is ``[key, value]``, or ``[key, null]`` for a key that was removed, or
``[key, value, ends]`` for a key that ends, in milliseconds since 1970 UTC. There is room for what may come: ``{"from":
low, "to": high}`` for a whole range that was removed before the other items were written. SQLite's JSON functions know
no U+0000, so a text that holds some is written as the array of its parts.

A key that has ended is not written down as removed. A commit without writes says only that its time has passed, and
``time`` in ``about`` says the same of commits that are no longer there. What has ended by then never comes back,
whatever the clock says.

SQLite tells when the structure of a file is damaged. Each row has a sum, so that a damaged text is noticed too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring
from sqlite3 import Connection
from typing import Any, Final
from uuid import uuid4
from zlib import crc32

from kvd.interfaces import Ending, Receipt, Stored, Writes

APPLICATION: Final = int.from_bytes(b"kvd1", "big")
"""SQLite's ``application_id``: that this is a file of kvd."""

VERSION: Final = 1
"""SQLite's ``user_version``: that of the format."""

Row = tuple[int, int, int, str, str, int, str, int]
"""A commit: number, when (in milliseconds since 1970 UTC), client, user, receipt, whether it committed, writes, sum.

There is no None and no bool in it: Python's sqlite3 takes a microsecond to find out what to do with each of them. User
and receipt are empty if there is none.
"""

Pair = tuple[str, str, int | None, int]
"""A pair: key, value, end, sum."""

# The view comes first: where SQLite met it last, its check of the file left out whether any page is lost (in 3.40).
_SCHEMA: Final = """
CREATE VIEW pairs (key, value, ends) AS
WITH item (number, type, value) AS (
    SELECT number, each.type, each.value FROM commits, json_each(writes) AS each
    WHERE number > (SELECT value FROM about WHERE name = 'folded')
),
written (number, key, value, ends) AS (
    SELECT 0, key, value, ends FROM folded
    UNION ALL
    SELECT number,
        (SELECT group_concat(part.value, char(0)) FROM json_each(item.value, '$[0]') AS part),
        (SELECT group_concat(part.value, char(0)) FROM json_each(item.value, '$[1]') AS part),
        json_extract(value, '$[2]')
    FROM item WHERE type = 'array'
),
cleared (number, low, high) AS (
    SELECT number, json_extract(value, '$.from'), json_extract(value, '$.to') FROM item WHERE type = 'object'
),
newest (number, key, value, ends) AS (SELECT max(number), key, value, ends FROM written GROUP BY key)
SELECT key, value, ends FROM newest
WHERE value IS NOT NULL
AND (ends IS NULL OR ends > (julianday('now') - 2440587.5) * 86400000)
AND NOT EXISTS (
    SELECT 1 FROM cleared
    WHERE cleared.number > newest.number AND low <= key AND (high IS NULL OR key < high)
)
ORDER BY key;
CREATE TABLE about (name TEXT PRIMARY KEY, value, sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (first INTEGER PRIMARY KEY, id TEXT NOT NULL, began INTEGER NOT NULL);
CREATE TABLE folded (key TEXT PRIMARY KEY, value TEXT NOT NULL, ends INTEGER, sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE commits (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, by INTEGER NOT NULL, user TEXT NOT NULL, receipt TEXT NOT NULL,
    committed INTEGER NOT NULL, writes TEXT NOT NULL, sum INTEGER NOT NULL
);
"""


TABLES: Final = [statement.strip() for statement in _SCHEMA.split(";") if "CREATE TABLE" in statement]
"""How the tables were made, in the words that SQLite keeps."""


def create(connection: Connection) -> None:
    """Make an empty store of an empty database. The caller is in a transaction, and commits it."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    about: dict[str, Any] = {"store": uuid4().hex, "folded": 0, "receipts_since": now(), "checkpoints": 0, "time": 0}
    rows = [(name, value, about_sum(name, value)) for name, value in about.items()]
    connection.executemany("INSERT INTO about VALUES (?, ?, ?)", rows)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def now() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def about_sum(name: str, value: Any) -> int:
    """The sum of what the file says about itself."""
    return crc32(f"{name} {value}".encode())


# Pairs.


def pair_sum(key: str, value: str, ends: int | None = None) -> int:
    """The sum of a pair."""
    total = crc32(value.encode(), crc32(key.encode()))
    return total if ends is None else crc32(str(ends).encode(), total)


def insert_pairs(connection: Connection, pairs: Iterable[tuple[str, str, int | None]]) -> None:
    """Add or replace folded pairs: key, value and end. In the order of their keys this is fastest."""
    connection.executemany(
        "INSERT OR REPLACE INTO folded VALUES (?, ?, ?, ?)",
        [(key, value, ends, pair_sum(key, value, ends)) for key, value, ends in pairs],
    )


# Commits.

_quoted: Final[Callable[[str], str]] = encode_basestring


def _text(text: str) -> str:
    return _quoted(text) if "\0" not in text else f"[{','.join(map(_quoted, text.split(chr(0))))}]"


def _item(key: str, stored: Stored | None) -> str:
    if isinstance(stored, Ending):
        return f"[{_text(key)},{_text(stored.value)},{stored.end}]"
    return f"[{_text(key)},null]" if stored is None else f"[{_text(key)},{_text(stored)}]"


def text_of(item: Any) -> str:
    """A text that was read from a commit."""
    text: str = "\0".join(item) if isinstance(item, list) else item
    return text


def row(number: int, at: int, writes: Writes, by: int, receipt: Receipt | None, committed: bool) -> Row:
    """The row of a commit.

    :param at: when it was.
    :param committed: if not, nothing was committed: the receipt was settled.
    """
    items = []
    timed = not writes
    for key, stored in writes.items():
        items.append(_item(key, stored))
        timed = timed or isinstance(stored, Ending)
    text = f"[{','.join(items)}]"
    user, name = ("", "") if receipt is None else (receipt.user or "", receipt.name)
    done = int(committed)
    return number, at, by, user, name, done, text, row_sum(number, at, user, name, done, text, timed)


def row_sum(number: int, at: int, user: str, name: str, committed: int, text: str, timed: bool = False) -> int:
    """The sum of a commit.

    :param timed: whether it matters when it was. With a receipt it does; and if something ends in it, or it says
        nothing but the time.
    """
    if not name and not timed:
        return crc32(text.encode(), number)
    return crc32(f"{at} {user} {name} {committed} {text}".encode(), number)
