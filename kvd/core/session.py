"""Sessions: what the server knows of each client, and what all of them share.

A session has at most one open transaction. How commands run in it is in :mod:`kvd.core.execution`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvd.accounts import Account, Budget
from kvd.core.limits import Limits
from kvd.core.transaction import Transaction
from kvd.errors import Aborted, InTransaction, NoTransaction, TooLarge, TransactionExpired
from kvd.interfaces import ServerClock, Snapshot, Store, Writes

SESSION_BYTES: Final = 10 * 1024
"""What a connection takes in memory while it does nothing."""


class Server:
    """What the sessions of a server share.

    :param store: what it serves.
    :param seconds: tells the time; it never goes back.
    :param limits: what protects it.
    :param fault: logs the exception that is being handled.
    :param about: the section "server" of INFO.
    :param resident: what the process takes in memory.
    :param clock: the time by which keys end.
    :ivar sessions: those that are open, by id.
    :ivar expected: how many connections were accepted that have no session yet.
    :ivar calls: how often each command was called, by its number in the command table.
    :ivar errors: how often each code was answered.
    :ivar transactions: how many are open, and how many ended in which way.
    :ivar slow_until: the end of the time for which large batches wait, because somebody's turn took long.
    """

    def __init__(
        self,
        store: Store,
        seconds: Callable[[], float],
        limits: Limits,
        fault: Callable[[], None],
        about: Callable[[], dict[str, Any]],
        resident: Callable[[], int],
        clock: ServerClock,
    ) -> None:
        self.store: Final = store
        self.seconds: Final = seconds
        self.limits: Final = limits
        self.fault = fault
        self.about = about
        self._resident: Final = resident
        self.clock: Final = clock
        self.budget: Final = Budget(limits.memory)
        self.sessions: dict[int, Session] = {}
        self.expected = 0
        self.accepted = 0
        self.refused = 0
        self.dropped = 0
        self.calls = [0] * 64
        self.errors: dict[str, int] = {}
        self.transactions = {"open": 0, "committed": 0, "conflicts": 0, "rolled_back": 0, "expired": 0}
        self.slow_until: float = float("-inf")

    def open(self, address: str, drop: Callable[[str], None]) -> Session:
        """A session for a new connection.

        :param address: where the client is, for people.
        :param drop: ends the connection, for the reason given.
        """
        self.accepted += 1
        session = Session(self.accepted, self, address, drop)
        self.sessions[session.id] = session
        return session

    def full(self) -> bool:
        """Whether one more client would be too many."""
        return len(self.sessions) + self.expected >= self.limits.clients > 0

    def expire(self, now: float) -> None:
        """End the transactions that have been idle, or open, for too long."""
        for session in list(self.sessions.values()):
            session.expire(now)

    def info(self) -> dict[str, dict[str, Any]]:
        """The sections of INFO but for "commands": figures by name, as JSON values."""
        limits = self.limits
        return {
            "server": self.about(),
            "clients": {
                "connected": len(self.sessions),
                "accepted": self.accepted,
                "refused": self.refused,
                "dropped": self.dropped,
                "limit": limits.clients,
                "line_time_limit": limits.line_time,
                "idle_time_limit": limits.idle_time,
            },
            "store": {
                "name": self.store.name,
                "promise": self.store.promise,
                **self.store.info(),
                "memory": self.budget.used,
                "memory_limit": limits.memory,
                "resident": self._resident(),
            },
            "transactions": {
                **self.transactions,
                "idle_limit": limits.transaction_idle,
                "time_limit": limits.transaction_time,
                "keys_limit": limits.transaction_keys,
                "bytes_limit": limits.transaction_bytes,
            },
        }


class Session:
    """One client.

    :param number: the id by which other clients know it.
    :param address: where it is, for people.
    :param drop: ends its connection, for the reason given.
    :ivar user: who it is; None if nobody has logged in.
    :ivar transaction: the open one.
    :ivar buffers: the account of the connection's input and output.
    :ivar closing: the connection ends after the reply to the present request.
    :ivar waiting: a request waits for the store.
    :ivar committing: it is a commit, which must be left to finish.
    """

    def __init__(self, number: int, server: Server, address: str, drop: Callable[[str], None]) -> None:
        self.id: Final = number
        self.server: Final = server
        self.address: Final = address
        self.user: str | None = None
        self.transaction: Transaction | None = None
        self.buffers: Final = Account(server.budget.buffers, drop)
        self.closing = False
        self.waiting = False
        self.committing = False
        self._held: Final = Account(server.budget.transactions, self.end_transaction)
        self._itself: Final = Account(server.budget.sessions)
        self._itself.set(SESSION_BYTES)

    # The transaction.

    def opened(self) -> Transaction:
        """The open transaction.

        :raise kvd.errors.NoTransaction: there is none.
        """
        if self.transaction is None:
            raise no_transaction()
        return self.transaction

    def may_open(self) -> None:
        """See that a transaction may be opened.

        :raise kvd.errors.InTransaction: one is open.
        """
        if self.transaction is not None:
            raise InTransaction("a transaction is open on this connection; COMMIT or ROLLBACK it first")

    def open(self, snapshot: Snapshot, read_only: bool) -> Transaction:
        """Open a transaction on a snapshot."""
        self.transaction = Transaction(snapshot, read_only, self.server.seconds())
        self.server.transactions["open"] += 1
        return self.transaction

    def leave(self) -> Transaction:
        """The open transaction, which is over from now on."""
        txn = self.opened()
        self.transaction = None
        self.server.transactions["open"] -= 1
        return txn

    def hold(self, txn: Transaction | None) -> None:
        """Hold the memory that a transaction takes; None: nothing."""
        self._held.set(0 if txn is None else txn.bytes)

    def account(self, txn: Transaction, writes: Writes | None) -> None:
        """Hold what the transaction has come to take, and see that it stays within its limits.

        :param writes: what it has just written.
        """
        if txn.bytes != self._held.held:
            self._held.set(txn.bytes)
        limits = self.server.limits
        number = len(txn.reads) + len(txn.writes)
        if number > limits.transaction_keys > 0:
            raise TooLarge(
                f"the transaction reads and writes {number} keys; at most {limits.transaction_keys} are allowed"
            )
        if txn.bytes > limits.transaction_bytes > 0:
            raise TooLarge(f"the transaction takes {txn.bytes} bytes; at most {limits.transaction_bytes} are allowed")
        budget = self.server.budget
        if budget.used > budget.calm:
            budget.relieve()
            if txn.expired is not None:
                raise expired(txn)
            if writes is not None:
                self.server.store.admit(writes)

    def expire(self, now: float) -> None:
        """End the transaction if it has been idle, or open, for too long."""
        txn = self.transaction
        if txn is None or txn.expired is not None or self.waiting:
            return
        limits = self.server.limits
        if now - txn.used > limits.transaction_idle > 0:
            self.end_transaction(f"it was idle for more than {limits.transaction_idle:g} seconds")
        elif not txn.read_only and now - txn.started > limits.transaction_time > 0:
            self.end_transaction(f"it was open for more than {limits.transaction_time:g} seconds")

    def end_transaction(self, why: str) -> None:
        """End the transaction from the server's side. What is left of it tells the client why."""
        txn = self.transaction
        if txn is not None and txn.expired is None:
            txn.expired = why
            self.server.transactions["expired"] += 1
            txn.forget()
            self.hold(None)

    def rollback(self) -> None:
        """End the transaction, and drop what it wrote."""
        txn = self.leave()
        if txn.expired is None:
            self.server.transactions["rolled_back"] += 1
            txn.forget()
            self.hold(None)

    def close(self) -> None:
        """The connection has ended: roll back. A second call does nothing."""
        if self.transaction is not None:
            self.rollback()

    def gone(self) -> None:
        """The connection is gone, and with it everything that was kept for it."""
        self.close()
        del self.server.sessions[self.id]
        self.buffers.close()
        self._held.close()
        self._itself.close()


def no_transaction() -> NoTransaction:
    """The error of a command that has no meaning outside a transaction."""
    return NoTransaction("no transaction is open on this connection; START one first")


def expired(txn: Transaction) -> TransactionExpired:
    """The error of a transaction that the server ended."""
    return TransactionExpired(f"the server ended this transaction: {txn.expired}; ROLLBACK, then START again")


def aborted(txn: Transaction) -> Aborted:
    """The error of an aborted transaction."""
    return Aborted(f"nothing of this transaction can be stored, because a command failed ({txn.aborted}); ROLLBACK it")
