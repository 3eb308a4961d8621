"""The server that ``--connect`` names: where it is, and what it answers.

Every wait has a limit, and what goes wrong is a :class:`Trouble` that says what it means for the request under way.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, clientFromString, connectProtocol
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamClientEndpoint

from kvd import requests, wire
from kvd.cli.program import Interrupted, Problem, printable, reason
from kvd.client.link import TIMEOUT, Link
from kvd.errors import Busy, Idle, Internal, KvdError

PORT = 8765

CONNECT_TIME = 10.0
"""Seconds that connecting may take."""

LONGEST_PATH = 107
"""Bytes that the path of a UNIX socket can have."""


class Trouble(Problem):
    """The server can't be reached, or does not answer as kvd does.

    :ivar text: the same without the name of the server.
    """

    def __init__(self, server: str, text: str) -> None:
        super().__init__(f"{server}: {text}")
        self.text = printable(text)


# Where it is.

# An IPv6 address, in brackets if a port follows; or any other host.
_ADDRESS = re.compile(r"(\[)?(?P<host>(?:[0-9a-fA-F.]*:){2}[0-9a-fA-F:.]*(?:%\w+)?)(?(1)\](?::(?P<port>[0-9]{1,9}))?)")
_HOST = re.compile(r"(?:tcp:(?=[^:]*:))?(?P<host>[^:=\\\[\]]+)(?::(?P<port>[0-9]{1,9}))?")
_TYPES = ("tcp", "ssl", "tls", "unix")
"""Types of endpoints, which can't be names of hosts."""


def endpoint(reactor: Any, name: str) -> IStreamClientEndpoint:
    """Find a server by its name.

    :param name: ``HOST``, ``HOST:PORT``, or a Twisted client endpoint.
    :raise Trouble: it is none of them.
    """
    found = _ADDRESS.fullmatch(name) or _HOST.fullmatch(name)
    if found and found["host"].lower() not in _TYPES:
        port = int(found["port"] or PORT)
        if not 0 < port < 65536:
            raise Trouble(name, f"a port is a number from 1 to 65535, not {port}")
        return HostnameEndpoint(reactor, found["host"], port)
    try:
        made: IStreamClientEndpoint = clientFromString(reactor, name)
        # These are found out only inside the reactor, where nobody hears of it.
        if len(os.fsencode(getattr(made, "_path", ""))) > LONGEST_PATH:
            raise Trouble(name, f"the path of a UNIX socket has at most {LONGEST_PATH} bytes")
        if not 0 < getattr(made, "_port", PORT) < 65536:
            raise Trouble(name, "a port is a number from 1 to 65535")
    except Trouble:
        raise
    except (ImportError, NameError) as error:
        raise Trouble(name, f"a package that this endpoint needs is not installed: {reason(error)}") from None
    except Exception:  # a plugin may raise anything
        raise Trouble(name, "this is not HOST, HOST:PORT or a Twisted client endpoint") from None
    return made


# What it answers.


class Reply(NamedTuple):
    """A reply.

    :ivar line: as it came, without its end.
    :ivar found: what it holds: ``status``, and ``result``, or ``mesg`` and ``code``.
    """

    line: bytes
    found: dict[str, Any]

    @property
    def code(self) -> str:
        """The code of the error; empty if it is none."""
        return str(self.found["code"]) if self.found["status"] != "Ok" else ""


class Server:
    """A server.

    :param name: what ``--connect`` says; for messages.
    :param timeout: seconds that connecting, and each reply, may take.
    """

    def __init__(self, reactor: Any, endpoint: IStreamClientEndpoint, name: str, timeout: float = TIMEOUT) -> None:
        self.endpoint = endpoint
        self.name = name
        self._reactor = reactor
        self._timeout = timeout

    async def link(self) -> Link:
        """A new connection.

        :raise Trouble: the server can't be reached.
        """
        wait = min(self._timeout, CONNECT_TIME)

        def too_late(_: object, seconds: float) -> Any:
            raise Trouble(self.name, f"no connection within {seconds:g} seconds")

        connecting: Deferred[Link] = connectProtocol(self.endpoint, Link(self._reactor, self._timeout))
        try:
            return await connecting.addTimeout(wait, self._reactor, too_late)
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError from None
        except Trouble:
            raise
        except Exception as error:
            raise Trouble(self.name, told(error)) from None

    async def greeted(self) -> Link:
        """A new connection to a server that answers.

        :raise Trouble: it can't be reached, or does not answer as kvd does.
        """
        link = await self.link()
        await Connection(link, self.name, self._timeout).ask("PING")
        return link

    async def connect(self) -> Connection:
        """A new connection, on which requests are asked one after the other.

        :raise Trouble: the server can't be reached.
        """
        return Connection(await self.link(), self.name, self._timeout)


