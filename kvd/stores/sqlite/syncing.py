"""Who waits for the disk: a thread that does nothing else, so that the reactor never does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool


class Worker(ABC):
    """Does what takes long, one thing at a time."""

    @abstractmethod
    def start(self, reactor: Any) -> None:
        """Begin."""

    @abstractmethod
    def do(self, work: Callable[[], None]) -> Deferred[None]:
        """Do something. The Deferred fires in the reactor's thread when it is done, or fails with what it raised."""

    @abstractmethod
    def stop(self) -> None:
        """Wait until what was begun is done."""


class Thread(Worker):
    """A thread of its own.

    A thread that only waits for the disk does not take the interpreter's lock away from the reactor; one that runs
    statements of SQLite's would.
    """

    def __init__(self) -> None:
        self._pool = ThreadPool(minthreads=1, maxthreads=1, name="kvd-disk")

    def start(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool.start()

    def do(self, work: Callable[[], None]) -> Deferred[None]:
        done: Deferred[None] = deferToThreadPool(self._reactor, self._pool, work)
        return done

    def stop(self) -> None:
        self._pool.stop()
