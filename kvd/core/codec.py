"""A codec: cuts the bytes of one connection into requests, and prints what they are answered.

Every wire protocol that is a stream of requests has one. What runs between the request and the reply is the same for
all of them: the command table and :mod:`kvd.core.execution`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any

from kvd.compiler import mypyc_attr
from kvd.core.command import Command, Shape
from kvd.core.commands import START, find
from kvd.core.execution import run
from kvd.core.session import Session
from kvd.errors import Internal, KvdError
from kvd.interfaces import Later
from kvd.wire import Word


class Unreadable(Exception):
    """A request that can't be read.

    :ivar error: what its client is told.
    :ivar was_start: whether it was probably meant for a START; what follows it counts on that.
    :ivar closes: whether the connection ends after the error.
    """

    def __init__(self, error: KvdError, was_start: bool, closes: bool) -> None:
        super().__init__(error.mesg)
        self.error = error
        self.was_start = was_start
        self.closes = closes


@mypyc_attr(allow_interpreted_subclasses=True)
class Codec(ABC):
    """The codec of one connection.

    :ivar name: the name of the last request's command.
    :ivar words: its arguments.
    :ivar size: characters of replies that wait to be taken.
    :ivar quick: whether the last request took too little time for anybody to look at the clock.
    """

    name: str
    words: list[Word]
    size: int = 0
    quick: bool = False

    # Bytes in.

    @abstractmethod
    def feed(self, data: bytes) -> bool:
        """Take in what has arrived; whether the end of a request was in it."""

    @abstractmethod
    def cut(self) -> int:
        """Cut off some requests, unless some wait already; how many of them wait now."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether requests wait, cut off or not."""

    @abstractmethod
    def unfinished(self) -> bool:
        """Whether the end of a request has not come yet."""

    @abstractmethod
    def bytes_held(self) -> int:
        """Memory that is taken by what has arrived and was not answered."""

    @abstractmethod
    def clear(self) -> None:
        """Drop everything that has arrived."""

    # Requests, and replies.

    @abstractmethod
    def next_request(self) -> bool:
        """Take the next request: put its command's name, in capitals, into ``name``, and its arguments into ``words``.

        :return: whether there is something to do.
        :raise Unreadable: it can't be read.
        """

    @abstractmethod
    def print(self, shape: Shape, result: Any) -> None:
        """Add a reply to what waits to be taken.

        :raise kvd.errors.TooLarge: it is over the limit.
        """

    @abstractmethod
    def print_error(self, error: KvdError) -> None:
        """Add the reply that tells of an error."""

    @abstractmethod
    def take(self) -> bytes:
        """Take all replies that wait."""

    def answer(self, session: Session) -> Later[None] | None:
        """Answer the next request; a Later if it must be waited for."""
        command: Command | None = None
        try:
            if not self.next_request():
                return None
            command = find(session, self.name, self.words)
            result = run(session, command, command.check(self.words))
            if isinstance(result, Later):
                return Later(self._finish(session, command, result))
            self.print(command.shape, result)
        except KvdError as error:
            self.refuse(session, error, command is START)
        except Unreadable as unreadable:
            session.closing = session.closing or unreadable.closes
            self.refuse(session, unreadable.error, unreadable.was_start)
        except Exception:
            session.server.fault()
            self.refuse(session, internal(command), command is START)
        return None

    def _finish(self, session: Session, command: Command, result: Later[Any]) -> Generator[Any, Any, None]:
        """Wait for a result, and print it."""
        session.waiting = True
        try:
            self.print(command.shape, (yield from result.steps))
        except KvdError as error:
            self.refuse(session, error, command is START)
        except Exception:
            session.server.fault()
            self.refuse(session, internal(command), command is START)
        finally:
            session.waiting = False

    def refuse(self, session: Session, error: KvdError, was_start: bool) -> None:
        """Tell of an error. In a transaction, any error aborts it; a refused START leaves an aborted one open."""
        if was_start and session.transaction is None:
            session.open(session.server.store.latest(), False)
        txn = session.transaction
        if txn is not None and txn.aborted is None:
            txn.aborted = error.mesg
        errors = session.server.errors
        errors[error.code] = errors.get(error.code, 0) + 1
        self.print_error(error)


def internal(command: Command | None) -> Internal:
    """The error for a fault of the server."""
    told = "a fault of the server; its log tells more"
    if command is not None and (command.writes or command.name == "COMMIT"):
        return Internal(f"{told}; the change may or may not have been stored")
    return Internal(f"{told}; nothing was changed")
