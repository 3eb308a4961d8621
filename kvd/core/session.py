"""One client: its open transaction, and the way a command runs in it or as one of its own.

A command answers at once, with the line of its reply, or later, with its remaining *steps*: a
generator that yields each :class:`~kvd.interfaces.Later` it has to wait for, is sent what that
brought, and returns the reply. It yields None to let other clients have their turn. Who waits throws
:class:`TimedOut` in when a Later takes too long.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from kvd import wire
from kvd.core.command import DataCommand
from kvd.core.limits import Budget, Limits
from kvd.core.transaction import Transaction
from kvd.errors import (
    Aborted,
    Conflict,
    InTransaction,
    KvdError,
    NoTransaction,
    OutcomeUnknown,
    SpeaksHttp,
    TooLarge,
    TransactionExpired,
    Unavailable,
)
from kvd.interfaces import Later, Pieces, Scan, Snapshot, Store, Wanted

Steps = Generator[Later[Any] | None, Any, str]
Reply = str | Steps

CONFLICTS_SHOWN: Final = 100
"""The most keys that CHECK names."""


class TimedOut(Exception):
    """The store did not answer in time."""


class Shared:
    """What the sessions of a server have in common.

    :ivar seconds: the server's clock.
    :ivar fault: tells the log of the exception that is being handled.
    :ivar info: the sections of INFO.
    :ivar relieve: makes room when transactions and buffers take too much memory.
    :ivar transactions: how many are open, and how many ended in which way.
    :ivar slow_until: the end of the time for which large batches wait, because somebody's turn took long.
    """

    def __init__(self, store: Store, seconds: Callable[[], float], limits: Limits) -> None:
        self.store = store
        self.seconds = seconds
        self.limits = limits
        self.budget = Budget(limits.memory)
        self.fault: Callable[[], None] = _nothing
        self.relieve: Callable[[], None] = _nothing
        self.info: Callable[[], dict[str, dict[str, Any]]] = dict
        self.calls = [0] * 64  # by the command's place in the table
        self.errors: dict[str, int] = {}
        self.slow_until: float = float("-inf")
        self.transactions = {"open": 0, "committed": 0, "conflicts": 0, "rolled_back": 0, "expired": 0}


def _nothing() -> None:
    pass


class Session:
    """One client.

    :param number: the id by which other clients know it.
    """

    def __init__(self, number: int, shared: Shared) -> None:
        self.id = number
        self.shared = shared
        self.transaction: Transaction | None = None
        self.closing = False  # the connection ends behind the reply to the present request
        self.waiting = False  # a request is under way
        self.committing = False  # it is one that must be left to finish

    # Data commands.

    def execute(self, command: DataCommand, args: Any) -> Reply:
        """Run a data command, in the open transaction or as one of its own."""
        txn = self.transaction
        if txn is not None:
            return self._execute_in(txn, command, args)
        view = self.shared.store.latest()
        answer: Any = None
        wanted = command.reads(args)
        if wanted is not None:
            answer = fetch(view, wanted)
            if isinstance(answer, Later):
                return self._repeat(command, args, view, answer)
        reply, writes = command.apply(args, answer)
        if writes is not None:
            done = view.commit((), writes, self.id)
            if done is not None:
                self.committing = True
                return self._stored(command, args, done, reply)
        return reply

    def _execute_in(self, txn: Transaction, command: DataCommand, args: Any) -> Reply:
        txn.used = self.shared.seconds()
        answer: Any = None
        wanted = command.reads(args)
        if wanted is not None:
            answer = fetch(txn.snapshot, txn.missing(wanted))
            if isinstance(answer, Later):
                return self._execute_later(txn, command, args, wanted, answer)
            answer = txn.overlay(wanted, answer)
        reply, writes = command.apply(args, answer)
        if writes is not None:
            txn.write(writes)
        self._account(txn, writes)
        return reply

    def _account(self, txn: Transaction, writes: dict[str, str | None] | None) -> None:
        """Hold the memory that the transaction has come to take, and see that it stays within its limits.

        :param writes: what it has just written.
        """
        shared = self.shared
        budget, limits = shared.budget, shared.limits
        budget.used += txn.bytes - txn.held
        txn.held = txn.bytes
        number = len(txn.reads) + len(txn.writes)
        if number > limits.transaction_keys > 0:
            raise TooLarge(
                f"the transaction reads and writes {number} keys; at most {limits.transaction_keys} are allowed"
            )
        if txn.bytes > limits.transaction_bytes > 0:
            raise TooLarge(f"the transaction takes {txn.bytes} bytes; at most {limits.transaction_bytes} are allowed")
        if budget.used > budget.room:
            if budget.strained():
                shared.relieve()
            if txn.expired is not None:
                raise expired(txn)
            if writes is not None and shared.store.growth(writes) > 0:
                raise budget.exceeded()

    def _execute_later(
        self, txn: Transaction, command: DataCommand, args: Any, wanted: Wanted, later: Later[Any]
    ) -> Steps:
        answer = yield from _read(later)
        txn.used = self.shared.seconds()
        if txn.expired is not None:
            raise expired(txn)
        reply, writes = command.apply(args, txn.overlay(wanted, answer))
        if writes is not None:
            txn.write(writes)
        self._account(txn, writes)
        return reply

    def _stored(self, command: DataCommand, args: Any, done: Later[None], reply: str) -> Steps:
        """Wait for a plain command's commit; on a conflict begin again."""
        try:
            yield from _commit(done)
        except Conflict:
            self.committing = False
            return (yield from self._repeat(command, args, None, None))
        return reply

    def _repeat(self, command: DataCommand, args: Any, view: Snapshot | None, answer: Any) -> Steps:
        """Run a plain command as a transaction of its own until it meets no conflict.

        :param view: what its first try reads from, and ``answer`` what that try waits for; or None.
        """
        deadline = self.shared.seconds() + self.shared.limits.store_wait
        while True:
            txn = Transaction(self.shared.store.latest() if view is None else view, False, 0.0)
            try:
                wanted = command.reads(args)
                if wanted is not None:
                    ask = txn.missing(wanted)
                    if view is None:
                        answer = fetch(txn.snapshot, ask)
                    if isinstance(answer, Later):
                        answer = yield from _read(answer)
                    answer = txn.overlay(wanted, answer)
                reply, writes = command.apply(args, answer)
                if writes is not None:
                    self.committing = True
                    done = txn.snapshot.commit(txn.reads, writes, self.id)
                    if done is not None:
                        yield from _commit(done)
                return reply
            except Conflict:
                self.committing = False
                view = None
                if self.shared.seconds() >= deadline:
                    raise Unavailable(
                        f"other clients changed what this command reads for {self.shared.limits.store_wait:g} seconds "
                        "without a gap; nothing was stored, try again"
                    ) from None
            finally:
                txn.snapshot.close()

    # Transactions.

    def start(self, read_only: bool) -> Reply:
        """START: open a transaction."""
        if self.transaction is not None:
            raise InTransaction("a transaction is open on this connection; COMMIT or ROLLBACK it first")
        snapshot = self.shared.store.snapshot(self.end_transaction)
        if isinstance(snapshot, Later):
            return self._start_later(snapshot, read_only)
        self._open(snapshot, read_only)
        return wire.OK

    def _start_later(self, later: Later[Snapshot], read_only: bool) -> Steps:
        self._open((yield from _read(later)), read_only)
        return wire.OK

    def _open(self, snapshot: Any, read_only: bool) -> Transaction:
        self.transaction = Transaction(snapshot, read_only, self.shared.seconds())
        self.shared.transactions["open"] += 1
        return self.transaction

    def _leave(self) -> Transaction:
        """The open transaction, which is over from now on."""
        txn = self.opened()
        self.transaction = None
        self.shared.transactions["open"] -= 1
        return txn

    def _forget(self, txn: Transaction) -> None:
        """Drop all that a transaction holds."""
        self.shared.budget.used -= txn.held
        txn.held = 0
        txn.forget()

    def open_doomed(self, error: KvdError) -> None:
        """What a refused START leaves behind, so that the commands behind it do not run on their own."""
        self._open(self.shared.store.latest(), False).doomed = error.mesg

    def opened(self) -> Transaction:
        """The open transaction."""
        if self.transaction is None:
            raise no_transaction()
        self.transaction.used = self.shared.seconds()
        return self.transaction

    def commit(self) -> Reply:
        """COMMIT: store what the transaction wrote, all or nothing."""
        txn = self._leave()
        self.shared.budget.used -= txn.held  # its writes are about to be counted as data
        txn.held = 0
        try:
            if txn.expired is not None:
                raise expired(txn)
            if txn.doomed is not None:
                self.shared.transactions["rolled_back"] += 1
                raise aborted(txn)
            if not txn.writes:
                self.shared.transactions["committed"] += 1
                return wire.OK
            done = txn.snapshot.commit(txn.reads, txn.writes, self.id)
            if done is not None:
                self.committing = True
                return self._commit_later(done)
        except Conflict:
            self.shared.transactions["conflicts"] += 1
            raise
        finally:
            if not self.committing:
                txn.forget()
        self.shared.transactions["committed"] += 1
        return wire.OK

    def _commit_later(self, done: Later[None]) -> Steps:
        try:
            yield from _commit(done)
        except Conflict:
            self.shared.transactions["conflicts"] += 1
            raise
        self.shared.transactions["committed"] += 1
        return wire.OK

    def rollback(self) -> str:
        """ROLLBACK: drop what the transaction wrote."""
        txn = self._leave()
        if txn.expired is None:
            self.shared.transactions["rolled_back"] += 1
            self._forget(txn)
        return wire.OK

    def check(self) -> Reply:
        """CHECK: would the transaction commit now?"""
        txn = self.opened()
        if not txn.writes:
            return self._checked(txn, [])
        found = txn.snapshot.conflicts(txn.reads, CONFLICTS_SHOWN)
        if isinstance(found, Later):
            return self._check_later(txn, found)
        return self._checked(txn, found)

    def _check_later(self, txn: Transaction, later: Later[Any]) -> Steps:
        return self._checked(txn, (yield from _read(later)))

    def _checked(self, txn: Transaction, found: Any) -> str:
        return wire.result(
            {
                "commits": not found and txn.doomed is None,
                "conflicts": [key for key, _ in found],
                "reads": len(txn.reads),
                "writes": len(txn.writes),
                "age": round(self.shared.seconds() - txn.started, 3),
            }
        )

    def expire(self, now: float) -> None:
        """End the transaction if it has been idle, or open, for too long."""
        txn = self.transaction
        if txn is None or txn.expired is not None or self.waiting:
            return
        limits = self.shared.limits
        if now - txn.used > limits.transaction_idle > 0:
            self.end_transaction(f"it was idle for more than {limits.transaction_idle:g} seconds")
        elif not txn.read_only and now - txn.started > limits.transaction_time > 0:
            self.end_transaction(f"it was open for more than {limits.transaction_time:g} seconds")

    def end_transaction(self, why: str) -> None:
        """End the transaction from the server's side. What is left of it tells the client why."""
        txn = self.transaction
        if txn is not None and txn.expired is None:
            txn.expired = why
            self.shared.transactions["expired"] += 1
            self._forget(txn)

    # What is wrong, and the end.

    def refuse(self, error: KvdError) -> str:
        """The reply that tells of an error; in a transaction, any error dooms it."""
        txn = self.transaction
        if txn is not None and txn.doomed is None:
            txn.doomed = error.mesg
        if isinstance(error, SpeaksHttp):
            self.closing = True
        errors = self.shared.errors
        errors[error.code] = errors.get(error.code, 0) + 1
        return wire.error(error)

    def close(self) -> None:
        """The connection has ended: roll back."""
        if self.transaction is not None:
            self.rollback()


