"""All pairs of a server as they were at one instant, page by page, while others go on writing."""

from __future__ import annotations

from kvd import requests, wire
from kvd.cli.connecting import Connection, Server, Trouble
from kvd.cli.pairs import Pair
from kvd.cli.program import REFUSED, Problem
from kvd.errors import Internal

PAGE = 10_000
"""Pairs that are asked for at a time, the most that a server gives. A page ends at 1 MiB, too."""

LIMITS = {
    "memory": "--max-memory",
    "idle": "--transaction-idle",
    "open for": "--transaction-time",
    "reads and writes": "--transaction-keys",
    "takes": "--transaction-bytes",
}
"""What the server's message says when it ends the transaction, and the option of the server that would prevent it."""


class Snapshot:
    """The pairs of a server; :func:`begin` makes it.

    :param server: its name, for messages.
    :param prefix: what the keys begin with.
    :ivar total: how many pairs there are; None if that was not asked for.
    :ivar seen: how many of them were read.
    :ivar more: whether there are pages that were not read.
    """

    def __init__(self, connection: Connection, server: str, prefix: str) -> None:
        self._connection = connection
        self._server = server
        self._prefix = prefix
        self._next: str | None = None
        self.total: int | None = None
        self.seen = 0
        self.more = True

    async def begin(self, count: bool) -> None:
        """Open the transaction that sees the snapshot.

        :param count: ask how many pairs there are, which takes a moment.
        :raise Problem: the server does not do it; so does every method.
        """
        await self._ask("START", "READONLY")
        if count:
            total = await self._ask("COUNT", "PREFIX", self._prefix)
            self.total = total if isinstance(total, int) else None

    async def page(self) -> list[Pair]:
        """The next pairs, in the order of their keys."""
        found = await self._ask(*wire.scan_words(self._prefix, self._next, None, PAGE, False, False), "ENDS")
        try:
            items, self._next = requests.page_with_ends(found)
        except Internal as error:
            raise Trouble(self._server, error.mesg) from None
        self.more = self._next is not None
        self.seen += len(items)
        return [Pair(*item) for item in items]

    async def end(self) -> None:
        """Give the snapshot up; the server keeps old values for it."""
        await self._ask("COMMIT")
        self._connection.close()

    @property
    def share(self) -> float | None:
        """Which share of the pairs was read."""
        return None if self.total is None else self.seen / max(self.total, 1)

    async def _ask(self, *words: wire.Word) -> object:
        reply = await self._connection.ask(wire.request(*words).decode("ascii").rstrip("\n"))
        if reply.code:
            text = f"{self._server}: {reply.code}: {reply.found['mesg']}"
            if reply.code in ("TXN_EXPIRED", "TOO_LARGE"):
                for said, option in LIMITS.items():
                    if said in reply.found["mesg"]:
                        text += f" (a higher {option} of the server prevents that)"
                        break
            raise Problem(text, REFUSED)
        return reply.found.get("result")


async def begin(server: Server, prefix: str, count: bool) -> Snapshot:
    """A snapshot of a server, on a connection of its own.

    :param count: ask how many pairs there are.
    """
    snapshot = Snapshot(await server.connect(), server.name, prefix)
    await snapshot.begin(count)
    return snapshot
