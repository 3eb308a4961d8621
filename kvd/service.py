"""The store service: the store, the sessions on it, and the counters and limits that they share."""

from __future__ import annotations

import os
import platform
from typing import Any

import twisted
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

import kvd
from kvd.interfaces import Store
from kvd.protocol import KvdProtocol
from kvd.session import Session, Shared

STOP_LIMIT = 5.0
"""Seconds that clients have, when the server stops, to read what was sent to them."""

log = Logger()


class StoreService(Service):
    """Serves one store.

    :param store: what is served; it is started and stopped with the service.
    :param clock: the reactor, or a Clock.
    """

    def __init__(self, store: Store, clock: IReactorTime) -> None:
        self.store = store
        self.clock = clock
        self.shared = Shared(store, clock.seconds)
        self.shared.fault = self._fault
        self.shared.info = self.info
        self._connections: dict[int, KvdProtocol] = {}
        self._accepted = 0
        self._begun = clock.seconds()
        self._all_gone: Deferred[None] | None = None
        self._expiry = LoopingCall(self._expire)
        self._expiry.clock = clock

    def startService(self) -> None:
        """Open the store, and begin to watch over the transactions."""
        super().startService()
        self.store.start()
        limit = min(self.shared.transaction_idle, self.shared.transaction_time)
        self._expiry.start(min(1.0, limit / 4), now=False)

    async def _stop(self) -> None:
        for protocol in list(self._connections.values()):
            protocol.stop()
        if self._connections:
            self._all_gone = Deferred()
            too_long = self.clock.callLater(STOP_LIMIT, self._abort)
            await self._all_gone
            if too_long.active():
                too_long.cancel()
        self._expiry.stop()
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
        return Session(self._accepted, self.shared)

    def close_session(self, protocol: KvdProtocol) -> None:
        """A connection is gone."""
        del self._connections[protocol.session.id]
        if self._all_gone is not None and not self._connections:
            self._all_gone.callback(None)

    def _expire(self) -> None:
        now = self.clock.seconds()
        for protocol in self._connections.values():
            protocol.session.expire(now)

    def _fault(self) -> None:
        log.failure("a request failed")

    def info(self) -> dict[str, dict[str, Any]]:
        """The sections of INFO."""
        shared = self.shared
        sessions = [protocol.session for protocol in self._connections.values()]
        return {
            "server": {
                "version": kvd.__version__,
                "python": platform.python_version(),
                "twisted": twisted.__version__,
                "reactor": type(self.clock).__name__,
                "pid": os.getpid(),
                "uptime": round(self.clock.seconds() - self._begun, 3),
            },
            "clients": {"connected": len(sessions), "accepted": self._accepted},
            "store": {"name": self.store.name, "promise": self.store.promise, **self.store.info()},
            "transactions": {
                "open": sum(session.transaction is not None for session in sessions),
                **shared.ended,
                "idle_limit": shared.transaction_idle,
                "time_limit": shared.transaction_time,
            },
            "commands": {"calls": shared.calls, "errors": shared.errors},
        }
