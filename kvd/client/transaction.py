"""A transaction of the Deferred client, on a connection of its own."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred, fail

from kvd import receipts, requests, wire
from kvd.client.asking import Asker
from kvd.client.commands import Commands
from kvd.client.link import Link
from kvd.client.pool import Pool
from kvd.client.waiting import ignore, wait_for
from kvd.errors import Aborted, BadRequest, Conflict, KvdError, NoTransaction, ReceiptUsed, TransactionExpired
from kvd.receipts import IN_DOUBT

ENDED = (Conflict, Aborted, TransactionExpired, ReceiptUsed)
"""The errors of a COMMIT after which no transaction is open any more."""

_around: ContextVar[Transaction | None] = ContextVar("_around", default=None)
"""The transaction whose ``async with`` block the running code is in."""


class Transaction(Commands):
    """A transaction; made by :meth:`kvd.client.Client.transaction`.

    It is open inside its ``async with`` block. If its connection breaks there, it has failed: nothing of it
    is stored, and whatever is asked of it fails.

    :param asker: asks what became of its COMMIT, if the reply is lost, for ``limit`` seconds.
    """

    def __init__(self, pool: Pool, read_only: bool, asker: Asker, limit: float) -> None:
        self._pool = pool
        self._read_only = read_only
        self._asker = asker
        self._limit = limit
        self._began = 0.0  # before START was sent, as the asker tells the time
        self._link: Link | None = None
        self._opening = False
        self._outer: Transaction | None = None
        self._writes = False
        self._asked: dict[Deferred[Any], None] = {}  # requests that are not answered, or have failed
        self._unsent: KvdError | None = None  # why a request was not sent; the rest must not be stored without it

    def call(self, *words: wire.Word) -> Deferred[Any]:
        """Send any command inside the transaction: its name, and its arguments.

        :return: a Deferred of the ``result`` of its reply (None where it has none). As every error inside a
            transaction, one that is found before the request is sent aborts it.
        """
        if self._link is None:
            return fail(NoTransaction("this transaction is not open; it is inside its async with block"))
        name = requests.name(words)
        if name in ("START", "COMMIT", "QUIT") or (name == "ROLLBACK" and len(words) == 1):
            return fail(BadRequest(f"{name} can't be sent by hand; the transaction ends with its async with block"))
        try:
            line = requests.encode(*words)
        except KvdError as error:
            self._unsent = self._unsent or error
            return fail(error)
        if name == "ROLLBACK":  # if the server doesn't go back to the savepoint, it aborts the transaction itself
            self._unsent = None
        if self._unsent is not None:
            return fail(self._aborted(self._unsent))
        self._writes = self._writes or requests.changes(name)
        asked = self._link.ask(line, False)
        self._asked[asked] = None
        return asked.addCallback(self._answered, asked)

    def _answered(self, result: Any, asked: Deferred[Any]) -> Any:
        self._asked.pop(asked, None)
        return result

    def savepoint(self, name: str) -> Deferred[None]:
        """Set a point to go back to."""
        return self.call("SAVEPOINT", name)

    def rollback_to(self, name: str) -> Deferred[None]:
        """Drop what was changed since the savepoint, and go on."""
        return self.call("ROLLBACK", "TO", name)

    def release(self, name: str) -> Deferred[None]:
        """Forget the savepoint, and keep the changes."""
        return self.call("RELEASE", name)

    def check(self) -> Deferred[dict[str, Any]]:
        """Would it commit now? A dict with ``commits conflicts reads writes age``."""
        return self.call("CHECK")

    @staticmethod
    def _aborted(error: KvdError) -> Aborted:
        return Aborted(f"nothing of this transaction can be stored, because a command failed ({error.mesg})")

    async def __aenter__(self) -> Transaction:
        if self._link is not None or self._opening:
            raise NoTransaction("this transaction is open already")
        outer = _around.get()
        nested = outer is not None and outer._link is not None and outer._pool is self._pool
        self._opening = True
        try:
            link = await self._pool.lease(nested)
            self._began = self._asker.seconds()
            try:
                await wait_for(link.ask(requests.encode("START", *["READONLY"] * self._read_only), False))
            except BaseException:
                self._pool.drop(link)  # it may hold an open transaction
                raise
        finally:
            self._opening = False
        self._link = link
        self._writes = False
        self._unsent = None
        self._outer = outer
        _around.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        link, self._link = self._link, None
        assert link is not None
        _around.set(self._outer)
        asked, self._asked = self._asked, {}
        if isinstance(error, GeneratorExit):
            forget(asked)
        if error is not None or self._unsent is not None:
            # Nobody waits for the reply: the block may end because its Deferred was cancelled or dropped.
            rolled_back = link.ask(requests.encode("ROLLBACK"), False)
            rolled_back.addCallbacks(lambda _: self._pool.give_back(link), lambda _: self._pool.drop(link))
            if error is None and self._unsent is not None:
                raise self._aborted(self._unsent)
            return
        receipt = receipts.new() if self._writes and not self._read_only else None
        words = [] if receipt is None else [receipt]
        try:
            await wait_for(link.ask(requests.encode("COMMIT", *words), receipt is not None))
        except ENDED:
            self._pool.give_back(link)
            raise
        except BaseException as problem:
            if isinstance(problem, GeneratorExit):
                forget(asked)
            self._pool.drop(link)
            if receipt is None or not isinstance(problem, IN_DOUBT):
                raise
            lost = problem
        else:
            self._pool.give_back(link)
            return
        assert receipt is not None
        await self._asker.settle(receipt, self._began, lost, self._limit)


def forget(asked: Iterable[Deferred[Any]]) -> None:
    """The coroutine that waited for these requests is closed, and nobody will hear of their errors."""
    for each in asked:
        each.addErrback(ignore)
