"""A transaction that stores lines of a file: sent as a whole, and answered as a whole."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvd import requests
from kvd.cli.connecting import Trouble, told
from kvd.cli.files import called
from kvd.cli.program import REFUSED, Problem
from kvd.client.link import Link
from kvd.errors import Internal

KEYS = 1000
"""The most keys of a transaction; and the bytes of requests after which no more are added."""
BYTES = 1024 * 1024

OK = b'{"status": "Ok"}'
STORED = (OK, b'{"status": "Ok", "result": true}')
"""The replies to PUT and EXPIREAT."""


class Batch:
    """The lines of a transaction.

    :param last: the last line before them.
    :ivar last: the last line that belongs here, or needs nothing to be stored.
    :ivar lines: the number of each line whose pair is stored.
    :ivar bytes: the size of their requests.
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self.lines: list[int] = []
        self.bytes = 0
        self._requests: list[tuple[int, bytes]] = []  # each with its line
        self._over: Deferred[bytes | None] = Deferred()
        self._lost: Failure | None = None
        self._refused: tuple[int, bytes] | None = None  # the first line that was refused, and the reply; 0: no line

    def add(self, line: int, *asked: bytes) -> None:
        """Add the requests that store a line."""
        self.lines.append(line)
        for request in asked:
            self._requests.append((line, request))
            self.bytes += len(request)

    def send(self, link: Link) -> None:
        """Send all of it."""
        if not self.lines:
            self._over.callback(OK)
            return
        self._ask(link, b"START\n", 0)
        for line, request in self._requests:
            self._ask(link, request, line)
        self._requests.clear()
        link.send(b"COMMIT\n").addCallbacks(self._over.callback, self._lose)

    def _ask(self, link: Link, request: bytes, line: int) -> None:
        link.send(request).addCallbacks(self._note, lambda _: None, callbackArgs=(line,))  # COMMIT will tell

    def _note(self, reply: bytes, line: int) -> None:
        if reply not in STORED and self._refused is None:
            self._refused = line, reply

    def _lose(self, failure: Failure) -> None:
        self._lost = failure
        self._over.callback(None)

    async def stored(self, server: str, file: str) -> None:
        """Wait until it is stored.

        :param server: the server's name, for messages; and the file's.
        :raise Problem: it is not, or nobody knows.
        """
        last = await self._over
        if self._lost is not None and self._refused is None:
            raise Trouble(server, told(self._lost.value))
        line, reply = self._refused or (0, last)
        if reply is None or reply == OK:
            return
        try:
            found = requests.reply(reply)
        except Internal as error:
            raise Trouble(server, error.mesg) from None
        if found["status"] == "Ok":
            raise Trouble(server, "this is not a kvd server: it answers what was not asked")
        if found["code"] in requests.TURNED_AWAY:
            raise Trouble(server, found["mesg"])
        said = f"{found['code']}: {found['mesg']}"
        raise Problem(f"{called(file, 'input')}, line {line}: {said}" if line else f"{server}: {said}", REFUSED)
