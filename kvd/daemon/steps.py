"""Waiting for a store: takes the steps of a Later to its answer. Nothing else in kvd knows that a Deferred is one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, inlineCallbacks
from twisted.internet.interfaces import IReactorTime

from kvd.daemon.turns import TurnQueue
from kvd.interfaces import Later, Store, TimedOut


class Walker:
    """Takes steps.

    :param store: tells which commits the steps have seen.
    :param turns: where they wait for others to have their turn.
    :param clock: the reactor, or a Clock.
    :param limit: seconds that each Deferred may take.
    """

    def __init__(self, store: Store, turns: TurnQueue, clock: IReactorTime, limit: float) -> None:
        self._store = store
        self._turns = turns
        self._clock = clock
        self._limit = limit

    @inlineCallbacks
    def take(self, later: Later[Any], unwanted: Callable[[], bool]) -> Generator[Deferred[Any], Any, tuple[Any, int]]:
        """Wait for an answer.

        :param unwanted: whether nobody wants it any more; asked when the Deferred that is returned is cancelled.
        :return: the answer, and the newest commit that it rests on and that was not durable; or raises what the
            steps raise. It fires with None, and without that answer, once it is unwanted.
        """
        store = self._store
        steps = later.steps
        resume: Callable[[Any], Any] = steps.send
        brought: Any = None
        seen = store.seen  # what was seen at once, before the first step
        try:
            while True:
                store.seen = 0
                wanted = resume(brought)
                seen = max(seen, store.seen)
                resume = steps.send
                try:
                    if wanted is None:
                        brought = yield self._turns.wait()
                    else:
                        brought = yield wanted.addTimeout(self._limit, self._clock)
                except TimeoutError:
                    resume, brought = steps.throw, TimedOut()
                except Exception as error:
                    if isinstance(error, CancelledError) and unwanted():
                        steps.close()
                        return None, 0
                    resume, brought = steps.throw, error
        except StopIteration as stop:
            return stop.value, max(seen, store.seen)
