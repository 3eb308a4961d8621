"""``twistd kvd``: reads the options and wires the objects; nothing is opened here, for twistd may yet fork."""

from __future__ import annotations

import gc
import resource
import signal
import sys
import time
from typing import Any, ClassVar

from twisted.application.service import MultiService
from twisted.logger import Logger
from twisted.python import usage

import kvd
from kvd.daemon.listen import install_reactor, server_endpoint, transport_name
from kvd.daemon.ports import CannotStart, Port
from kvd.daemon.service import StoreService
from kvd.daemon.stream import KvdFactory
from kvd.errors import KvdError
from kvd.interfaces import Store
from kvd.options import LIMITS, limits_from
from kvd.options import port as port_number
from kvd.plugins import known_stores

log = Logger()

DEFAULT_PORT = 8765

BACKLOG = 511
"""Connections that may wait to be accepted; with Twisted's 50, a burst of 100 takes a second."""


class Options(usage.Options):
    """The options of ``twistd kvd``."""

    synopsis = "[--port 8765] [--store memory] [options]"
    longdesc = (
        "A daemon that keeps text keys and values and gives its clients interactive, strictly "
        "serializable transactions, over a line protocol that can be typed into telnet. "
        "In options that limit something, 0 means: no limit. "
        "Options of twistd itself, as -n (stay in the foreground), --pidfile and --logfile, stand before "
        "the word kvd."
    )
    optParameters: ClassVar = [
        ["port", "p", None, f"TCP port to listen on. [default: {DEFAULT_PORT}]", port_number],
        ["interface", "i", "127.0.0.1", "Address that --port listens on."],
        ["store", "s", "memory", "Where the data is, NAME or NAME:ARGUMENT; the stores are listed below."],
        *LIMITS,
    ]
    optFlags: ClassVar = [
        ["open", None, "Allow listening on addresses that other machines can reach: anyone there may read and write."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Listen on this Twisted endpoint, as unix:/run/kvd.sock; repeatable. With it, no TCP port without --port."""
        self["listen"].append(endpoint)

    opt_l = opt_listen

    def opt_version(self) -> None:
        """Print the version of kvd and exit."""
        print(f"kvd {kvd.__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse. A bad option ends with one line that says what is wrong."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"twistd kvd: {error} (twistd kvd --help tells more)") from None

    def postOptions(self) -> None:
        """Check what stands in the options, as far as that opens nothing; and choose the reactor, before it is used."""
        install_reactor()
        self.endpoints = [(name, name) for name in self["listen"]]  # what they are called, and what they are
        if self["port"] is not None or not self.endpoints:
            port = DEFAULT_PORT if self["port"] is None else self["port"]
            interface = self["interface"].replace("\\", r"\\").replace(":", r"\:")
            name = f"tcp:{port}:interface={interface}"
            self.endpoints.insert(0, (name, f"{name}:backlog={BACKLOG}"))
        self.made_store = self._make_store(self["store"])

    def _make_store(self, value: str) -> Store:
        name, _, argument = value.partition(":")
        stores = known_stores()
        if name not in stores:
            raise usage.UsageError(f"there is no store {name!r}; there are: {', '.join(sorted(stores))}")
        try:
            store: Store = stores[name].load()(argument)
        except (ImportError, KvdError) as error:
            raise usage.UsageError(str(error)) from None
        return store

    def __str__(self) -> str:
        stores = "".join(f"  {name:10}{plugin.summary}\n" for name, plugin in sorted(known_stores().items()))
        return f"{super().__str__()}\nStores:\n{stores}"


class Daemon(MultiService):
    """All of the daemon: its ports, and the store service behind them."""

    def __init__(self, store: StoreService, ports: list[Port]) -> None:
        super().__init__()
        self._ports = ports
        store.setServiceParent(self)
        for port in ports:  # children stop in the reverse order, so the ports are closed first
            port.setServiceParent(self)
        self._store = store

    def privilegedStartService(self) -> None:
        """Bind the ports.

        :raise CannotStart: if a port can't be bound.
        """
        try:
            super().privilegedStartService()
        except CannotStart as error:
            print(f"kvd: {error}", file=sys.__stderr__)  # by now twistd sends sys.stderr to the log
            raise

    def startService(self) -> None:
        """Start, and say so."""
        # There is nothing to reload; and a hangup of the terminal must not take the data away.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        calm_collector()
        super().startService()
        log.info(
            "kvd {version} listens on {ports}; store {store} ({promise}); transport {transport}",
            version=kvd.__version__,
            ports=", ".join(map(str, self._ports)),
            store=self._store.store.name,
            promise=self._store.store.promise,
            transport=transport_name(self._store.clock),
        )


def calm_collector() -> None:
    """Keep the garbage collector from looking through everything, which takes 0.1 s with three million keys.

    What was made up to now stays for good. What a request or a connection leaves behind is freed without the
    collector; it still looks through what is young, for cycles in what others wrote.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10_000)


def allow_open_files(clients: int) -> None:
    """Raise the soft limit on open files, as far as it goes, so that each client can have its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + 100 if clients else hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def makeService(options: Options, reactor: Any = None) -> Daemon:
    """Wire the daemon.

    :param reactor: for tests; the global reactor if it is not given.
    """
    if reactor is None:
        from twisted.internet import reactor
    limits = limits_from(options)
    allow_open_files(limits.clients)
    store = StoreService(options.made_store, reactor, limits, time.monotonic)
    factory = KvdFactory(store)
    ports = []
    for name, description in options.endpoints:
        try:
            endpoint = server_endpoint(reactor, description)
        except Exception as error:  # a plugin for an endpoint may raise anything
            if description.startswith("systemd:") and isinstance(error, LookupError):
                error = LookupError("systemd has passed no such socket")
            raise SystemExit(f"twistd kvd: {name!r} is no endpoint to listen on: {error}") from None
        ports.append(Port(name, endpoint, factory, bool(options["open"])))
    return Daemon(store, ports)
