"""Who waits for the disk: a thread that does nothing else, so that the reactor never does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread

from kvd.compiler import mypyc_attr
from kvd.interfaces import Host

Done = Callable[[BaseException | None], None]
"""Is called when something is done, with what it raised."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Worker(ABC):
    """Does what takes long, one thing at a time."""

    @abstractmethod
    def start(self, host: Host) -> None:
        """Begin."""

    @abstractmethod
    def do(self, work: Callable[[], None], done: Done) -> None:
        """Do something.

        :param done: is called in the reactor's thread.
        """

    @abstractmethod
    def stop(self) -> None:
        """Wait until what was begun is done."""


class DiskThread(Worker):
    """A thread of its own.

    A thread that only waits for the disk does not take the interpreter's lock away from the reactor; one that runs
    statements of SQLite's would. (Twisted's thread pool does the same, and takes 0.1 ms for each sync.)
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[Callable[[], None], Done] | None] = SimpleQueue()
        self._runner = Thread(target=self._run, name="kvd-disk", daemon=True)

    def start(self, host: Host) -> None:
        self._from_thread = host.from_thread
        self._runner.start()

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            work, done = asked
            problem: BaseException | None = None
            try:
                work()
            except Exception as error:
                problem = error
            self._from_thread(partial(done, problem))

    def do(self, work: Callable[[], None], done: Done) -> None:
        self._asked.put((work, done))

    def stop(self) -> None:
        self._asked.put(None)
        self._runner.join()
