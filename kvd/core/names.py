"""What somebody probably meant by a name that no command has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

ELSEWHERE: Final = {
    "SET": "PUT", "STORE": "PUT", "WRITE": "PUT", "INSERT": "PUT", "UPDATE": "PUT", "UPSERT": "PUT",
    "READ": "GET", "FETCH": "GET",
    "DELETE": "DEL", "REMOVE": "DEL", "RM": "DEL", "UNLINK": "DEL", "ERASE": "DEL",
    "INCRBY": "INCR", "DECR": "INCR", "DECRBY": "INCR",
    "KEYS": "SCAN", "LIST": "SCAN", "LS": "SCAN", "RANGE": "SCAN",
    "DBSIZE": "COUNT",
    "FLUSHALL": "CLEAR", "FLUSHDB": "CLEAR",
    "MULTI": "START", "BEGIN": "START",
    "EXEC": "COMMIT",
    "DISCARD": "ROLLBACK", "ABORT": "ROLLBACK",
    "LOGIN": "AUTH",
    "STATS": "INFO", "STATUS": "INFO",
    "?": "HELP", "COMMANDS": "HELP",
    "EXIT": "QUIT", "BYE": "QUIT", "LOGOUT": "QUIT", "Q": "QUIT", "CLOSE": "QUIT",
}  # fmt: skip
"""What other servers and other prompts call a command, and what it is called here."""

LONG: Final = 6
"""Letters from which on a name may hold two mistakes."""


def meant(name: str, names: Iterable[str]) -> str | None:
    """The command that somebody probably meant, or None.

    :param name: in capitals.
    :param names: those that there are.
    """
    known = list(names)
    elsewhere = ELSEWHERE.get(name)
    if elsewhere is not None:
        return elsewhere if elsewhere in known else None
    if len(name) > max([len(each) for each in known]) + 2:
        return None
    nearest: str | None = None
    fewest = 3 if len(name) >= LONG else 2
    for each in known:
        mistakes = distance(name, each)
        if mistakes < fewest:
            nearest, fewest = each, mistakes
    return nearest


def distance(one: str, other: str) -> int:
    """How many letters must be added, left out, replaced, or swapped with their neighbour."""
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, each in enumerate(other, 1):
            fewest = min(above[column] + 1, line[column - 1] + 1, above[column - 1] + (0 if letter == each else 1))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == each:
                fewest = min(fewest, before[column - 2] + 1)
            line.append(fewest)
        before, above = above, line
    return above[-1]
