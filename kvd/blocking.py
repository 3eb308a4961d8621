"""The blocking client, for scripts and notebooks: no reactor, no Twisted.

::

    from kvd.blocking import Client

    with Client("localhost", 8765) as client:
        client.put("key1", "value1")
        with client.transaction() as txn:
            txn.put("key2", txn.get("key1"))
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Concatenate, ParamSpec, TypeVar

from kvd import requests, wire
from kvd.errors import BadRequest, Conflict, InTransaction, KvdError, NoTransaction, Unavailable
from kvd.requests import CHANGING, CONFLICT_PAUSES, RETRY_FOR, Page, full_jitter

P = ParamSpec("P")
T = TypeVar("T")


class Commands:
    """A method for each data command. Each raises the :mod:`kvd.errors` class of the server's error code."""

    def call(self, *words: wire.Word) -> Any:
        """Send a request, and return the ``result`` of its reply (None where it has none)."""
        raise TypeError("a subclass says how")

    def put(self, key: str, value: str) -> None:
        """Store a value; overwrite what was there."""
        self.call("PUT", key, value)

    def get(self, key: str) -> str | None:
        """The value, or None."""
        value: str | None = self.call("GET", key)
        return value

    def delete(self, key: str) -> None:
        """Remove a key; no error if there is none."""
        self.call("DEL", key)

    def mget(self, *keys: str) -> list[str | None]:
        """The values of several keys, of one instant."""
        values: list[str | None] = self.call("MGET", *keys)
        return values

    def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        found: bool = self.call("EXISTS", key)
        return found

    def incr(self, key: str, delta: int = 1) -> int:
        """Add to an integer (nothing counts as 0), and return the sum."""
        number: int = self.call("INCR", key, delta)
        return number

    def cas(self, key: str, expected: str | None, new: str | None) -> bool:
        """Store ``new`` if the key holds ``expected``, and return whether it did. None means: absent."""
        swapped: bool = self.call("CAS", key, expected, new)
        return swapped

    def scan(
        self,
        prefix: str = "",
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Page[Any]:
        """Pairs in the order of their keys, from ``start`` up to but without ``end``; one page of them.

        :param limit: the most items of the page, 1 to 10,000; 100 if not given.
        """
        found = self.call(*wire.scan_words(prefix, start, end, limit, reverse, keys_only))
        return requests.page(found, keys_only)

    def count(self, prefix: str = "") -> int:
        """How many keys there are."""
        number: int = self.call("COUNT", "PREFIX", prefix)
        return number


class Savepoints(Commands):
    """The commands that need an open transaction as well."""

    def savepoint(self, name: str) -> None:
        """Set a point to go back to."""
        self.call("SAVEPOINT", name)

    def rollback_to(self, name: str) -> None:
        """Drop what was changed since the savepoint, and go on."""
        self.call("ROLLBACK", "TO", name)

    def release(self, name: str) -> None:
        """Forget the savepoint, and keep the changes."""
        self.call("RELEASE", name)

    def check(self) -> dict[str, Any]:
        """Would it commit now? A dict with ``commits conflicts reads writes age``."""
        answer: dict[str, Any] = self.call("CHECK")
        return answer


class Transaction(Savepoints):
    """An open transaction; made by :meth:`Client.transaction`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._over = False

    def call(self, *words: wire.Word) -> Any:
        """Send a request inside the transaction."""
        if self._over:
            raise NoTransaction("this transaction is over; begin another one")
        return self._client._call(words)

    def _end(self) -> None:
        self._over = True


class Client(Savepoints):
    """A connection to a kvd server, for use by one thread.

    :param host: name or address of the server.
    :param port: its TCP port.
    :param timeout: seconds to wait for a connection, or for a reply.
    :param retry_for: seconds for which :meth:`transact` tries again.

    If the connection breaks, commands that may have been carried out raise
    :class:`~kvd.errors.OutcomeUnknown`, and all others :class:`~kvd.errors.Unavailable`. The client is
    disconnected then; :meth:`connect` connects it again.
    """

    def __init__(
        self, host: str = "localhost", port: int = 8765, timeout: float = 60.0, retry_for: float = RETRY_FOR
    ) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self.retry_for = retry_for
        self._socket: socket.socket | None = None
        self._replies: BinaryIO | None = None
        self._open: Transaction | None = None

    def connect(self) -> None:
        """Connect.

        :raise kvd.errors.Unavailable: the server can't be reached.
        """
        self.disconnect()
        try:
            self._socket = socket.create_connection((self.host, self.port), self.timeout)
        except OSError as error:
            raise Unavailable(f"can't connect to {self.host}:{self.port}: {error.strerror or error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")

    def disconnect(self) -> None:
        """Close the connection; the server rolls an open transaction back."""
        if self._socket is not None and self._replies is not None:
            self._replies.close()
            self._socket.close()
        self._socket = self._replies = None
        if self._open is not None:
            self._open._end()  # nothing of it may run on the next connection

    def __enter__(self) -> Client:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def send_command(self, line: str) -> dict[str, Any]:
        """Send a line as it would be typed into telnet, and return the reply.

        :raise kvd.errors.BadRequest: it is blank, or more than one line, and so would not get one reply.
        """
        if not line.strip(" ") or "\n" in line:
            raise BadRequest("a command is one line, and not a blank one")
        return requests.reply(self._exchange(line.encode() + b"\n", line.split(maxsplit=1)[0].upper() in CHANGING))

    def call(self, *words: wire.Word) -> Any:
        """Send a request, and return the ``result`` of its reply (None where it has none)."""
        if self._open is not None:
            raise InTransaction("a transaction is open on this connection; use the object that transaction() gave")
        return self._call(words)

    def _call(self, words: tuple[wire.Word, ...]) -> Any:
        name = requests.name(words)
        changing = name in CHANGING and (self._open is None or name == "COMMIT")
        return requests.result(self._exchange(wire.request(*words), changing))

    def _exchange(self, line: bytes, changing: bool) -> bytes:
        if self._socket is None or self._replies is None:
            raise Unavailable("not connected; connect() first")
        try:
            self._socket.sendall(line)
            answer = self._replies.readline(wire.MAX_REPLY + 1)
            if not answer.endswith(b"\n"):
                raise ConnectionError("the server closed the connection")
        except OSError as error:
            # A reply that comes too late would be taken for that of the next request.
            self.disconnect()
            problem = f"the connection to {self.host}:{self.port} broke: {error.strerror or error}"
            raise requests.lost(problem, changing) from error
        except BaseException:  # a KeyboardInterrupt: the reply may still come
            self.disconnect()
            raise
        return answer

    @contextmanager
    def transaction(self, read_only: bool = False) -> Iterator[Transaction]:
        """A transaction: commits at the end of the ``with`` block, rolls back if that raises.

        :raise kvd.errors.Conflict: at the end, if something that it read was changed meanwhile.
        """
        self.start(read_only)
        self._open = txn = Transaction(self)
        try:
            try:
                yield txn
            except BaseException:
                self._roll_back_quietly()
                raise
            self._call(("COMMIT",))
        finally:
            txn._end()
            self._open = None

    def transact(self, fn: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(txn, *args, **kwargs)`` in a transaction, and commit; again after a conflict.

        It runs again until ``retry_for`` seconds have passed since the call. So it must bear running more than
        once: what it does besides ``txn`` is not rolled back.

        :return: what ``fn`` returned when its changes were stored.
        """
        too_late = time.monotonic() + self.retry_for
        attempt = 0
        while True:
            try:
                with self.transaction() as txn:
                    result = fn(txn, *args, **kwargs)
                return result
            except Conflict:
                attempt += 1
                pause = full_jitter(attempt, *CONFLICT_PAUSES, random.random)
                if time.monotonic() + pause >= too_late:
                    raise
            time.sleep(pause)

    def _roll_back_quietly(self) -> None:
        try:
            self._call(("ROLLBACK",))
        except KvdError:
            self.disconnect()  # which rolls back too

    # The other commands, for those who want to lead a transaction by hand.

    def start(self, read_only: bool = False) -> None:
        """Open a transaction."""
        self.call("START", *["READONLY"] * read_only)

    def commit(self) -> None:
        """Store all changes of the transaction at once, or none of them."""
        self.call("COMMIT")

    def rollback(self) -> None:
        """End the transaction and drop its changes."""
        self.call("ROLLBACK")

    def ping(self, text: str | None = None) -> str:
        """``PONG``, or the text."""
        answer: str = self.call("PING", *([] if text is None else [text]))
        return answer

    def info(self, section: str | None = None) -> dict[str, Any]:
        """What the server is and does; all sections, or one."""
        answer: dict[str, Any] = self.call("INFO", *([] if section is None else [section]))
        return answer

    def help(self, command: str | None = None) -> Any:
        """What there is, by usage; or a line about one command."""
        return self.call("HELP", *([] if command is None else command.split()))

    def quit(self) -> None:
        """Roll back, and close the connection."""
        self.call("QUIT")
        self.disconnect()
