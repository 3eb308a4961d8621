"""How a command runs: ask the store, apply, write, account; in the open transaction, or as a transaction of its own.

There is one procedure: :func:`_attempt` asks, and :func:`_apply` does the rest once the answer is there. Where the
store answers later, the same two run inside the steps of a :class:`~kvd.interfaces.Later`. A plain command, which is a
transaction of its own, is attempted until it meets no conflict.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from kvd.accounts import Account
from kvd.core.command import Command
from kvd.core.session import Session, aborted, expired
from kvd.core.transaction import Transaction
from kvd.errors import Conflict, OutcomeUnknown, Unavailable
from kvd.interfaces import Ends, Later, Outcome, Reads, Receipt, Scan, Snapshot, TimedOut, Wanted

Steps = Generator[Any, Any, Any]

CONFLICTS_SHOWN: Final = 100
"""The most keys that CHECK names."""


def run(session: Session, command: Command, args: Any) -> Any:
    """Run a command.

    :param args: what its ``check`` made of the words.
    :return: its result, or a Later for it.
    :raise kvd.errors.KvdError: what the client is told instead.
    """
    txn = session.transaction
    if command.is_data:
        if txn is not None:
            txn.used = session.server.seconds()
            return _attempt(session, command, args, txn, txn.snapshot)
        try:
            result = _attempt(session, command, args, None, session.server.store.latest())
        except Conflict:
            return Later(_repeat(session, command, args, None))
        return Later(_repeat(session, command, args, result)) if isinstance(result, Later) else result
    result = command.run(session, args)
    if command.needs_transaction and txn is not None and txn is session.transaction:
        txn.used = session.server.seconds()
        if txn.aborted is None:
            session.account(txn, None)
    return result


# Data commands.


def _attempt(session: Session, command: Command, args: Any, txn: Transaction | None, view: Snapshot) -> Any:
    """Run a data command once; its result, or a Later for it.

    :param txn: the open transaction; None if the command is one of its own.
    :param view: what it reads from.
    """
    wanted = command.reads(args)
    if wanted is None:
        return _apply(session, command, args, txn, view, None, None)
    answer = fetch(view, wanted if txn is None else txn.missing(wanted))
    if isinstance(answer, Later):
        return Later(_apply_later(session, command, args, txn, view, wanted, answer))
    return _apply(session, command, args, txn, view, wanted, answer)


def _apply_later(
    session: Session,
    command: Command,
    args: Any,
    txn: Transaction | None,
    view: Snapshot,
    wanted: Wanted,
    waiting: Later[Any],
) -> Steps:
    answered = False
    try:
        answer = yield from read(waiting)
        answered = True
    except Unavailable:
        if txn is not None and txn.expired is not None:  # that is why
            raise expired(txn) from None
        raise
    finally:
        if txn is None and not answered:
            view.close()
    if txn is not None:
        txn.used = session.server.seconds()
        if txn.expired is not None:
            raise expired(txn)
    result = _apply(session, command, args, txn, view, wanted, answer)
    return (yield from result.steps) if isinstance(result, Later) else result


def _apply(
    session: Session,
    command: Command,
    args: Any,
    txn: Transaction | None,
    view: Snapshot,
    wanted: Wanted | None,
    answer: Any,
) -> Any:
    """Apply a command to what the store answered, and write; its result, or a Later for it."""
    if txn is not None:
        seen = answer if wanted is None else txn.overlay(wanted, answer)
        if command.is_timed:
            result, writes = command.apply_at(args, seen, session.server.clock.now())
        else:
            result, writes = command.apply(args, seen)
        if writes is not None:
            txn.write(writes)
        session.account(txn, writes)
        return result
    try:
        if command.is_timed:
            result, writes = command.apply_at(args, answer, session.server.clock.now())
        else:
            result, writes = command.apply(args, answer)
    except BaseException:
        view.close()
        raise
    if writes is None:
        view.close()
        return result
    done = view.commit(() if wanted is None else read_set(wanted), writes, session.id)
    return result if done is None else Later(_committed(session, done, result))


def read_set(wanted: Wanted) -> Reads:
    """What a plain command has read."""
    if isinstance(wanted, list):
        return wanted
    return wanted.keys if isinstance(wanted, Ends) else [wanted.range]


def _repeat(session: Session, command: Command, args: Any, result: Any) -> Steps:
    """Attempt a plain command until it meets no conflict.

    :param result: what the first attempt came to, if it met none yet.
    """
    server = session.server
    deadline = server.seconds() + server.limits.store_wait
    first = isinstance(result, Later)
    while True:
        try:
            if not first:
                result = _attempt(session, command, args, None, server.store.latest())
            first = False
            return (yield from result.steps) if isinstance(result, Later) else result
        except Conflict:
            if server.seconds() >= deadline:
                raise Unavailable(
                    f"other clients changed what this command reads for {server.limits.store_wait:g} seconds "
                    "without a gap; nothing was stored, try again"
                ) from None
            yield None


# Transactions.


def start(session: Session, read_only: bool) -> Any:
    """START: open a transaction."""
    session.may_open()
    snapshot = session.server.store.snapshot(session.end_transaction)
    if isinstance(snapshot, Later):
        return Later(_start_later(session, snapshot, read_only))
    session.open(snapshot, read_only)
    return None


def _start_later(session: Session, waiting: Later[Snapshot], read_only: bool) -> Steps:
    session.open((yield from read(waiting)), read_only)


def commit(session: Session, name: str | None) -> Any:
    """COMMIT: store what the transaction wrote, all or nothing.

    :param name: of the receipt; None: there is none.
    """
    counts = session.server.transactions
    txn = session.leave()
    session.hold(None)  # its writes are about to be held as data
    done: Later[None] | None = None
    try:
        if txn.expired is not None:
            raise expired(txn)
        if txn.aborted is not None:
            counts["rolled_back"] += 1
            raise aborted(txn)
        if txn.writes or name is not None:
            receipt = None if name is None else Receipt(session.user, name)
            # What wrote nothing always commits.
            done = txn.snapshot.commit(txn.reads if txn.writes else (), txn.writes, session.id, receipt)
    except Conflict:
        counts["conflicts"] += 1
        raise
    finally:
        if done is None:
            txn.forget()
    if done is not None:
        return Later(_commit_later(session, done, txn))
    counts["committed"] += 1
    return None


def _commit_later(session: Session, done: Later[None], txn: Transaction) -> Steps:
    server = session.server
    account = Account(server.budget.transactions)
    account.set(txn.bytes)
    try:
        yield from _committed(session, done, None)
    except Conflict:
        server.transactions["conflicts"] += 1
        raise
    finally:
        account.set(0)
    server.transactions["committed"] += 1


def check(session: Session) -> Any:
    """CHECK: would the transaction commit now?"""
    txn = session.opened()
    if not txn.writes:
        return _checked(session, txn, [])
    found = txn.snapshot.conflicts(txn.reads, CONFLICTS_SHOWN)
    return Later(_check_later(session, txn, found)) if isinstance(found, Later) else _checked(session, txn, found)


def _check_later(session: Session, txn: Transaction, waiting: Later[Any]) -> Steps:
    found = yield from read(waiting)
    if txn.expired is not None:
        raise expired(txn)
    return _checked(session, txn, found)


def _checked(session: Session, txn: Transaction, found: Any) -> dict[str, Any]:
    return {
        "commits": not found and txn.aborted is None,
        "conflicts": [key for key, _ in found],
        "reads": len(txn.reads),
        "writes": len(txn.writes),
        "age": round(session.server.seconds() - txn.started, 3),
    }


def outcome(session: Session, name: str) -> Any:
    """OUTCOME: what became of a COMMIT with a receipt."""
    found = session.server.store.outcome(Receipt(session.user, name))
    return Later(_outcome_later(found)) if isinstance(found, Later) else found


def _outcome_later(found: Later[Outcome]) -> Steps:
    try:
        return (yield from found.steps)
    except TimedOut:
        raise Unavailable("the store did not answer in time; the outcome is not settled, ask again") from None


# Asking the store.


def fetch(view: Snapshot, wanted: Wanted) -> Any:
    """Ask a store; the answer, or a Later for it."""
    if isinstance(wanted, list):
        return view.read(wanted) if wanted else wanted
    if isinstance(wanted, Ends):
        return view.read_with_ends(wanted.keys) if wanted.keys else wanted.keys
    if isinstance(wanted, Scan):
        return view.scan(wanted)
    return view.count(wanted)


def read(waiting: Later[Any]) -> Steps:
    """Wait for what a store reads."""
    try:
        return (yield from waiting.steps)
    except TimedOut:
        raise Unavailable("the store did not answer in time; nothing was stored, try again") from None


def _committed(session: Session, done: Later[None], result: Any) -> Steps:
    """Wait for a commit, which nobody may break off; then there is a result."""
    session.committing = True
    try:
        yield from done.steps
    except TimedOut:
        raise OutcomeUnknown("the store did not answer in time; the change may or may not have been stored") from None
    finally:
        session.committing = False
    return result
