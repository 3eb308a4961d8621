"""Numbers as options take them: text -> number, or a ValueError that says what was expected."""

from __future__ import annotations

import math
from typing import Final


def port(value: str) -> int:
    """A TCP port."""
    number = int(value) if value.isascii() and value.isdigit() else -1
    if not 0 <= number <= 65535:
        raise ValueError(f"a port is a number between 0 and 65535, not {value!r}")
    return number


def count(value: str) -> int:
    """A number of things; 0: no limit."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{value!r} is not a number")
    return int(value)


def at_least_one(value: str) -> int:
    """A number of things of which there must be some."""
    number = count(value)
    if not number:
        raise ValueError(f"a number from 1 up is needed, not {value!r}")
    return number


def positive(value: str) -> float:
    """A number of seconds that is more than 0."""
    number = seconds(value)
    if not number:
        raise ValueError(f"more than 0 seconds are needed, not {value!r}")
    return number


def seconds(value: str) -> float:
    """A number of seconds; 0: no limit."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if number < 0 or not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number of seconds")
    return number


_UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size(value: str) -> int:
    """A number of bytes, or of K, M, G or T; 0: no limit."""
    unit = _UNITS.get(value[-1:].upper())
    digits = value if unit is None else value[:-1]
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{value!r} is not a size; write a number of bytes, such as 64M or 2G")
    return int(digits) * (unit or 1)
