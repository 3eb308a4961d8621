"""Reading and writing that may wait for ever, such as on a terminal or a pipe, beside the reactor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class _Thread(threading.Thread):
    """A thread that may still wait when the process ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, daemon=True, **options)


class _Threads(ThreadPool):
    threadFactory = _Thread


class Helper:
    """Does one thing after the other in a thread. The end of the process does not wait for it.

    What it does must not hold a lock of Python's own files, such as sys.stdin: Python waits for these at its end.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._threads = _Threads(0, 1)
        self._threads.start()

    def do(self, what: Callable[P, T], *args: P.args, **options: P.kwargs) -> Deferred[T]:
        """A Deferred of what the function returns or raises."""
        doing: Deferred[T] = deferToThreadPool(self._reactor, self._threads, what, *args, **options)
        return doing
