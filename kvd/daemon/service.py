"""The store service: starts and stops the store, and looks after the connections that work on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import twisted
from twisted.application.service import Service
from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

import kvd
from kvd.core import commands
from kvd.core.limits import Limits
from kvd.core.output import Outbox
from kvd.core.session import Server, Session
from kvd.daemon.resident import EVERY, ResidentWatch, resident_bytes
from kvd.daemon.steps import Walker
from kvd.daemon.turns import TurnQueue
from kvd.errors import Idle, KvdError
from kvd.interfaces import Host, ServerClock, Store
from kvd.reactor import transport_name

SHORTEST_LOOK = 0.02
"""Seconds between two looks at the time limits, however short they are."""

MOST_REFUSALS = 16
"""Clients that are being told that there are too many, at a time."""

STOP_LIMIT = 5.0
"""Seconds that clients have, when the server stops, to read what was sent to them."""

log = Logger()


class Stream(Protocol):
    """A connection, as the service sees it; :mod:`kvd.daemon.stream` has the one there is."""

    session: Session

    def is_silent_newcomer(self, now: float) -> bool | None:
        """Whether it has been silent for long, without a whole request ever; None: there was one."""

    def look_after(self, now: float) -> None:
        """Keep the time limits."""

    def dismiss(self, error: KvdError) -> None:
        """Close it, and say why."""

    def stop(self) -> None:
        """The server stops."""

    def abort(self) -> None:
        """Close it at once."""

    def lose(self) -> None:
        """What it holds will never be durable."""


class StoreService(Service):
    """Serves one store.

    :param store: what is served; it is started and stopped with the service.
    :param clock: the reactor, or a Clock.
    :param limits: what protects it; the defaults if it is not given.
    :param seconds: tells the time; the clock's if it is not given. A reactor's may stand still while it is busy.
    :param die: ends the process at once, for the reason given, because what was applied can't be made durable.
    :param sync: seconds for which a commit may wait for the disk; 0: it is answered when it is there.
    :param server_clock: tells the time by which keys end; if it is not given, ``seconds`` does, from 1970 on.
    :ivar core: what the sessions share.
    :ivar refusals: how many clients are being told that there are too many.
    """

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        limits: Limits | None = None,
        seconds: Callable[[], float] | None = None,
        die: Callable[[str], None] | None = None,
        sync: float = 0.0,
        server_clock: ServerClock | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.seconds = seconds or clock.seconds
        self._server_clock = server_clock or ServerClock(self._milliseconds, self._milliseconds())
        self.core = Server(
            store, self.seconds, limits or Limits(), self._fault, self._about, resident_bytes, self._server_clock
        )
        self.outbox = Outbox(store, soon(clock))
        self.turns = TurnQueue(clock, self.seconds, self.outbox.flush)
        self.walker = Walker(store, self.turns, clock, self.core.limits.store_wait)
        self._die = die
        self._sync = sync
        self._streams: dict[int, Stream] = {}
        self._newcomers: dict[Stream, None] = {}  # in the order in which they came; some may have said something since
        self.refusals = 0
        self._refused_since = 0
        self._begun = self.seconds()
        self._all_gone: Deferred[None] | None = None
        self._watch = LoopingCall(self._look_after)
        self._watch.clock = clock
        self._memory_watch = LoopingCall(self._look_at_memory)
        self._memory_watch.clock = clock

    def _milliseconds(self) -> int:
        return int(self.seconds() * 1000 + 0.001)  # a sum of floats may fall a little short

    def startService(self) -> None:
        """Open the store, and begin to watch over the time limits."""
        super().startService()
        limits = self.core.limits
        started = self.store.start(
            Host(
                self.clock,
                self.seconds,
                soon(self.clock),
                from_thread(self.clock),
                _tell,
                self._sync,
                self.core.budget,
                receipt_times(limits),
                self.outbox.synced,
                self._failed,
                self.turns.background,
                self._server_clock,
            )
        )
        if started is not None:
            self.walker.take(started, lambda: False).addErrback(self._not_started)
        times = [limits.transaction_idle, limits.transaction_time, limits.line_time, limits.idle_time]
        self._watch.start(max(SHORTEST_LOOK, min([1.0, *(time / 4 for time in times if time)])), now=False)
        if limits.memory:
            self._resident = ResidentWatch(self.core.budget, self.seconds)
            self._memory_watch.start(EVERY, now=False)

    def _not_started(self, failure: Failure) -> None:
        log.failure("the store can't be started", failure)
        self._failed(failure.getErrorMessage())

    async def _stop(self) -> None:
        for stream in list(self._streams.values()):
            stream.stop()
        if self._streams:
            self._all_gone = Deferred()
            too_long = self.clock.callLater(STOP_LIMIT, self._abort)
            await self._all_gone
            if too_long.active():
                too_long.cancel()
        self._watch.stop()
        if self._memory_watch.running:
            self._memory_watch.stop()
        stopped = self.store.stop()
        if stopped is not None:
            await self.walker.take(stopped, lambda: False)

    def stopService(self) -> Deferred[None]:
        """Roll back what is open, deliver the replies that are under way, and close the store.

        Listeners must have been stopped before.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _abort(self) -> None:
        for stream in list(self._streams.values()):
            stream.abort()

    # Connections.

    def open_session(self, stream: Stream, address: str) -> Session:
        """A session for a new connection.

        :param address: where the client is, for people.
        """
        session = self.core.open(address, lambda why: self.drop(stream, why))
        self._streams[session.id] = stream
        self._newcomers[stream] = None
        return session

    def make_place(self) -> bool:
        """Dismiss the client that has been silent for longest and never said anything, if it has had its time.

        :return: whether there was one.
        """
        now = self.seconds()
        for stream in list(self._newcomers):
            silent = stream.is_silent_newcomer(now)
            if silent is None:
                del self._newcomers[stream]
            elif silent:
                del self._newcomers[stream]
                stream.dismiss(Idle("another client needed the place, and this one had never sent a whole line"))
                return True
            else:
                break
        return False

    def may_refuse(self) -> bool:
        """Count a client that is refused; whether there is a file to wait until it has heard that."""
        self.core.refused += 1
        self._refused_since += 1
        if self.refusals >= MOST_REFUSALS:
            return False
        self.refusals += 1
        return True

    def close_session(self, session: Session) -> None:
        """A connection is gone."""
        session.gone()
        self._newcomers.pop(self._streams.pop(session.id), None)
        if self._all_gone is not None and not self._streams:
            self._all_gone.callback(None)

    def _look_after(self) -> None:
        now = self.seconds()
        limits = self.core.limits
        self.core.expire(now)
        for stream in list(self._streams.values()):
            stream.look_after(now)
        if self._refused_since:
            log.info(
                "{refused} clients were refused: {limit} is the limit",
                refused=self._refused_since,
                limit=limits.clients,
            )
            self._refused_since = 0

    def _look_at_memory(self) -> None:
        self._resident.look()

    def drop(self, stream: Stream, why: str) -> None:
        """Close a connection at once."""
        self.core.dropped += 1
        log.info("client {id} is disconnected: {why}", id=stream.session.id, why=why)
        stream.abort()

    def dismissed(self, stream: Stream, error: KvdError) -> None:
        """A connection is closed, and its client told why."""
        self.core.dropped += 1
        errors = self.core.errors
        errors[error.code] = errors.get(error.code, 0) + 1
        log.info("client {id} is disconnected: {why}", id=stream.session.id, why=error.mesg)

    # Faults, and figures.

    def _fault(self) -> None:
        log.failure("a request failed")

    def _failed(self, why: str) -> None:
        """What was applied can't be made durable: nobody may be told of it, and there is no way on."""
        log.critical("the store has failed: {why}", why=why)
        for stream in list(self._streams.values()):
            stream.lose()
        if self._die is not None:
            self._die(why)

    def _about(self) -> dict[str, Any]:
        """The section "server" of INFO."""
        return {
            "version": kvd.__version__,
            "python": platform.python_version(),
            "twisted": twisted.__version__,
            "reactor": type(self.clock).__name__,
            "compiled": is_compiled(),
            "transport": transport_name(self.clock),
            "pid": os.getpid(),
            "uptime": round(self.seconds() - self._begun, 3),
        }


