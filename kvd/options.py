"""Values of options: text -> number, or a ValueError that says what was expected; and the options for limits."""

from __future__ import annotations

import math
from typing import Any, Final

from twisted.python.usage import Options

from kvd.core.limits import Limits


def port(value: str) -> int:
    """A TCP port."""
    number = int(value) if value.isascii() and value.isdigit() else -1
    if not 0 <= number <= 65535:
        raise ValueError(f"a port is a number between 0 and 65535, and {value!r} is none")
    return number


def count(value: str) -> int:
    """A number of things; 0: no limit."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{value!r} is no number")
    return int(value)


def seconds(value: str) -> float:
    """A number of seconds; 0: no limit."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if number < 0 or not math.isfinite(number):
        raise ValueError(f"{value!r} is no number of seconds")
    return number


_UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size(value: str) -> int:
    """A number of bytes, or of K, M, G or T; 0: no limit."""
    unit = _UNITS.get(value[-1:].upper())
    digits = value if unit is None else value[:-1]
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{value!r} is no size; write a number of bytes, or as 64M or 2G")
    return int(digits) * (unit or 1)


_DEFAULTS: Final = Limits()

LIMITS: Final[list[list[Any]]] = [
    ["max-clients", None, _DEFAULTS.clients, "Clients at a time; more are refused.", count],
    ["max-memory", None, None, "Memory for data and clients, as 64M, 2G. [default: half of the machine's]", size],
    ["line-time", None, _DEFAULTS.line_time, "Seconds in which a line must arrive whole.", seconds],
    ["idle-time", None, _DEFAULTS.idle_time, "Seconds after which a silent client is disconnected.", seconds],
    ["transaction-idle", None, _DEFAULTS.transaction_idle, "Seconds for which a transaction may be unused.", seconds],
    ["transaction-time", None, _DEFAULTS.transaction_time, "Seconds for which a transaction may be open.", seconds],
    ["transaction-keys", None, _DEFAULTS.transaction_keys, "Keys that it may read and write.", count],
    ["transaction-bytes", None, _DEFAULTS.transaction_bytes, "Memory that it may take.", size],
]
"""Options as :class:`twisted.python.usage.Options` takes them. In all of them, 0 means: no limit."""


def limits_from(options: Options) -> Limits:
    """The limits that the options set."""
    memory = options["max-memory"]
    return Limits(
        clients=options["max-clients"],
        line_time=options["line-time"],
        idle_time=options["idle-time"],
        transaction_idle=options["transaction-idle"],
        transaction_time=options["transaction-time"],
        transaction_keys=options["transaction-keys"],
        transaction_bytes=options["transaction-bytes"],
        memory=_DEFAULTS.memory if memory is None else memory,
    )
