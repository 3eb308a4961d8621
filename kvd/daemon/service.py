"""The store service: the store, the sessions on it, and the counters and limits that they share."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import twisted
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

import kvd
from kvd.core import commands
from kvd.core.limits import Limits
from kvd.core.session import Session, Shared
from kvd.daemon.listen import transport_name
from kvd.daemon.resident import EVERY, ResidentWatch, resident_bytes
from kvd.daemon.stream import KvdProtocol
from kvd.daemon.turns import TurnQueue
from kvd.interfaces import Store

CONNECTION_BYTES = 10 * 1024
"""What a connection takes in memory while it does nothing."""

STOP_LIMIT = 5.0
"""Seconds that clients have, when the server stops, to read what was sent to them."""

log = Logger()


class StoreService(Service):
    """Serves one store.

    :param store: what is served; it is started and stopped with the service.
    :param clock: the reactor, or a Clock.
    :param limits: what protects it; the defaults if it is not given.
    :param seconds: tells the time; the clock's if it is not given. A reactor's may stand still while it is busy.
    """

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        limits: Limits | None = None,
        seconds: Callable[[], float] | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.seconds = seconds or clock.seconds
        self.turns = TurnQueue(clock, self.seconds)
        self.shared = Shared(store, self.seconds, limits or Limits())
        self.shared.fault = self._fault
        self.shared.info = self.info
        self.shared.relieve = self._relieve
        self._connections: dict[int, KvdProtocol] = {}
        self._accepted = self._refused = self._dropped = 0
        self._begun = self.seconds()
        self._all_gone: Deferred[None] | None = None
        self._watch = LoopingCall(self._look_after)
        self._watch.clock = clock
        self._memory_watch = LoopingCall(self._look_at_memory)
        self._memory_watch.clock = clock

    def startService(self) -> None:
        """Open the store, and begin to watch over the time limits."""
        super().startService()
        self.store.start(self.shared.budget)
        limits = self.shared.limits
        times = [limits.transaction_idle, limits.transaction_time, limits.line_time, limits.idle_time]
        self._watch.start(min([1.0, *(time / 4 for time in times if time)]), now=False)
        if limits.memory:
            self._resident = ResidentWatch(self.shared.budget, self.seconds)
            self._memory_watch.start(EVERY, now=False)

    async def _stop(self) -> None:
        for protocol in list(self._connections.values()):
            protocol.stop()
        if self._connections:
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
            await stopped.deferred

    def stopService(self) -> Deferred[None]:
        """Roll back what is open, deliver the replies that are under way, and close the store.

        Listeners must have been stopped before.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _abort(self) -> None:
        for protocol in list(self._connections.values()):
            protocol.transport.abortConnection()

    def open_session(self, protocol: KvdProtocol) -> Session:
        """A session for a new connection."""
        self._accepted += 1
        self._connections[self._accepted] = protocol
        self.shared.budget.used += CONNECTION_BYTES
        return Session(self._accepted, self.shared)

    def close_session(self, protocol: KvdProtocol) -> None:
        """A connection is gone."""
        del self._connections[protocol.session.id]
        self.shared.budget.used -= CONNECTION_BYTES
        if self._all_gone is not None and not self._connections:
            self._all_gone.callback(None)

    def full(self) -> bool:
        """Whether one more client would be too many."""
        limit = self.shared.limits.clients
        if len(self._connections) < limit or not limit:
            return False
        self._refused += 1
        return True

    def _look_after(self) -> None:
        now = self.seconds()
        for protocol in list(self._connections.values()):
            protocol.session.expire(now)
            why = protocol.overdue(now)
            if why is not None:
                self._drop(protocol, why)

    def _look_at_memory(self) -> None:
        self._resident.look()

    def _drop(self, protocol: KvdProtocol, why: str) -> None:
        self._dropped += 1
        log.info("client {id} is disconnected: {why}", id=protocol.session.id, why=why)
        protocol.abort()

    def _relieve(self) -> None:
        """End what holds most memory, among transactions and buffers, until there is no lack of it."""
        budget = self.shared.budget
        while budget.strained() and self._connections:
            protocol = max(self._connections.values(), key=_held)
            txn = protocol.session.transaction
            if txn is not None and txn.held > protocol.held:
                protocol.session.end_transaction(f"its reads and writes took {txn.held} bytes of memory, too much")
            elif protocol.held:
                self._drop(protocol, f"its buffers took {protocol.held} bytes of memory, too much")
            else:
                return

    def _fault(self) -> None:
        log.failure("a request failed")

    def info(self) -> dict[str, dict[str, Any]]:
        """The sections of INFO."""
        shared, limits = self.shared, self.shared.limits
        return {
            "server": {
                "version": kvd.__version__,
                "python": platform.python_version(),
                "twisted": twisted.__version__,
                "reactor": type(self.clock).__name__,
                "compiled": not commands.__file__.endswith(".py"),
                "transport": transport_name(self.clock),
                "pid": os.getpid(),
                "uptime": round(self.seconds() - self._begun, 3),
            },
            "clients": {
                "connected": len(self._connections),
                "accepted": self._accepted,
                "refused": self._refused,
                "dropped": self._dropped,
                "limit": limits.clients,
                "line_time_limit": limits.line_time,
                "idle_time_limit": limits.idle_time,
            },
            "store": {
                "name": self.store.name,
                "promise": self.store.promise,
                **self.store.info(),
                "memory": shared.budget.used,
                "memory_limit": limits.memory,
                "resident": resident_bytes(),
            },
            "transactions": {
                **shared.transactions,
                "idle_limit": limits.transaction_idle,
                "time_limit": limits.transaction_time,
                "keys_limit": limits.transaction_keys,
                "bytes_limit": limits.transaction_bytes,
            },
            "commands": {
                "calls": {row.name: shared.calls[row.number] for row in commands.ROWS if shared.calls[row.number]},
                "errors": shared.errors,
            },
        }


def _held(protocol: KvdProtocol) -> int:
    txn = protocol.session.transaction
    return protocol.held if txn is None else max(protocol.held, txn.held)
