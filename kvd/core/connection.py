"""A connection without its transport: bytes in, replies out, a turn at a time."""

from __future__ import annotations

from typing import Final

from kvd.core.commands import answer, looks_like_start, refuse
from kvd.core.lines import LineBuffer
from kvd.core.session import Session, Steps

TURN_REQUESTS: Final = 256
TURN_BYTES: Final = 64 * 1024
TURN_TIME: Final = 0.002

QUICK: Final = 1024
"""Characters of a line that takes, outside a transaction, too little time to look at the clock behind each."""

SMALL: Final = 8 * 1024
LARGE: Final = 64 * 1024
"""Who sends more bytes than this at once has to wait for a turn; while turns are slow, more than SMALL is enough."""

SLOW_TURN: Final = 0.0005
"""A connection whose turn took more seconds than this has its next ones behind others', for a while."""

PENALTY: Final = 20
"""That while, as a multiple of what the turn took."""


class Connection:
    """What a client has sent and has no answer yet, and when it is answered.

    :param session: answers it.
    :ivar active: when it last had a turn.
    :ivar line_since: since when a line is awaited, or its end; None: no line is.
    """

    def __init__(self, session: Session) -> None:
        self.session: Final = session
        self.input: Final = LineBuffer()
        self._seconds: Final = session.shared.seconds
        self.active: float = self._seconds()
        self.line_since: float | None = self.active
        self._behind: float = 0.0  # until when its turns are behind others', for one took long; 0: they are not

    def receive(self, data: bytes) -> bool:
        """Take in what has arrived.

        :return: whether it may have its turn now; if not, it has to wait behind others.
        """
        self.input.feed(data)
        if not self.input.unfinished:
            self.line_since = None
        elif self.line_since is None or b"\n" in data:
            self.line_since = self._seconds()
        if self._behind and self._behind < self._seconds():
            self._behind = 0.0
        if self._behind or len(data) > LARGE:
            return False
        return len(data) <= SMALL or self.session.shared.slow_until < self._seconds()

    def reads_again(self) -> None:
        """The end of a line could not come while nothing was read from the client."""
        if self.input.unfinished:
            self.line_since = self._seconds()

    def turn(self) -> tuple[bytes, Steps | None]:
        """Answer waiting lines in order until the turn is over: after so many requests, bytes of replies, or seconds.

        :return: the replies, and the steps to a reply that must be waited for before the turn goes on.
        """
        self.active = began = self._seconds()
        self.input.cut()
        lines = self.input.lines
        session = self.session
        steps: Steps | None = None
        replies: list[str] = []
        size = 0
        most = TURN_REQUESTS
        while lines and most and size < TURN_BYTES:
            most -= 1
            line = self.input.next_line()
            if isinstance(line, str):
                quick = len(line) <= QUICK and session.transaction is None  # then the clock is looked at now and then
                reply = answer(session, line)
                if not isinstance(reply, str):
                    steps = reply
                    break
            else:
                quick = False
                reply = refuse(session, line.error, looks_like_start(line.head))
            replies.append(reply)
            size += len(reply)
            if session.closing:
                lines.clear()
            elif lines and (not quick or not most & 3) and self._seconds() - began > TURN_TIME:
                break
        now = self._seconds()
        if now - began > SLOW_TURN:
            self._behind = session.shared.slow_until = now + PENALTY * (now - began)
        return "".join(replies).encode("ascii"), steps
