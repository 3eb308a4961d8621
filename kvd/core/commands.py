"""The command table, the gate in front of it, and the way from a line to its reply.

What a command does is in :mod:`kvd.core.handlers`, and how its arguments are checked in :mod:`kvd.core.arguments`. None of them
knows bytes or a transport, and only :mod:`kvd.core.session` knows whether a transaction is open.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, Final

from kvd import wire
from kvd.core import arguments, handlers
from kvd.core.command import Command
from kvd.core.session import Reply, Session, Steps, aborted, expired, no_transaction
from kvd.core.transaction import Transaction
from kvd.errors import BadRequest, Internal, KvdError, ReadOnly, SpeaksHttp, UnknownCommand
from kvd.wire import Word, shown


class Help(Command):
    def check(self, words: list[Word]) -> Any:
        return arguments.topic(self.usage, words)

    def run(self, session: Session, args: Any) -> Reply:
        if args is None:
            return wire.result({command.usage: command.help for command in ROWS})
        command = next((row for row in ROWS if row.name == args), None)
        if command is None:
            raise unknown(args)
        return wire.result(f"{command.usage}: {command.help}")


# fmt: off

START: Final = handlers.Start("START [READONLY]", "open a transaction on this connection")
ROLLBACK: Final = handlers.Rollback(
    "ROLLBACK", "end the transaction and drop its changes",
    needs_transaction=True, when_doomed=True, when_expired=True,
)
ROLLBACK_TO: Final = handlers.RollbackTo(
    "ROLLBACK TO name", "drop what was changed since the savepoint, and go on",
    name="ROLLBACK TO", needs_transaction=True, when_doomed=True,
)

ROWS: Final[list[Command]] = [
    handlers.Put(
        "PUT key value", "store the value, which is all that stands behind the key, to the end of the line",
        writes=True,
    ),
    handlers.Get("GET key", "the value, or null"),
    handlers.Delete("DEL key", "remove the key; no error if there is none", writes=True),
    START,
    handlers.Commit(
        "COMMIT", "store all changes of the transaction at once, or none of them",
        needs_transaction=True, when_doomed=True, when_expired=True,
    ),
    ROLLBACK,
    handlers.Savepoint("SAVEPOINT name", "set a point in the transaction to go back to", needs_transaction=True),
    ROLLBACK_TO,
    handlers.Release("RELEASE name", "forget the savepoint, and keep the changes", needs_transaction=True),
    handlers.Check(
        "CHECK", "would the transaction commit now? what has it read and written?",
        needs_transaction=True, when_doomed=True,
    ),
    handlers.Mget("MGET key…", "a list of values and nulls, of one instant"),
    handlers.Exists("EXISTS key", "true or false"),
    handlers.Incr(
        "INCR key [delta]", "add to an integer (nothing counts as 0) and answer the sum", writes=True
    ),
    handlers.Cas(
        "CAS key expected new", "store new if the key holds expected, and answer whether it did", writes=True
    ),
    handlers.ScanPage(
        "SCAN [PREFIX p] [FROM key] [TO key] [LIMIT n] [REVERSE] [KEYS]",
        "pairs in the order of their keys, from FROM up to but without TO; "
        "next is where the following page begins (with REVERSE, where it ends)",
    ),
    handlers.CountKeys("COUNT [PREFIX p]", "how many keys there are"),
    handlers.Ping("PING [text]", "PONG, or the text", when_doomed=True, when_expired=True),
    handlers.Info(
        "INFO [section]", "what the server is and does: server, clients, store, transactions, commands",
        when_doomed=True, when_expired=True,
    ),
    Help("HELP [command]", "what there is", when_doomed=True, when_expired=True),
    handlers.Quit(
        "QUIT", "roll back, answer, and close the connection", when_doomed=True, when_expired=True
    ),
]
# fmt: on

COMMANDS: Final = {row.name: row for row in ROWS}
for number, row in enumerate(ROWS):
    row.number = number


def unknown(name: str) -> UnknownCommand:
    """The error for a name that is none, with the nearest one that is."""
    near = get_close_matches(name.upper()[:20], COMMANDS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else "HELP lists the commands"
    return UnknownCommand(f"there is no command {shown(name)}; {hint}")


# From a line to its reply.


def gate(command: Command, txn: Transaction) -> None:
    """Refuse a command that the state of its connection's transaction does not allow."""
    if txn.expired is not None:
        if not command.when_expired:
            raise expired(txn)
    elif txn.doomed is not None:
        if not command.when_doomed:
            raise aborted(txn)
    elif command.writes and txn.read_only:
        raise ReadOnly(f"{command.name} changes something, and this transaction was started READONLY; ROLLBACK it")


def answer(session: Session, line: str) -> Reply:
    """Run one request.

    :return: its reply, which is empty for a blank line; or the steps to it, if the store answers later.
    """
    command: Command | None = None
    try:
        name, words = wire.parse(line)
        txn = session.transaction
        command = COMMANDS.get(name)
        if command is None:
            if not line.strip(" "):
                return ""
            raise unknown(name) if txn is None or txn.expired is None else expired(txn)
        if command is ROLLBACK and words:
            command = ROLLBACK_TO
        if txn is not None:
            gate(command, txn)
        elif command.needs_transaction:
            raise no_transaction()
        calls = session.shared.calls
        calls[command.number] = calls[command.number] + 1  # += is slower, compiled
        reply = command.run(session, command.check(words))
        return reply if isinstance(reply, str) else _finish(session, command, reply)
    except SpeaksHttp as error:
        return refuse(session, error, was_start=False)
    except BadRequest as error:
        return refuse(session, error, looks_like_start(line))
    except KvdError as error:
        return refuse(session, error, command is START)
    except Exception:
        session.shared.fault()
        return refuse(session, internal(command), command is START)


def _finish(session: Session, command: Command, steps: Any) -> Steps:
    """Go the steps to the reply, and see to what goes wrong on the way."""
    session.waiting = True
    try:
        reply: str = yield from steps
        return reply
    except KvdError as error:
        return refuse(session, error, command is START)
    except Exception:
        session.shared.fault()
        return refuse(session, internal(command), command is START)
    finally:
        session.waiting = session.committing = False


def internal(command: Command | None) -> Internal:
    """The error for a fault of the server."""
    told = "a fault of the server, which its log tells more about"
    if command is not None and (command.writes or command.name == "COMMIT"):
        return Internal(f"{told}; the change may or may not have been stored")
    return Internal(f"{told}; nothing was changed")


_START: Final = re.compile(r' *(\[\s*")?START\b', re.IGNORECASE | re.ASCII)


def looks_like_start(line: str) -> bool:
    """Whether a line that can't be read was probably meant for a START; what follows it counts on that."""
    return _START.match(line) is not None


def refuse(session: Session, error: KvdError, was_start: bool) -> str:
    """The reply that tells of an error. A refused START leaves a doomed transaction open."""
    if was_start and session.transaction is None:
        session.open_doomed(error)
    return session.refuse(error)
