"""What both clients do about a COMMIT whose reply is lost: they gave it a receipt, and ask for its outcome."""

from __future__ import annotations

import time
from typing import Any, NamedTuple
from uuid import uuid4

from kvd import requests
from kvd.errors import Busy, Idle, Internal, KvdError, OutcomeUnknown, OutOfMemory, Unavailable

IN_DOUBT = (OutcomeUnknown, Internal)
"""The errors of a COMMIT that leave open whether it has happened."""

ASK_AGAIN = (Unavailable, Busy, Idle, OutOfMemory, OutcomeUnknown, Internal)
"""The errors of an OUTCOME that may pass. To ask twice does no harm."""


class Outcome(NamedTuple):
    """What became of a COMMIT with a receipt.

    :ivar committed: whether it has happened. If not, it never will.
    :ivar kept: for how many seconds back the server remembers receipts. That a COMMIT has not happened counts only if
        its transaction began within that time.
    """

    committed: bool
    kept: float


def new() -> str:
    """A receipt that no other client, thread or process has: its chance comes from the operating system."""
    return uuid4().hex


def uptime() -> float:
    """Seconds, to measure the age of a transaction; they go on while the machine sleeps, if the system can tell.

    The server may forget a receipt in that time, so a transaction must not look younger than it is.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def outcome(reply: dict[str, Any]) -> Outcome:
    """What a reply to OUTCOME says.

    :raise kvd.errors.KvdError: the reply is an Error, or is not one to OUTCOME.
    """
    found, kept = requests.result_of(reply), reply.get("kept")
    if found not in ("committed", "never"):
        raise requests.unfit(found)
    if not isinstance(kept, int | float) or isinstance(kept, bool) or abs(kept) > 2**63:
        raise requests.unfit(kept)
    return Outcome(found == "committed", float(kept))


def settle(found: Outcome, age: float, lost: KvdError) -> None:
    """Draw the conclusion for a transaction whose COMMIT had no reply; returns if it was stored.

    :param age: seconds since before its START was sent, measured after the answer came.
    :param lost: the error of the COMMIT.
    :raise kvd.errors.Unavailable: nothing was stored.
    :raise kvd.errors.OutcomeUnknown: the server may have forgotten the receipt.
    """
    if found.committed:
        return
    if age < found.kept:
        raise Unavailable(f"{_problem(lost)}; nothing was stored") from lost
    raise OutcomeUnknown(
        f"{_problem(lost)}; the change may or may not have been stored: the transaction began {age:.3g} seconds ago, "
        f"and the server remembers receipts for {found.kept:.3g} seconds"
    ) from lost


def unsettled(lost: KvdError, why: str, receipt: str) -> OutcomeUnknown:
    """The error of a COMMIT that had no reply, and whose outcome could not be learnt.

    :param lost: the error of the COMMIT.
    """
    error = OutcomeUnknown(f"{_problem(lost)}; the change may or may not have been stored; {why}", receipt=receipt)
    error.__cause__ = lost
    return error


def unheard(limit: float, problem: KvdError) -> Unavailable:
    """The error for an outcome that could not be learnt in time.

    :param limit: seconds for which the server was asked.
    :param problem: why the last try failed.
    """
    error = Unavailable(f"the server could not tell the outcome for {limit:g} seconds ({_problem(problem)}); ask again")
    error.__cause__ = problem
    return error


def _problem(error: KvdError) -> str:
    """The first part of a sentence: what follows speaks of another request, or is known better by now."""
    return error.mesg.partition(";")[0]
