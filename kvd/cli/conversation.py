"""What ``kvd shell`` says to a server, and how it goes on after a lost connection; without a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from typing import Any

from kvd.cli.connecting import Connection, Trouble, parsed, shown
from kvd.cli.replies import pretty
from kvd.client.link import Link


class Conversation:
    """What is said to a server, and what is known about it.

    :param connect: makes a connection.
    :ivar usages: what each command does, by its usage, as the server's HELP tells it.
    :ivar transaction: the state of the open transaction in a word or two; empty if none is open.
    :ivar broken: whether the last line got no reply; what was meant to follow it must not be sent.
    :ivar over: whether the user wants to leave.
    """

    def __init__(self, connect: Callable[[], Awaitable[Link]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self.usages: dict[str, str] = {}
        self.transaction = ""
        self.broken = False
        self.over = False

    async def begin(self) -> None:
        """Connect, and learn what commands there are.

        :raise Trouble: that can't be done.
        """
        connection = Connection(await self._connect())
        found = (await connection.ask("HELP")).found.get("result")
        topics = [name for name in found if name != "more"] if isinstance(found, dict) else []
        for topic in topics:
            about = (await connection.ask(f"HELP {topic}")).found.get("result")
            self.usages.update(about if isinstance(about, dict) else {})
        self._connection = connection

    async def ask(self, line: str) -> str:
        """Send a line, unless it belongs to a transaction that is lost.

        :param line: a line that is not blank.
        :return: what came back, for people.
        :raise Interrupted: the user does not want to wait any longer.
        """
        told: list[str] = []
        try:
            self.broken = True
            await self._talk(line, told)
            self.broken = False
        except Trouble as trouble:
            self.end()
            told.append(trouble.text)
        return "\n".join(told)

    async def _talk(self, line: str, told: list[str]) -> None:
        connection = await self._connected(line, told)
        if connection is None:
            return
        reply = await connection.ask(line)
        told.append(pretty(reply.found, shutil.get_terminal_size().columns))
        if (hint := _about_quotes(line)) and not reply.code:
            told.append(hint)
        self.over = connection.has_quit
        # What can't be read, and was probably meant for a START, leaves an aborted transaction open.
        unread = reply.code in ("BAD_REQUEST", "TOO_LARGE") and "START" in line[:100].upper()
        self.transaction = ""
        if connection.in_transaction or unread:
            await self._check(connection)

    async def _check(self, connection: Connection) -> None:
        """Ask for the state of the transaction."""
        try:
            self.transaction = _state((await connection.ask("CHECK")).found)
        except Trouble:
            raise Trouble("", f"{connection.lost}; the transaction is rolled back") from None
        connection.in_transaction = self.transaction != ""

    async def _connected(self, line: str, told: list[str]) -> Connection | None:
        """The connection, which is made again if it was lost outside a transaction."""
        connection = self._connection
        if connection is not None and not connection.lost:
            return connection
        lost = "" if connection is None else connection.lost
        if parsed(line)[0] == "QUIT":
            self.over = True
            told.append(lost)
            return None
        if connection is not None and connection.in_transaction:
            raise Trouble("", f"{lost}; the transaction is rolled back, and {shown(line)} was not sent")
        try:
            await self.begin()
        except Trouble as trouble:
            raise Trouble("", f"{trouble.text}; {shown(line)} was not sent") from None
        told.append(f"{lost}; connected again" if lost else "connected again")
        return self._connection

    @property
    def prompt(self) -> str:
        """What is shown before the next line."""
        return f"kvd ({self.transaction})> " if self.transaction else "kvd> "

    def end(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self.transaction = ""


def _about_quotes(line: str) -> str:
    """A hint for somebody who puts quotes around a key."""
    name, words = parsed(line)
    if line.lstrip(" ")[:1] == "[" or name == "PING" or not words:
        return ""
    key = words[0]
    if not isinstance(key, str) or key[:1] != '"':
        return ""
    return f'note: the first word is {key}, with its quote. For a key with spaces, write ["{name}", "a key"]'


def _state(check: dict[str, Any]) -> str:
    """The state of the transaction, from the reply to CHECK."""
    if check["status"] == "Ok":
        if check["result"]["commits"]:
            return "transaction"
        return "transaction, in conflict" if check["result"]["conflicts"] else "transaction, aborted"
    states = {"NO_TRANSACTION": "", "AUTH_REQUIRED": "", "TXN_EXPIRED": "transaction, expired"}
    return states.get(check["code"], "transaction, aborted")
