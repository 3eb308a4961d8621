"""The daemon's ports: bound before privileges are dropped, and closed to strangers unless told otherwise."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.daemon.addresses import is_local, shown_address
from kvd.daemon.listeners import DEFAULT_PROTOCOL, Listener
from kvd.daemon.unix import clear_stale_socket

log = Logger()


class CannotStart(SystemExit, Exception):
    """The daemon can't start; the message says why, in one line.

    It ends the process with that line and status 1, as a SystemExit does, and twistd, which has a pid file
    to remove and a waiting parent to tell, catches it as the Exception that it is.
    """

    __module__ = "kvd"  # the parent is told name and message, cut off after 100 characters


class Port(Service):
    """Listens on an endpoint.

    :param listener: what the user asked for.
    :param open_to_all: whether other machines may connect.
    """

    def __init__(
        self, listener: Listener, endpoint: IStreamServerEndpoint, factory: IProtocolFactory, open_to_all: bool
    ) -> None:
        self._listener = listener
        self._endpoint = endpoint
        self._factory = factory
        self._open_to_all = open_to_all
        self._port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Bind.

        :raise CannotStart: if the port is taken, or is open to other machines though nobody said so.
        """
        super().privilegedStartService()
        self._look_first()
        failed: list[Failure] = []
        self._endpoint.listen(self._factory).addCallbacks(self._bound, failed.append)
        if failed:
            raise CannotStart(f"can't listen on {self._listener.name}: {_reason(failed[0])}")
        if self._port is None:
            raise CannotStart(f"can't listen on {self._listener.name}: it does not listen at once")
        address = self._port.getHost()
        if not self._open_to_all and not is_local(address):
            self._port.stopListening()
            raise open_needed(shown_address(address))

    def _look_first(self) -> None:
        """See to what can be seen to before anything is bound."""
        listener = self._listener
        if listener.kind == "unix":
            clear_stale_socket(listener.argument("address", 0) or "")
        elif listener.kind in ("tcp", "tcp6") and not self._open_to_all:
            interface = listener.argument("interface", 1)
            if interface is None and listener.kind == "tcp":
                return  # it is on loopback then
            with suppress(ValueError):  # a name is looked up when it is bound
                address = ip_address(interface or ("::" if listener.kind == "tcp6" else "0.0.0.0"))
                if not address.is_loopback:
                    host = f"[{address}]" if address.version == 6 else str(address)
                    raise open_needed(f"{host}:{listener.argument('port', 0)}")

    def startService(self) -> None:
        """Bind now, where nobody did before: twist has no privileges to drop."""
        super().startService()
        if self._port is None:
            self.privilegedStartService()

    def _bound(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[None] | None:
        """Accept no more connections."""
        super().stopService()
        port, self._port = self._port, None
        return None if port is None else port.stopListening()

    def __str__(self) -> str:
        address = "nothing" if self._port is None else shown_address(self._port.getHost())
        return address if self._listener.protocol == DEFAULT_PROTOCOL else f"{address} ({self._listener.protocol})"


def open_needed(address: str) -> CannotStart:
    """The error for an address that is open to other machines, though nobody said that it may be."""
    return CannotStart(f"--open is needed for {address}, which other machines can reach")


def _reason(failure: Failure) -> str:
    error = failure.value
    if isinstance(error, CannotListenError) and isinstance(error.socketError, OSError):
        error = error.socketError
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
