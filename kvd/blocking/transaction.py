"""A transaction as a ``with`` block, which commits at its end and rolls back if it raises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any
from weakref import ReferenceType, ref

from kvd.blocking import questions
from kvd.blocking.commands import Savepoints
from kvd.blocking.link import Answer, Link, Opened
from kvd.blocking.questions import Request
from kvd.errors import BadRequest, KvdError, Unavailable
from kvd.receipts import IN_DOUBT, uptime
from kvd.requests import LEADING


class Transaction(Savepoints):
    """An open transaction; :meth:`Client.transaction` makes it.

    It is over when its block is: then everything that is asked of it raises :class:`~kvd.errors.NoTransaction`.
    It belongs to the thread and the process that began it.
    """

    def __init__(self, link: Link, opened: Opened) -> None:
        self._link = link
        self._opened = opened

    def _run(self, asked: list[Request[Any]]) -> list[Answer]:
        for request in asked:
            if request.name in LEADING:
                raise BadRequest(f"{request.name} is not for you to send; the transaction ends with its block")
        return self._link.run(asked, self._opened)


class _Exit:
    """``__exit__`` of a block, made anew for each ``with`` statement, which alone holds it.

    An exception such as KeyboardInterrupt can come after the block's last line and before the first line of
    ``__exit__``. Nothing of ours runs then, but the ``with`` statement lets go of what this gave it, and so the
    next use of the link sees that the block was left: see :attr:`Opened.left`.
    """

    def __get__(self, block: Block | None, kind: type[Block]) -> Callable[..., None]:
        if block is None:
            return _leave  # as ExitStack calls it, with the block
        leave = partial(_leave, block)
        block._held = ref(leave)
        return leave


class Block:
    """What :meth:`Client.transaction` returns; ``with`` opens the transaction, and gives it.

    :param link: returns the connection.
    :param settle: is called with the connection, the transaction and the error if the reply to COMMIT is lost. It
        returns if the COMMIT has happened, raises Unavailable if nothing was stored, and otherwise OutcomeUnknown.
    :ivar never: whether it has raised Unavailable.
    """

    def __init__(
        self, link: Callable[[], Link], read_only: bool, settle: Callable[[Link, Opened, KvdError], None]
    ) -> None:
        self.never = False
        self._get_link = link
        self._settle = settle
        self._start = questions.start(read_only)
        self._held: ReferenceType[Any] | None = None
        self._entered: tuple[Link, Opened] | None = None

    def __enter__(self) -> Transaction:
        link = self._get_link()
        opened = Opened(uptime(), self._held if self._held is not None and self._held() is not None else None)
        try:
            link.begin(self._start, opened)
            self._entered = link, opened
            return Transaction(link, opened)
        except BaseException:
            link.let_go(opened)
            raise

    __exit__ = _Exit()


def _leave(
    block: Block, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    assert block._entered is not None
    link, opened = block._entered
    try:
        if kind is None:
            link.commit(opened)
        else:
            link.roll_back(opened)
        return
    except IN_DOUBT as problem:
        if opened.receipt is None:
            raise
        lost = problem
    finally:
        link.let_go(opened)
    try:
        block._settle(link, opened, lost)
    except Unavailable:
        block.never = True
        raise