def receipt_times(limits: Limits) -> tuple[float, float]:
    """For how many seconds receipts are remembered, and for how many at least: no less than a transaction may live."""
    longest = limits.transaction_time
    remembered = max(limits.receipt_time, longest) if limits.receipt_time else inf
    return remembered, longest or remembered


def _tell(line: str) -> None:
    log.info("{line}", line=line)


def is_compiled() -> bool:
    """Whether the core is compiled."""
    return not commands.__file__.endswith(".py")


def wall_clock() -> ServerClock:
    """The wall clock, which then goes on by itself: a suspended machine's time counts, and nobody can set it."""
    ticks = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return ServerClock(lambda: time.clock_gettime_ns(ticks) // 1_000_000, time.time_ns() // 1_000_000)


def soon(clock: IReactorTime) -> Callable[[Callable[[], None]], object]:
    """What has a function called in the event loop's next turn: as quickly as the reactor can."""
    if isinstance(clock, asyncioreactor.AsyncioSelectorReactor):
        call_soon: Callable[[Callable[[], None]], object] = clock._asyncioEventloop.call_soon
        return call_soon
    return lambda call: clock.callLater(0, call)


def from_thread(clock: IReactorTime) -> Callable[[Callable[[], None]], object]:
    """What has a function called in the event loop's thread, from another one: as quickly as the reactor can."""
    if isinstance(clock, asyncioreactor.AsyncioSelectorReactor):
        call_soon: Callable[[Callable[[], None]], object] = clock._asyncioEventloop.call_soon_threadsafe
        return call_soon
    return lambda call: IReactorFromThreads(clock).callFromThread(call)
