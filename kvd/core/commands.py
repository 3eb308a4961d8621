"""The command table, and the gate in front of it.

What a command does is in :mod:`kvd.core.handlers`, how its arguments are checked in :mod:`kvd.core.arguments`, and how
it runs in :mod:`kvd.core.execution`. None of them knows bytes or a transport.
"""

from __future__ import annotations

from typing import Any, Final

from kvd.core import arguments, handlers
from kvd.core.command import (
    FLAG,
    HELP,
    NOTHING,
    NUMBER,
    NUMBER_OR_NULL,
    OBJECT,
    OUTCOME,
    PAGE,
    TEXT,
    TEXTS,
    Command,
    SessionCommand,
)
from kvd.core.names import meant
from kvd.core.session import Session, aborted, expired, no_transaction
from kvd.core.transaction import Transaction
from kvd.errors import BadArguments, ReadOnly, UnknownCommand
from kvd.wire import Word, shown


class Topic(SessionCommand):
    """A command whose argument is the name of something, or nothing."""

    def check(self, words: list[Word]) -> Any:
        return arguments.topic(self.usage, words)


class Help(Topic):
    def run(self, session: Session, args: Any) -> Any:
        if args is None:
            listed = {name: ", ".join([row.usage for row in rows]) for name, rows in topics().items()}
            listed["more"] = "HELP PUT tells about one command, HELP data about a topic"
            return listed
        name: str = args
        topic = topics().get(name.lower())
        if topic is not None:
            return {row.usage: row.help for row in topic}
        command = next((row for row in ROWS if row.name == name), None)
        if command is None:
            raise unknown(name)
        answers = "Ok alone" if command.shape is NOTHING else command.shape.says
        return f"{command.usage}: {command.help}; answers {answers}"


def topics() -> dict[str, list[Command]]:
    """The commands by what they are about."""
    data = [row for row in ROWS if row.is_data]
    transactions = [row for row in ROWS if row.needs_transaction or row is START]
    return {
        "data": data,
        "transactions": transactions,
        "server": [row for row in ROWS if row not in data and row not in transactions],
    }


class Info(Topic):
    def run(self, session: Session, args: Any) -> Any:
        section: str | None = args
        server = session.server
        sections = server.info()
        sections["commands"] = {
            "calls": {row.name: server.calls[row.number] for row in ROWS if server.calls[row.number]},
            "errors": server.errors,
        }
        if section is None:
            return sections
        if section.lower() not in sections:
            raise BadArguments(f"there is no section {shown(section)}; there are {', '.join(sections)}")
        return sections[section.lower()]


# fmt: off

START: Final = handlers.Start("START [READONLY]", "open a transaction on this connection")
ROLLBACK: Final = handlers.Rollback(
    "ROLLBACK", "end the transaction and drop its changes",
    needs_transaction=True, when_aborted=True, when_expired=True,
)
ROLLBACK_TO: Final = handlers.RollbackTo(
    "ROLLBACK TO name", "drop what was changed since the savepoint, and go on",
    name="ROLLBACK TO", needs_transaction=True, when_aborted=True,
)

PUT: Final = handlers.Put(
    "PUT key value",
    "store everything after the key and one space, to the end of the line, quotes included; "
    '["PUT", key, value, seconds] stores a key that ends',
    writes=True,
)
PUT_FOR_TIME: Final = handlers.PutForTime('["PUT", key, value, seconds]', PUT.help, name="PUT", writes=True)

