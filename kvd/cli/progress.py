"""Tells how far a subcommand is, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.task import LoopingCall

WIDTH = 79


@contextmanager
def progress(reactor: Any, line: Callable[[], str], everywhere: bool = False) -> Iterator[None]:
    """Tell once a second how far it is, while the ``with`` block runs.

    :param line: says how far it is.
    :param everywhere: tell it in lines of their own where standard error is not a terminal, and not only on a terminal.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    end = "\r" if terminal else "\n"
    ticks = LoopingCall(
        lambda: print(f"{line():{WIDTH}}" if terminal else line(), end=end, file=sys.stderr, flush=True)
    )
    ticks.clock = reactor
    if terminal or everywhere:
        ticks.start(1.0, now=False)
    try:
        yield
    finally:
        if ticks.running:
            ticks.stop()
        if terminal:
            print(" " * WIDTH, end="\r", file=sys.stderr, flush=True)
