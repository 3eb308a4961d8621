"""The options of ``twistd kvd``: checked as far as that opens nothing, because twistd may yet fork."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from twisted.python import usage

import kvd
from kvd.core.limits import Limits
from kvd.daemon.listeners import DEFAULT_PROTOCOL, Listener, listener
from kvd.errors import KvdError
from kvd.interfaces import Store
from kvd.numbers import count, positive, seconds, size
from kvd.numbers import port as port_number
from kvd.plugins import IProtocolPlugin, IStorePlugin, known
from kvd.reactor import install_reactor

DEFAULT_PORT = 8765


def _listed(interface: Any) -> str:
    return "".join(f"  {name:10}{plugin.summary}\n" for name, plugin in sorted(known(interface).items()))


_DEFAULTS: Final = Limits()

LIMITS: Final[list[list[Any]]] = [
    ["max-clients", None, _DEFAULTS.clients, "Clients at a time; more are refused.", count],
    [
        "max-memory",
        None,
        None,
        "Memory for data and clients, such as 64M or 2G. [default: half of the machine's]",
        size,
    ],
    ["line-time", None, _DEFAULTS.line_time, "Seconds in which a line must arrive whole.", seconds],
    ["idle-time", None, _DEFAULTS.idle_time, "Seconds after which a silent client is disconnected.", seconds],
    ["transaction-idle", None, _DEFAULTS.transaction_idle, "Seconds for which a transaction may be unused.", seconds],
    ["transaction-time", None, _DEFAULTS.transaction_time, "Seconds for which a transaction may be open.", seconds],
    ["transaction-keys", None, _DEFAULTS.transaction_keys, "Keys that it may read and write.", count],
    ["transaction-bytes", None, _DEFAULTS.transaction_bytes, "Memory that it may take.", size],
    ["receipt-time", None, _DEFAULTS.receipt_time, "Seconds for which receipts are remembered.", seconds],
]
"""Options as :class:`twisted.python.usage.Options` takes them. In all of them, 0 means: no limit."""


def limits_from(options: usage.Options) -> Limits:
    """The limits that the options set."""
    memory = options["max-memory"]
    return Limits(
        clients=options["max-clients"],
        line_time=options["line-time"],
        idle_time=options["idle-time"],
        transaction_idle=options["transaction-idle"],
        transaction_time=options["transaction-time"],
        transaction_keys=options["transaction-keys"],
        transaction_bytes=options["transaction-bytes"],
        receipt_time=options["receipt-time"],
        memory=_DEFAULTS.memory if memory is None else memory,
    )


def sync(value: str) -> float:
    """Seconds for which a commit may wait for the disk; 0: it is answered when it is there."""
    if value == "always":
        return 0.0
    try:
        return positive(value)
    except ValueError:
        raise ValueError(f"--sync takes the word always, or a number of seconds above 0, not {value!r}") from None


class Options(usage.Options):
    """The options of ``twistd kvd``."""

    synopsis = "[--port 8765] [--store memory] [options]"
    longdesc = (
        "A daemon that keeps text keys and values and gives its clients interactive, strictly "
        "serializable transactions, over a line protocol that can be typed into telnet. "
        "In options that limit something, 0 means: no limit. "
        "Options of twistd itself, such as -n (stay in the foreground), --pidfile and --logfile, go before "
        "the word kvd."
    )
    optParameters: ClassVar = [
        ["port", "p", None, f"TCP port for lines. [default: {DEFAULT_PORT}, unless --listen has some]", port_number],
        ["interface", "i", "127.0.0.1", "Address that --port listens on."],
        ["store", "s", "memory", "Where the data is, NAME or NAME:ARGUMENT; the stores are listed below."],
        ["sync", None, None, "always, or SECONDS: when a store on a disk syncs it. [default: always]", sync],
        *LIMITS,
    ]
    optFlags: ClassVar = [
        ["open", None, "Allow listening on addresses that other machines can reach: anyone there may read and write."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Listen on this endpoint, [PROTOCOL=]ENDPOINT, such as tcp:9000 or unix:/run/kvd.sock; repeatable."""
        self["listen"].append(endpoint)

    opt_l = opt_listen
    opt_h = usage.Options.opt_help

    def opt_version(self) -> None:
        """Print the version of kvd and exit."""
        print(f"kvd {kvd.__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Parse. A bad option ends with one line that says what is wrong."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            problem = str(error).removeprefix("Parameter type enforcement failed: ")
            raise SystemExit(f"twistd kvd: {problem} (twistd kvd --help tells more)") from None

    def postOptions(self) -> None:
        """Check what stands in the options, as far as that opens nothing; and choose the reactor, before it is used."""
        install_reactor()
        self.listeners = [listener(value) for value in self["listen"]]
        if self["port"] is not None or not any(each.protocol == DEFAULT_PROTOCOL for each in self.listeners):
            port = DEFAULT_PORT if self["port"] is None else self["port"]
            interface = self["interface"].replace("\\", r"\\").replace(":", r"\:")
            self.listeners.insert(0, Listener(DEFAULT_PROTOCOL, f"tcp:{port}:interface={interface}"))
        names = {each.protocol for each in self.listeners}
        self.protocols = {name: self._load(IProtocolPlugin, name) for name in names}
        self.made_store = self._make_store(self["store"])

    def _make_store(self, value: str) -> Store:
        name, _, argument = value.partition(":")
        try:
            store: Store = self._load(IStorePlugin, name)(argument)
        except KvdError as error:
            raise usage.UsageError(str(error)) from None
        return store

    def _load(self, interface: Any, name: str) -> Any:
        plugins = known(interface)
        if name not in plugins:
            kind = "store" if interface is IStorePlugin else "protocol"
            raise usage.UsageError(f"there is no {kind} {name!r}; there are: {', '.join(sorted(plugins))}")
        try:
            return plugins[name].load()
        except ImportError as error:
            raise usage.UsageError(str(error)) from None

    def __str__(self) -> str:
        return f"{super().__str__()}\nStores:\n{_listed(IStorePlugin)}\nProtocols:\n{_listed(IProtocolPlugin)}"
