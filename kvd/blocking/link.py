"""One connection, kept in step: each request gets its own reply or an error, and a connection in doubt is closed.

A link is used for one request at a time, by one thread at a time while a transaction is open on it, and only in the
process that made it. An exception can come at any point: a KeyboardInterrupt, or one from a signal handler. So what is
about to happen is noted down before it happens: ``_busy`` before anything is sent, ``_opened`` before START is. If the
note is still there when the link is next used, nobody knows what happened, and the link is closed. The server then
rolls back what is open on it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import RLock, get_ident
from typing import Any
from weakref import ReferenceType, WeakSet

from kvd import receipts, requests, wire
from kvd.blocking import questions
from kvd.blocking.lines import Lines
from kvd.blocking.questions import Request
from kvd.errors import Busy, Idle, Internal, InTransaction, KvdError, NoTransaction, Unavailable
from kvd.requests import LEADING, OVER

Answer = tuple[Any, KvdError | None]
"""What came of a request: what its caller gets, or the error to raise."""


class Opened:
    """A transaction that is open on a link.

    :param began: the time, as :func:`kvd.receipts.uptime` tells it, before its START was sent.
    :param block: refers to an object that only the ``with`` statement of the transaction holds; None if there is none.
    :param by_hand: the caller leads it, with START and COMMIT.
    :ivar writes: whether something was sent in it that may change something.
    :ivar receipt: what its COMMIT is sent with; None if it does not write.
    """

    def __init__(self, began: float, block: ReferenceType[Any] | None = None, by_hand: bool = False) -> None:
        self._block = block
        self.began = began
        self.by_hand = by_hand
        self.writes = False
        self.receipt: str | None = None

    def commit(self) -> Request[None]:
        """The COMMIT with which it ends."""
        self.receipt = receipts.new() if self.writes else None
        return questions.commit(self.receipt)

    @property
    def left(self) -> bool:
        """Whether its ``with`` statement is over. An exception can end that before anything of ours runs."""
        return self._block is not None and self._block() is None


class Link:
    """A connection to a server.

    :param lines: the connected socket.
    :param where: the server's address, for people.
    :ivar timeout: seconds that a reply may take, and that a thread waits for its turn.
    """

    def __init__(self, lines: Lines, where: str, timeout: float) -> None:
        self._lines = lines
        self._where = where
        self.timeout = timeout
        self._lost: KvdError | None = None  # what every further request raises
        self._process = os.getpid()
        self._turn = RLock()  # held during a request, and during a transaction
        self._owner: int | None = None  # the thread whose transaction is open
        self._opened: Opened | None = None
        self._began = 0.0  # before the last START was sent
        self._busy = False  # a request is under way, or an exception has interrupted one
        _links.add(self)

    def run(self, asked: list[Request[Any]], within: Opened | None = None, opens: Opened | None = None) -> list[Answer]:
        """Send requests, and wait for their replies.

        :param within: the transaction that they belong to, if it has a block.
        :param opens: the transaction that they open, if it has a block.
        :return: what came of each.
        :raise kvd.errors.KvdError: nothing was sent.
        """
        me = get_ident()
        try:
            self._look(within, me)
            if self._owner != me and not self._turn.acquire(timeout=self.timeout):
                raise Unavailable(f"another thread has used the client for {self.timeout:g} seconds; nothing was sent")
            self._admit(within, opens)
            if opens is not None:
                self._opened, self._owner = opens, me
            self._busy = True
            outcomes = self._exchange(asked)
            self._busy = False
            return outcomes
        except BaseException:
            if self._busy:
                self.drop(interrupted())
            raise
        finally:
            # No call stands before this one: an exception can come after each call, and nobody else would get a turn.
            if self._owner is None or self._busy or self._lost is not None:
                try:
                    self._turn.release()
                except RuntimeError:
                    "It was not this thread's turn, or drop() has ended it."

    def _look(self, within: Opened | None, me: int) -> None:
        """See that waiting for a turn makes sense."""
        if self._lost is None:
            if self._process != os.getpid():
                self.inherited()
            elif self._opened is not None and self._opened.left:
                self.drop(interrupted())
        if self._lost is not None:
            raise self._refused()
        if within is not None and within is self._opened and self._owner != me:
            raise NoTransaction("this transaction belongs to another thread; begin one in this thread")

    def _admit(self, within: Opened | None, opens: Opened | None) -> None:
        """See that a request may be sent now."""
        if self._busy:
            self.drop(interrupted())
        if self._lost is not None:
            raise self._refused()
        opened = self._opened
        if within is not None:
            if within is not opened:
                raise NoTransaction("this transaction is over; begin another one")
        elif opened is not None and not opened.by_hand:
            raise InTransaction("a transaction is open on this connection; use the object that transaction() gave")
        elif opened is not None and opens is not None:
            raise InTransaction("a transaction is open on this connection; commit() or rollback() first")

    # Replies.

    def _exchange(self, asked: list[Request[Any]]) -> list[Answer]:
        unasked = self._lines.unasked()
        if unasked is not None:
            data, problem = unasked
            self.drop(requests.unasked(data) if data else self._not_connected(problem))
            return [(None, self._refused()) for _ in asked]
        opened = self._opened
        if opened is not None:
            # Not with any(): an exception that comes while its generator is being closed would be lost.
            for request in asked:
                if request.changing and request.name != "COMMIT":
                    opened.writes = True
        if asked[0].name == "START":
            self._began = receipts.uptime()
        talk = self._lines.exchange(b"".join([request.line for request in asked]), len(asked), self.timeout)
        outcomes: list[Answer] = []
        place = 0  # where the request begins in what was to be sent
        for request, line in zip(asked, [*talk.lines, *[None] * (len(asked) - len(talk.lines))], strict=True):
            if line is not None and self._lost is None:
                outcomes.append(self._outcome(request, line))
            elif isinstance(self._lost, Busy | Idle):
                outcomes.append((None, self._refused()))
            else:
                may_store = request.changing if opened is None else opened.writes and request.name == "COMMIT"
                stored = may_store and place < talk.sent
                problem = talk.problem or "the reply before was not one of a kvd server"
                outcomes.append((None, requests.lost(f"the connection to {self._where} broke: {problem}", stored)))
            place += len(request.line)
        if talk.problem is not None:
            self.drop(self._not_connected(talk.problem))
        elif talk.rest:
            self.drop(requests.unasked(talk.rest))
        return outcomes

    def _outcome(self, request: Request[Any], line: bytes) -> Answer:
        try:
            reply = requests.reply(line)
            ok = reply["status"] == "Ok"
            result = request.shape(reply.get("result")) if ok and request.shape is not None else reply
        except Internal as problem:
            self.drop(self._not_connected("a reply was not one of a kvd server"))
            return None, problem
        error = None if ok else wire.error_from(reply)
        if isinstance(error, Busy | Idle):  # it was not an answer
            self.drop(requests.unasked(line))
            return None, self._refused()
        self._follow(request.name, ok)
        return (None, error) if error is not None and request.shape is not None else (result, None)

    def _follow(self, name: str, ok: bool) -> None:
        """Keep track of whether a transaction is open. In doubt none is: then nobody says that nothing was stored."""
        if name == "START":
            if ok and self._opened is None:
                self._opened = Opened(self._began, by_hand=True)
                self._owner = get_ident()
        elif name in LEADING:
            self._opened = self._owner = None

    # Transactions that have a block.

    def begin(self, start: Request[None], opens: Opened) -> None:
        """Open a transaction."""
        _, error = self.run([start], opens=opens)[0]
        if error is not None:
            self.roll_back(opens)  # a START that was refused may leave an aborted transaction
            raise error

    def commit(self, within: Opened) -> None:
        """Commit, and raise the error if that fails."""
        error = self._end(within.commit(), within)
        if error is not None:
            raise error

    def roll_back(self, within: Opened) -> None:
        """Roll back; if that fails, by closing the connection."""
        with suppress(KvdError):
            self._end(questions.roll_back(), within)

    def _end(self, request: Request[None], within: Opened) -> KvdError | None:
        _, error = self.run([request], within)[0]
        if error is not None and not isinstance(error, OVER):
            self.drop(self._not_connected(f"{request.name} failed"))
        return error

    def led_by_hand(self) -> Opened | None:
        """The transaction that this thread leads by hand; None if it is not known to lead one."""
        opened = self._opened
        return opened if opened is not None and opened.by_hand and self._owner == get_ident() else None

    def let_go(self, within: Opened | None = None) -> None:
        """See that a transaction is not open any more; if it is, an exception has come before the end of it.

        :param within: the transaction; None for the one that this thread leads by hand.
        """
        opened = self._opened
        if opened is not None and opened is (self.led_by_hand() if within is None else within):
            self.drop(interrupted())

    # The end.

    @property
    def usable(self) -> bool:
        """Whether it is not known to be closed."""
        return self._lost is None and self._process == os.getpid()

    def drop(self, error: KvdError) -> None:
        """Close the connection. The server rolls back what is open on it.

        :param error: is raised by all further requests.
        """
        if self._lost is None:
            self._lost = error
        self._lines.close(self._process == os.getpid())
        with suppress(RuntimeError):
            self._turn.release()

    def inherited(self) -> None:
        """Close the connection in a process that has inherited it, and leave it as it is for the one that made it."""
        self.drop(
            Unavailable(
                f"process {self._process} made this connection, and no other process may use it; nothing was sent, "
                "connect() makes one for this process"
            )
        )

    def _not_connected(self, problem: str) -> Unavailable:
        return Unavailable(f"not connected to {self._where}: {problem}; nothing was sent, connect() again")

    def _refused(self) -> KvdError:
        """What ended the connection, as an error of its own for each request that is not sent any more."""
        assert self._lost is not None
        return type(self._lost)(self._lost.mesg, **self._lost.fields)


def interrupted() -> Unavailable:
    """The error of a request that finds the link as an exception has left it."""
    return Unavailable(
        "not connected: an exception interrupted what was under way on the connection, and it was closed; "
        "nothing was sent, connect() again"
    )


_links: WeakSet[Link] = WeakSet()


def _forked() -> None:
    """Let go of the sockets in a child process, so that the connections end when the parent closes them."""
    for link in list(_links):
        link.inherited()


if hasattr(os, "register_at_fork"):
    pass
