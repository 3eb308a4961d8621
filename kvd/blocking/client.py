"""The client: connects, runs commands and transactions, and disconnects."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from kvd import receipts
from kvd.blocking import questions
from kvd.blocking.address import address, seconds
from kvd.blocking.commands import Savepoints
from kvd.blocking.lines import Lines, said
from kvd.blocking.link import Answer, Link, Opened
from kvd.blocking.questions import Request
from kvd.blocking.transaction import Block, Transaction
from kvd.errors import BadArguments, Busy, Conflict, KvdError, Unavailable
from kvd.receipts import ASK_AGAIN, IN_DOUBT, Outcome
from kvd.requests import CONFLICT_PAUSES, RETRY_FOR, full_jitter

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_PAUSES = (0.05, 0.5)
"""Seconds, as :data:`kvd.requests.CONFLICT_PAUSES`, between attempts to connect."""

LONGEST_TRY = 5.0
"""Seconds that an attempt to connect may take at most when others can follow."""


class Client(Savepoints):
    """A connection to a kvd server.

    ::

        with Client("localhost", 8765) as client:
            client.put("key1", "value1")

    :param host: name or address of the server.
    :param port: its TCP port.
    :param timeout: seconds that connecting may take, and each reply, however it comes; more than 0.
    :param retry_for: seconds for which :meth:`transact` tries again.
    :param path: the path of the server's UNIX socket, in place of host and port.
    :raise kvd.errors.BadArguments: that can't be an address, or a time.

    **If the connection breaks,** what was under way raises :class:`~kvd.errors.OutcomeUnknown` if it may have stored
    something, and :class:`~kvd.errors.Unavailable` if it has not. So it does if a reply takes too long. The client is
    disconnected then, and everything raises Unavailable until :meth:`connect` connects it again. An exception that
    comes from elsewhere in the middle of a request, such as KeyboardInterrupt, disconnects the client too.

    **If the reply to COMMIT is lost,** the client asks the server, on a new connection, what became of it. It raises
    OutcomeUnknown only if the server can't tell in time. If it can, the client is connected again.

    **Threads** may share a client. It runs one request at a time. While a transaction is open, only its thread can use
    the client, and the others wait until it is over: for ``timeout`` at most, then they get Unavailable.

    **A process** that inherits a client by fork can't use its connection: everything raises Unavailable there, until
    :meth:`connect` makes a connection for that process. The one of the parent is not disturbed.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 8765,
        timeout: float = 60.0,
        retry_for: float = RETRY_FOR,
        *,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._address = address(host, port, path)
        self.timeout = seconds("timeout", timeout, may_be_zero=False)
        self.retry_for = seconds("retry_for", retry_for)
        self._link: Link | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._address}>"

    # The connection.

    def connect(self, wait: float = 0.0) -> None:
        """Connect. A connection that is there already is closed first.

        :param wait: seconds for which it tries again if the server can't be reached or is busy, such as one that has
            yet to start. 0: it tries once, for ``timeout`` seconds.
        :raise kvd.errors.Unavailable: the server can't be reached.
        :raise kvd.errors.Busy: the server has as many clients as it takes.
        :raise kvd.errors.Internal: what answers there is not a kvd server.
        """
        wait = seconds("wait", wait)
        self.disconnect()
        too_late = time.monotonic() + wait
        attempt = 0
        while True:
            try:
                self._link = self._connected(min(self.timeout, too_late - time.monotonic()) if wait else self.timeout)
                return
            except (Unavailable, Busy):
                attempt += 1
                pause = full_jitter(attempt, *CONNECT_PAUSES, random.random)
                if time.monotonic() + pause >= too_late:
                    raise
            time.sleep(pause)

    def _connected(self, limit: float) -> Link:
        """A connection on which the server has answered: one that is full says so only after it has accepted."""
        too_late = time.monotonic() + limit
        try:
            sock = self._address.dial(limit)
        except OSError as problem:
            raise Unavailable(f"can't connect to {self._address}: {said(problem)}") from problem
        link = Link(Lines(sock), str(self._address), max(too_late - time.monotonic(), 0.001))
        try:
            _, error = link.run([questions.ping(None)])[0]
            if error is not None:
                raise error
        except BaseException:
            link.drop(_not_connected())
            raise
        link.timeout = self.timeout
        return link

    def disconnect(self) -> None:
        """Close the connection; the server rolls an open transaction back. Any thread may do this at any time."""
        link, self._link = self._link, None
        if link is not None:
            link.drop(_not_connected())

    def __enter__(self) -> Client:
        if self._link is None or not self._link.usable:
            self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()

    def _there(self) -> Link:
        link = self._link
        if link is None:
            raise _not_connected()
        return link

    def _run(self, asked: list[Request[Any]]) -> list[Answer]:
        return self._there().run(asked)

    # Commands.

    def send_command(self, line: str) -> dict[str, Any]:
        """Send a line as it would be typed into telnet, and return the reply as a dict, also one that is an Error.

        :raise kvd.errors.BadRequest: it is blank, or more than one line, and so would not get one reply.
        :raise kvd.errors.OutcomeUnknown: no reply came, and the line may have stored something.
        :raise kvd.errors.Unavailable: no reply came, and nothing was stored.
        """
        return self._ask(questions.typed(line))

    def ping(self, text: str | None = None) -> str:
        """``PONG``, or the text."""
        return self._ask(questions.ping(text))

    def info(self, section: str | None = None) -> dict[str, Any]:
        """What the server is and does, as figures by name: of one section, or of all sections by their names."""
        return self._ask(questions.info(section))

    def help(self, command: str | None = None) -> Any:
        """A dict of all commands, by usage; or a sentence about one command."""
        return self._ask(questions.help_about(command))

    def quit(self) -> None:
        """Have the server roll back and close the connection."""
        try:
            self._ask(questions.leave())
        finally:
            self.disconnect()

    # Outcomes.

    def outcome(self, receipt: str) -> Outcome:
        """What became of the COMMIT with a receipt. If it has not happened, it never will: asking settles that.

        It is asked for on a connection of its own; again and again, for ``timeout`` seconds, while the server can't be
        reached.

        :param receipt: as in the field ``receipt`` of an OutcomeUnknown.
        :raise kvd.errors.Unavailable: the server could not tell.
        """
        outcome, link = self._learn(receipt, self.timeout, lambda: True)
        link.drop(_not_connected())
        return outcome

    def _learn(self, receipt: str, limit: float, wanted: Callable[[], bool]) -> tuple[Outcome, Link]:
        """What became of a COMMIT, and the new connection on which the server said so."""
        request = questions.outcome(receipt)
        too_late = time.monotonic() + limit
        attempt = 0
        while True:
            if not wanted():
                raise Unavailable("the client was disconnected; ask for the outcome later")
            try:
                return self._ask_anew(request, max(min(self.timeout, too_late - time.monotonic()), 0.001))
            except ASK_AGAIN as problem:
                attempt += 1
                pause = full_jitter(attempt, *CONNECT_PAUSES, random.random)
                if time.monotonic() + pause >= too_late:
                    raise receipts.unheard(limit, problem) from problem
            time.sleep(pause)

    def _ask_anew(self, request: Request[dict[str, Any]], limit: float) -> tuple[Outcome, Link]:
        too_late = time.monotonic() + limit
        link = self._connected(min(limit, LONGEST_TRY))
        try:
            link.timeout = max(too_late - time.monotonic(), 0.001)
            reply, error = link.run([request])[0]
            if error is not None:
                raise error
            link.timeout = self.timeout
            return receipts.outcome(reply), link
        except BaseException:
            link.drop(_not_connected())
            raise

    def _settle(self, limit: float, link: Link, opened: Opened, lost: KvdError) -> None:
        """See what became of a COMMIT that had no reply, and be connected again if that could be learnt.

        :param limit: seconds for which to ask.
        :param link: the connection on which it was sent, and which is closed.
        :param lost: its error.
        """
        assert opened.receipt is not None
        try:
            outcome, new = self._learn(opened.receipt, limit, lambda: self._link is not None)
        except KvdError as error:
            raise receipts.unsettled(lost, error.mesg, opened.receipt) from error
        if self._link is link:
            self._link = new
        else:  # another thread has connected, or disconnected
            new.drop(_not_connected())
        receipts.settle(outcome, receipts.uptime() - opened.began, lost)

    # Transactions.

    def transaction(self, read_only: bool = False) -> Block:
        """A transaction, for a ``with`` block. It commits at the end of the block, and rolls back if the block raises::

            with client.transaction() as txn:
                txn.put("key2", txn.get("key1"))

        Inside the block, use ``txn`` and not the client.

        :param read_only: refuse commands that could change something.
        :raise kvd.errors.Conflict: at the end: something that it read was changed meanwhile. Nothing was stored.
        :raise kvd.errors.Aborted: at the end: a command in it failed, and that error was caught. Nothing was stored.
        :raise kvd.errors.Unavailable: at the end: nothing was stored, no reply to COMMIT came.
        :raise kvd.errors.OutcomeUnknown: at the end: no reply to COMMIT came, and the server could not tell what
            became of it, for ``timeout`` seconds.
        :raise kvd.errors.InTransaction: at the beginning: a transaction is open already.
        """
        return Block(self._there, read_only, partial(self._settle, self.timeout))

    def transact(self, fn: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``fn(txn, *args, **kwargs)`` in a transaction, and commit; again after a conflict.

        It runs again until ``retry_for`` seconds have passed since the call, and then the last Conflict is raised. So
        ``fn`` must bear running more than once: what it does besides ``txn`` is not rolled back.

        If the reply to COMMIT is lost, it asks the server what became of it, for ``retry_for`` seconds from then on,
        and runs again if nothing was stored. OutcomeUnknown remains for a server that can't tell in that time.

        :return: what ``fn`` returned when its changes were stored.
        """
        if not callable(fn):
            raise BadArguments(f"transact takes a function, not {type(fn).__name__}")
        too_late = time.monotonic() + self.retry_for
        attempt = 0
        while True:
            block = Block(self._there, False, partial(self._settle, self.retry_for))
            try:
                with block as txn:
                    result = fn(txn, *args, **kwargs)
                return result
            except (Conflict, Unavailable) as error:
                if isinstance(error, Unavailable) and not block.never:
                    raise
                attempt += 1
                pause = full_jitter(attempt, *CONFLICT_PAUSES, random.random)
                if time.monotonic() + pause >= too_late:
                    raise
            time.sleep(pause)

    # For those who want to lead a transaction by hand.

    def start(self, read_only: bool = False) -> None:
        """Open a transaction. From now on the client's own commands belong to it."""
        link = self._there()
        try:
            self._ask(questions.start(read_only))
        except KvdError:
            raise
        except BaseException:  # the caller does not know whether one is open
            link.let_go()
            raise

    def commit(self) -> None:
        """Store all changes of the transaction at once, or none of them."""
        link = self._there()
        opened = link.led_by_hand()
        try:
            self._end(questions.commit(None) if opened is None else opened.commit())
            return
        except IN_DOUBT as problem:
            if opened is None or opened.receipt is None:
                raise
            lost = problem
            link.drop(_not_connected())  # as at the end of a block
        self._settle(self.timeout, link, opened, lost)

    def rollback(self) -> None:
        """End the transaction, and drop its changes."""
        self._end(questions.roll_back())

    def _end(self, request: Request[None]) -> None:
        link = self._there()
        try:
            self._ask(request)
        finally:
            link.let_go()


def _not_connected() -> Unavailable:
    return Unavailable("not connected; nothing was sent, connect() first")