def no_transaction() -> NoTransaction:
    """The error of a command that has no meaning outside a transaction."""
    return NoTransaction("no transaction is open on this connection; START one first")


def expired(txn: Transaction) -> TransactionExpired:
    """The error of a transaction that the server ended."""
    return TransactionExpired(f"the server ended this transaction: {txn.expired}; ROLLBACK, then START again")


def aborted(txn: Transaction) -> Aborted:
    """The error of a doomed transaction."""
    return Aborted(f"nothing of this transaction can be stored, for it met an error ({txn.doomed}); ROLLBACK it")


def fetch(view: Snapshot, wanted: Wanted) -> Any:
    """Ask a store; the answer, or a Later."""
    if isinstance(wanted, list):
        return view.read(wanted) if wanted else wanted
    if isinstance(wanted, Scan):
        return view.scan(wanted)
    return view.count(wanted)


def _read(later: Later[Any]) -> Generator[Later[Any] | None, Any, Any]:
    answer: Any = later
    try:
        if not isinstance(later, Pieces):
            answer = yield later
        return (yield from answer.steps) if isinstance(answer, Pieces) else answer
    except TimedOut:
        raise Unavailable("the store did not answer in time; nothing was stored, try again") from None


def _commit(later: Later[None]) -> Generator[Later[Any] | None, Any, None]:
    try:
        yield later
    except TimedOut:
        raise OutcomeUnknown("the store did not answer in time; the change may or may not have been stored") from None
