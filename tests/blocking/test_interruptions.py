"""Exceptions out of nowhere, at any point of a request or a transaction: nothing is left open, nothing mixed up."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kvd import blocking
from kvd.blocking import Client, Transaction
from kvd.errors import KvdError, NoTransaction, Unavailable
from tests.support.daemon import wait_for

FOLDER = str(Path(blocking.__file__).parent)


class Interruption(BaseException):
    """As KeyboardInterrupt, or what a signal handler raises."""


def interrupted_at(step: int, run: Callable[[], object], instructions: tuple[str, ...]) -> BaseException | None:
    """Run a function, and interrupt it at a step inside the blocking client.

    :param step: which one: lines, calls and returns count, and single instructions in the files named.
    :return: what came out of it; None if it was over before.
    """
    left = step

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        file = frame.f_code.co_filename
        if not file.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = file.endswith(instructions)
        left -= 1
        if not left:
            raise Interruption
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except (Interruption, KvdError, ZeroDivisionError) as error:
        return error
    finally:
        sys.settrace(before)
    assert left > 0, "an interruption was swallowed"
    return None


class Pair:
    """Two keys that transactions always change together, and what they did to them."""

    def __init__(self, client: Client, other: Client) -> None:
        self.client = client
        self.other = other
        self.number = 0
        self.last: Transaction | None = None
        self.by_hand = False  # a transaction was opened by hand, and is not known to be over

    def change(self) -> None:
        with self.client.transaction() as self.last:
            self.last.put("a", str(self.number))
            self.last.put("b", str(self.number))

    def change_together(self) -> None:
        with self.client.transaction() as self.last, self.last.pipeline() as pipe:
            pipe.put("a", str(self.number))
            pipe.put("b", str(self.number))

    def change_and_raise(self) -> None:
        with self.client.transaction() as self.last:
            self.last.put("a", "never")
            raise ZeroDivisionError

    def change_by_hand(self) -> None:
        self.by_hand = sys.version_info < (3, 11)  # where an exception can come when start() has returned
        self.client.start()
        self.by_hand = True
        self.client.put("a", str(self.number))
        self.client.put("b", str(self.number))
        self.client.commit()
        self.by_hand = False

    def check(self) -> None:
        """See that nothing is left open, without anybody noticing, of what was done last."""
        if self.by_hand:
            with suppress(NoTransaction, Unavailable):
                self.client.rollback()
            self.by_hand = False
        a, b = self.other.mget("a", "b")
        assert a == b != "never"
        if self.last is not None:
            with pytest.raises((NoTransaction, Unavailable)):
                self.last.put("late", "1")
        try:
            self.client.put("plain", str(self.number))
        except Unavailable:
            self.client.connect()
            self.client.put("plain", str(self.number))
        assert self.other.get("plain") == str(self.number)
        with self.client.transaction() as txn:
            assert txn.get("plain") == str(self.number)
        a, b, late = self.other.mget("a", "b", "late")  # a COMMIT that was on its way may have arrived since
        assert (a == b != "never", late) == (True, None)
        self.number += 1
        self.last = None


@pytest.fixture
def pair(client: Client, other: Client) -> Pair:
    other.put_many({"a": "0", "b": "0"})
    return Pair(client, other)


@pytest.mark.parametrize("run", [Pair.change, Pair.change_together, Pair.change_and_raise])
@pytest.mark.parametrize(("instructions", "every"), [(("-",), 1), (("link.py", "transaction.py"), 11)])
def test_a_transaction_that_is_interrupted_anywhere_is_never_left_open(
    pair: Pair, run: Callable[[Pair], None], instructions: tuple[str, ...], every: int
) -> None:
    kept: list[BaseException] = []  # with their frames, which hold everything that the client had in hand
    step = 1
    while True:
        error = interrupted_at(step, lambda: run(pair), instructions)
        if not isinstance(error, Interruption):
            break
        kept.append(error)
        pair.check()
        step += every
    assert step > 300
    wait_for(lambda: pair.other.info("transactions")["open"] == 0, "all transactions to end")


def test_after_a_request_that_is_interrupted_anywhere_no_other_gets_its_reply(client: Client, other: Client) -> None:
    other.put_many({"x": "value of x", "y": "value of y"})
    step = 1
    while isinstance(interrupted_at(step, lambda: client.get("x"), ("-",)), Interruption):
        try:
            assert client.get("y") == "value of y"
        except Unavailable:
            client.connect()
        assert client.mget("y", "x") == ["value of y", "value of x"]
        step += 1
    assert step > 50


class Gun:
    """Sends this process signals whose handler raises, at random times."""

    def __init__(self) -> None:
        self.shots = 0
        self.hits = 0
        self._random = random.Random(1)

    def __call__(self, *_: object) -> None:
        if self.shots:
            self.shots -= 1
            self.hits += 1
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(5e-6, 1e-4))
            raise Interruption

    def fire_at(self, run: Callable[[], object]) -> None:
        """Run a function under fire."""
        try:
            self._fire_at(run)
        except Interruption:  # the second shot hit what deals with the first
            self.shots = 0

    def _fire_at(self, run: Callable[[], object]) -> None:
        try:
            self.shots = self._random.randint(1, 2)
            signal.setitimer(signal.ITIMER_REAL, self._random.uniform(1e-5, 2e-3))
            run()
            self.shots = 0
        except (Interruption, KvdError, ZeroDivisionError):
            self.shots = 0
        finally:
            self.shots = 0


@pytest.fixture
def gun() -> Iterator[Gun]:
    gun = Gun()
    descriptor = signal.set_wakeup_fd(-1)  # the test runner's reactor stands still, and does not read it
    handler = signal.signal(signal.SIGALRM, gun)
    yield gun
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    signal.set_wakeup_fd(descriptor)


@pytest.mark.parametrize(
    "run", [Pair.change, Pair.change_together, Pair.change_and_raise, Pair.change_by_hand], ids=lambda run: run.__name__
)
def test_a_transaction_in_a_storm_of_signals_is_never_left_open(
    pair: Pair, gun: Gun, run: Callable[[Pair], None]
) -> None:
    end = time.monotonic() + 2
    while time.monotonic() < end:
        gun.fire_at(lambda: run(pair))
        pair.check()
    assert gun.hits > 100
    pair.client.disconnect()
    wait_for(lambda: pair.other.info("transactions")["open"] == 0, "all transactions to end")