def find(reactor: Any, name: str, timeout: float = TIMEOUT) -> Server:
    """The server that ``--connect`` names.

    :raise Trouble: the name is not understood.
    """
    return Server(reactor, endpoint(reactor, name), name, timeout)


class Connection:
    """A connection on which requests are sent one after the other, each when the one before it is answered.

    :param link: the connection itself.
    :param server: the name of the server.
    :param timeout: seconds that the link waits for each reply.
    :ivar in_transaction: whether a transaction is open on it.
    :ivar has_quit: whether QUIT was answered.
    """

    def __init__(self, link: Link, server: str = "", timeout: float = TIMEOUT) -> None:
        self.in_transaction = False
        self._link = link
        self._server = server
        self._timeout = timeout
        self.has_quit = False

    @property
    def lost(self) -> str:
        """Why there is no connection any more; empty while there is one."""
        if self.has_quit:
            return "the connection is closed after QUIT"
        return "" if self._link.lost is None else told(self._link.lost.value)

    async def ask(self, line: str) -> Reply:
        """Send a request, and wait for the reply.

        :param line: a line that is not blank, without its end.
        :raise Trouble: no reply came, or one that does not come from kvd.
        :raise Interrupted: the user does not want to wait any longer.
        """
        asked = shown(line)
        if self.lost:
            raise Trouble(self._server, f"{self.lost}; {asked} was not sent")
        try:
            answer = await self._link.send(line.encode(errors="surrogateescape") + b"\n")
        except CancelledError:
            raise Interrupted(f"interrupted, without a reply to {asked}; {self._fate(line)}") from None
        except TimeoutError:
            said = f"no reply to {asked} within {self._timeout:g} seconds"
            raise Trouble(self._server, f"{said}; {self._fate(line)}") from None
        except (Busy, Idle) as error:
            raise Trouble(self._server, f"{error.mesg}; {asked} was not run") from None
        except Exception as error:
            raise Trouble(self._server, f"no reply to {asked}: {told(error)}; {self._fate(line)}") from None
        reply = self._read(answer)
        if reply.code in requests.TURNED_AWAY:
            self.close()
            raise Trouble(self._server, f"{reply.found['mesg']}; {asked} was not run")
        self._note(line, reply)
        return reply

    def _read(self, answer: bytes) -> Reply:
        with suppress(Internal):
            return Reply(answer, requests.reply(answer))
        self.close()
        raise Trouble(self._server, f"this is not a kvd server: it says {answer[:40]!r}")

    def _note(self, line: str, reply: Reply) -> None:
        """Keep in mind whether a transaction is open now."""
        name, words = parsed(line)
        if name == "START":
            self.in_transaction = reply.code != "AUTH_REQUIRED"  # any other refusal leaves an aborted one open
        elif name == "COMMIT" or (name == "ROLLBACK" and not words):
            self.in_transaction = self.in_transaction and reply.code in ("BAD_ARGUMENTS", "TOO_LARGE")
        self.has_quit = name == "QUIT" and not reply.code

    def _fate(self, line: str) -> str:
        """What a request has done whose reply never came."""
        name, _ = parsed(line)
        if self.in_transaction:
            return "the transaction " + ("may or may not have been stored" if name == "COMMIT" else "is rolled back")
        return (
            "nothing was changed"
            if name in ("", "COMMIT") or not requests.changes(name)
            else "the change may or may not have been stored"
        )

    def close(self) -> None:
        """Close the connection; the server rolls back what is open on it."""
        if self._link.lost is None:
            self._link.close()


def told(error: BaseException | None) -> str:
    """Why there is no connection, or no reply."""
    if isinstance(error, ConnectError) and isinstance(error.osError, int):
        return os.strerror(error.osError)
    if isinstance(error, ConnectionDone):
        return "the server closed the connection"
    if isinstance(error, ConnectionLost):
        return "the connection was lost"
    return error.mesg if isinstance(error, KvdError) else reason(error or Exception())


# Lines.


def is_blank(line: str) -> bool:
    """Whether the server takes a line, without its ``\\n``, for an empty one, and does not answer it."""
    return not line.removesuffix("\r").strip(" ")


def parsed(line: str) -> tuple[str, list[wire.Word]]:
    """The name of the command that a line asks for, and its arguments; an empty name if it can't be read."""
    try:
        return wire.parse(line.removesuffix("\r"))
    except KvdError:
        return "", []


def is_secret(line: str) -> bool:
    """Whether a line may hold a password."""
    return parsed(line)[0] == "AUTH" or re.match(r"[\W_]*AUTH", line, re.IGNORECASE) is not None


def shown(line: str) -> str:
    """A line, for use in a message."""
    return "AUTH" if is_secret(line) else wire.shown(line)
