"""``twistd kvd``: reads the options and wires the objects; nothing is opened here, because twistd may yet fork."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

import kvd
from kvd.core.limits import Limits
from kvd.daemon.listen import server_endpoint
from kvd.daemon.options import Options, limits_from
from kvd.daemon.ports import CannotStart, Port
from kvd.daemon.service import StoreService, is_compiled, wall_clock
from kvd.interfaces import CannotOpen
from kvd.reactor import transport_name

log = Logger()


class Daemon(MultiService):
    """All of the daemon: its ports, and the store service that they serve.

    :param notes: what is to be told at the start.
    :param on_terminal: the log goes to standard output.
    """

    def __init__(self, store: StoreService, ports: list[Port], notes: list[str], on_terminal: bool) -> None:
        super().__init__()
        self._notes = notes
        self._on_terminal = on_terminal
        self._ports = ports
        store.setServiceParent(self)
        for port in ports:  # children stop in the reverse order, so the ports are closed first
            port.setServiceParent(self)
        self._store = store

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raise CannotStart: if a port can't be bound.
        """
        with self._telling_why():
            super().privilegedStartService()

    @contextmanager
    def _telling_why(self) -> Iterator[None]:
        """If the daemon can't start, say so in one line."""
        try:
            yield
        except (CannotStart, CannotOpen) as error:
            print(f"kvd: {error}", file=sys.__stderr__)  # by now twistd sends sys.stderr to the log
            if self._on_terminal:
                raise CannotStart(1) from None  # or it would be told twice
            raise CannotStart(str(error)) from None

    def startService(self) -> None:
        """Start, and say so.

        :raise CannotStart: if the store can't be opened.
        """
        ignore_signals()
        calm_collector()
        with self._telling_why():
            super().startService()
        log.info(
            "kvd {version} listens on {ports}; store {store} ({promise}); transport {transport}; core {core}",
            version=kvd.__version__,
            core="compiled" if is_compiled() else "not compiled, which is several times slower",
            ports=", ".join(map(str, self._ports)),
            store=self._store.store.name,
            promise=self._store.store.promise,
            transport=transport_name(self._store.clock),
        )
        for note in self._notes:
            log.warn("{note}", note=note)

    def stopService(self) -> Deferred[Any]:
        """Stop, and take no notice if that is asked for once more."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stopped: Deferred[Any] = super().stopService()
        return stopped


def ignore_signals() -> None:
    """Ignore what must not take the data away: a hangup, and a request to rotate a log that is not a file."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing to reload
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:  # else twistd rotates the log
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def calm_collector() -> None:
    """Keep the garbage collector from looking through everything, which takes 0.1 s with three million keys.

    What was made up to now stays for good. What a request or a connection leaves behind is freed without the
    collector; it still looks through what is young, for cycles in what others wrote.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10_000)


OTHER_FILES = 64
"""Files that are open besides the connections, and those of clients that are being refused."""


def allow_open_files(limits: Limits) -> str | None:
    """Raise the soft limit on open files, so that each client can have its own; or have fewer clients.

    :return: what is to be told about that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 2**20
    wanted = limits.clients + OTHER_FILES if limits.clients else hard
    allowed = min(wanted, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if allowed == wanted and limits.clients:
        return None
    asked, limits.clients = limits.clients, max(1, hard - OTHER_FILES)
    if not asked:
        return None
    return f"at most {limits.clients} clients at a time, not {asked}: this process may have {hard} open files"


def makeService(options: Options, reactor: Any = None) -> Daemon:
    """Wire the daemon.

    :param reactor: for tests; the global reactor if it is not given.
    """
    if reactor is None:
        from twisted.internet import reactor
    limits = limits_from(options)
    note = allow_open_files(limits)
    store = StoreService(options.made_store, reactor, limits, time.monotonic, die, options["sync"] or 0.0, wall_clock())
    factories = {name: protocol(store) for name, protocol in options.protocols.items()}
    ports = []
    for listener in options.listeners:
        try:
            endpoint = server_endpoint(reactor, listener.endpoint)
        except Exception as error:  # a plugin for an endpoint may raise anything
            if listener.endpoint.startswith("systemd:") and isinstance(error, LookupError):
                error = LookupError("systemd has passed no such socket")
            raise SystemExit(f"twistd kvd: can't listen on {listener.name!r}: {error}") from None
        ports.append(Port(listener, endpoint, factories[listener.protocol], bool(options["open"])))
    of_twistd: dict[str, Any] = dict(options.parent or {})
    on_terminal = of_twistd.get("logfile") == "-" or bool(of_twistd.get("nodaemon") and not of_twistd.get("logfile"))
    return Daemon(store, ports, [note] if note else [], on_terminal)


def die(why: str) -> None:
    """End the process at once, with what is written of the log; a clean end would write to the store's files again."""
    print(f"kvd: the store has failed: {why}", file=sys.__stderr__, flush=True)
    os._exit(1)
