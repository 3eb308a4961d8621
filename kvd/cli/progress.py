"""Tells how far a subcommand is, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.task import LoopingCall

WIDTH = 79


def on_terminal() -> bool:
    """Whether somebody sees on a terminal how far it is."""
    return sys.stderr is not None and sys.stderr.isatty()


def speed(done: Callable[[], int], share: Callable[[], float | None]) -> Callable[[], str]:
    """A line that says how much is done, and how much was done since it was last asked for.

    :param done: how many things are done.
    :param share: which share of all that is; None if nobody knows.
    """
    before = 0

    def line() -> str:
        nonlocal before
        now, part = done(), share()
        text = f"{f'{now:,}' if part is None else f'{min(part, 1.0):4.0%}'} {now - before:12,} a second"
        before = now
        return text

    return line


@contextmanager
def progress(reactor: Any, line: Callable[[], str], everywhere: bool = False, aside: bool = False) -> Iterator[None]:
    """Tell once a second how far it is, while the ``with`` block runs.

    :param line: says how far it is.
    :param everywhere: tell it in lines of their own where standard error is not a terminal, and not only on a terminal.
    :param aside: say nothing, because the terminal is needed for what is read or written.
    """
    terminal = on_terminal() and not aside
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