ROWS: Final[list[Command]] = [
    PUT,
    handlers.Get("GET key", "read the value of the key", TEXT),
    handlers.Delete("DEL key", "remove the key; no error if there is none", writes=True),
    START,
    handlers.Commit(
        "COMMIT [receipt]", "store all changes of the transaction at once, or none of them; OUTCOME asks for a receipt",
        needs_transaction=True, when_aborted=True, when_expired=True,
    ),
    handlers.Outcome(
        "OUTCOME receipt", "tell whether the COMMIT with that receipt has happened, or never will", OUTCOME,
        when_aborted=True,
    ),
    ROLLBACK,
    handlers.Savepoint("SAVEPOINT name", "set a point in the transaction to go back to", needs_transaction=True),
    ROLLBACK_TO,
    handlers.Release("RELEASE name", "forget the savepoint and keep the changes", needs_transaction=True),
    handlers.Check(
        "CHECK", "tell whether the transaction would commit now, and how much it has read and written", OBJECT,
        needs_transaction=True, when_aborted=True,
    ),
    handlers.Mget("MGET key...", "read the values of several keys, all at one instant", TEXTS),
    handlers.Exists("EXISTS key", "tell whether there is such a key", FLAG),
    handlers.Incr(
        "INCR key [delta]", "add delta, or 1, to an integer; an absent key counts as 0", NUMBER, writes=True
    ),
    handlers.Cas(
        "CAS key expected new", "store new if the key holds expected, and tell whether it did", FLAG, writes=True
    ),
    handlers.Expire(
        "EXPIRE key seconds", "have the key end that many seconds from now, and tell whether there is one", FLAG,
        writes=True,
    ),
    handlers.ExpireAt(
        "EXPIREAT key milliseconds",
        "have the key end at a time in milliseconds since 1970 UTC, and tell whether there is one", FLAG, writes=True,
    ),
    handlers.Persist("PERSIST key", "have the key not end, and tell whether it would have", FLAG, writes=True),
    handlers.TimeToLive("TTL key", "tell in how many seconds the key ends; null if it does not end", NUMBER_OR_NULL),
    handlers.ScanPage(
        "SCAN [PREFIX p] [FROM key] [TO key] [LIMIT n] [REVERSE] [KEYS or ENDS]",
        "list keys and values in the order of the keys, from FROM up to but not including TO; ENDS adds their ends; "
        "next is where the following page begins (with REVERSE, where it ends)",
        PAGE,
    ),
    handlers.CountKeys("COUNT [PREFIX p]", "count the keys, or those that begin with p", NUMBER),
    handlers.Ping("PING [text]", "answer PONG, or the text", TEXT, when_aborted=True, when_expired=True),
    Info(
        "INFO [section]", "tell about the server: sections server, clients, store, transactions, commands", OBJECT,
        when_aborted=True, when_expired=True,
    ),
    Help("HELP [command]", "list the commands, or tell about one of them", HELP, when_aborted=True, when_expired=True),
    handlers.Quit(
        "QUIT", "roll back, answer, and close the connection", when_aborted=True, when_expired=True
    ),
]
# fmt: on

COMMANDS: Final = {row.name: row for row in ROWS}
for number, row in enumerate(ROWS):
    row.number = number
PUT_FOR_TIME.number = PUT.number


def unknown(name: str) -> UnknownCommand:
    """The error for a name that no command has, with the name that was probably meant."""
    command = meant(name.upper(), COMMANDS)
    hint = "HELP lists the commands" if command is None else f"did you mean {command}?"
    return UnknownCommand(f"there is no command {shown(name)}; {hint}")


def find(session: Session, name: str, words: list[Word]) -> Command:
    """The command of that name, if the state of the session allows it; it is counted.

    :param words: its arguments: ROLLBACK and ROLLBACK TO are two commands, and so are PUT and PUT with seconds.
    """
    txn = session.transaction
    command = COMMANDS.get(name)
    if command is None:
        raise unknown(name) if txn is None or txn.expired is None else expired(txn)
    if command is ROLLBACK and words:
        command = ROLLBACK_TO
    elif command is PUT and len(words) == 3:
        command = PUT_FOR_TIME
    if txn is not None:
        _gate(command, txn)
    elif command.needs_transaction:
        raise no_transaction()
    calls = session.server.calls
    calls[command.number] = calls[command.number] + 1  # += is slower, compiled
    return command


def _gate(command: Command, txn: Transaction) -> None:
    """Refuse a command that the state of the transaction does not allow."""
    if txn.expired is not None:
        if not command.when_expired:
            raise expired(txn)
    elif txn.aborted is not None:
        if not command.when_aborted:
            raise aborted(txn)
    elif command.writes and txn.read_only:
        raise ReadOnly(f"{command.name} changes something, and this transaction was started READONLY; ROLLBACK it")
