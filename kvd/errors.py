"""Every error that a client can get: one class, one code, one sentence; grouped by when it occurs.

The server turns a :class:`KvdError` into one line of JSON, and the clients turn that line back into
the same class. Anything else that is raised inside the server is a fault of the server and reaches
the client as ``INTERNAL``.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KvdError(Exception):
    """The base of all errors of this module.

    :param mesg: one sentence for a person: what was wrong, and what to do.
    :param fields: further fields of the reply, as ``key`` and ``by`` of a conflict.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, mesg: str, /, **fields: Any) -> None:
        super().__init__(mesg)
        self.mesg = mesg
        self.fields = fields


# The line is wrong, whatever the state of the connection.


class BadRequest(KvdError):
    """The line is no UTF-8, or no proper JSON array though it begins with ``[``, or speaks HTTP."""

    code = "BAD_REQUEST"


class SpeaksHttp(BadRequest):
    """The line comes from a browser or was forged through one; the connection is closed behind it."""


class UnknownCommand(KvdError):
    """There is no command of that name."""

    code = "UNKNOWN_COMMAND"


class BadArguments(KvdError):
    """The command was given too few, too many, or the wrong kind of arguments."""

    code = "BAD_ARGUMENTS"


class TooLarge(KvdError):
    """A line, a key, a value, a reply or a transaction is over its limit."""

    code = "TOO_LARGE"


class NotANumber(KvdError):
    """INCR met a value that is no integer, or a sum past 64 bits."""

    code = "NOT_A_NUMBER"


# The command does not fit the state of the transaction.


class InTransaction(KvdError):
    """START, or another command that has no place in a transaction, inside one."""

    code = "IN_TRANSACTION"


class NoTransaction(KvdError):
    """A command that needs an open transaction, outside one."""

    code = "NO_TRANSACTION"


class NoSavepoint(KvdError):
    """The open transaction has no savepoint of that name."""

    code = "NO_SAVEPOINT"


class ReadOnly(KvdError):
    """A command that changes something, in a READONLY transaction."""

    code = "READ_ONLY"


class Aborted(KvdError):
    """An earlier error doomed the transaction: nothing of it can be stored."""

    code = "ABORTED"


class TransactionExpired(KvdError):
    """The server ended the transaction; nothing of it was stored."""

    code = "TXN_EXPIRED"


# COMMIT could not store.


class Conflict(KvdError):
    """Something that the transaction read was changed by another commit; nothing was stored.

    ``fields`` holds ``key`` (the changed key that the transaction read first) and, where the store
    knows it, ``by`` (the id of the client that changed it).
    """

    code = "CONFLICT"


class ReceiptUsed(KvdError):
    """The receipt belongs to another COMMIT already, or was settled by OUTCOME; nothing was stored."""

    code = "RECEIPT_USED"


# The client may not.


class AuthRequired(KvdError):
    """The server has users, and this connection has not logged in."""

    code = "AUTH_REQUIRED"


class AuthFailed(KvdError):
    """Wrong user or password."""

    code = "AUTH_FAILED"


class Forbidden(KvdError):
    """This user may not do that."""

    code = "FORBIDDEN"


# The server can't, at the moment.


class OutOfMemory(KvdError):
    """The store is at its memory limit; reading and deleting still work."""

    code = "OUT_OF_MEMORY"


class Busy(KvdError):
    """The server has as many clients as it may have; the connection is closed."""

    code = "BUSY"


class Idle(KvdError):
    """The server closed a connection that was silent for too long. Nothing sent after its last reply was run."""

    code = "IDLE"


class Unavailable(KvdError):
    """The store, or the server, can't be reached or can't write; surely nothing was stored."""

    code = "UNAVAILABLE"


class OutcomeUnknown(KvdError):
    """The change may or may not have been stored."""

    code = "OUTCOME_UNKNOWN"


class Internal(KvdError):
    """A fault of the server, logged there; after a write the outcome is unknown."""

    code = "INTERNAL"


BY_CODE: dict[str, type[KvdError]] = {error.code: error for error in KvdError.__subclasses__()}
