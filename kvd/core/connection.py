"""A connection without its transport: bytes in, replies out, a turn at a time."""

from __future__ import annotations

from typing import Final

from kvd.core.codec import Codec
from kvd.core.output import MOST_HELD, Output
from kvd.core.session import Session
from kvd.interfaces import Later

TURN_REQUESTS: Final = 256
TURN_BYTES: Final = 64 * 1024
TURN_TIME: Final = 0.002

SMALL: Final = 8 * 1024
LARGE: Final = 64 * 1024
"""Who sends more bytes than this at once has to wait for a turn; while turns are slow, more than SMALL is enough."""

SLOW_TURN: Final = 0.0005
"""A connection whose turn took more seconds than this has its next ones after others', for a while."""

PENALTY: Final = 20
"""That while, as a multiple of what the turn took."""


class Connection:
    """What a client has sent and has no answer yet, and when it is answered.

    :param session: runs the requests.
    :param codec: cuts and prints them.
    :param output: takes the replies of each turn.
    :ivar reading: whether what arrives may be answered; if not, it is only kept.
    :ivar waiting: what the last turn ended with, if that must be waited for.
    :ivar late: whether it has to wait for its turn.
    :ivar active: when it last had a turn.
    :ivar line_since: since when the end of a request is awaited; None: none has begun.
    :ivar spoken: whether a whole request has arrived.
    :ivar closed: whether what still arrives is dropped.
    """

    def __init__(self, session: Session, codec: Codec, output: Output) -> None:
        self.session: Final = session
        self.codec: Final = codec
        self._output: Final = output
        output.released = self._released
        self._server: Final = session.server
        self._seconds: Final = session.server.seconds
        self.reading = True
        self.waiting: Later[None] | None = None
        self.late = False
        self.active: float = self._seconds()
        self.line_since: float | None = None
        self.spoken = False
        self.closed = False
        self._late_until: float = 0.0  # until when its turns come after others', because one took long; 0: they don't

    def take(self, data: bytes) -> bool:
        """Take in what has arrived, and answer it if it may have its turn now.

        :return: whether there is more to see to.
        """
        if self.closed:
            return False
        at_once = self._receive(data)
        if not self.reading:
            return True
        if not at_once:
            self.late = True
            return True
        self.waiting = self.turn()
        return self.waiting is not None or not self._idle()

    def _receive(self, data: bytes) -> bool:
        """Take in what has arrived; whether it may have its turn before others had theirs."""
        codec = self.codec
        whole = codec.feed(data)
        if whole:
            self.spoken = True
        if not codec.unfinished():
            self.line_since = None
        elif self.line_since is None or whole:
            self.line_since = self._seconds()
        if self._late_until and self._late_until < self._seconds():
            self._late_until = 0.0
        if self._late_until or len(data) > LARGE:
            return False
        return len(data) <= SMALL or self._server.slow_until < self._seconds()

    def reads_again(self) -> None:
        """The end of a request could not come while nothing was read from the client."""
        if self.codec.unfinished():
            self.line_since = self._seconds()

    def _idle(self) -> bool:
        """Whether nothing is left to do after a turn, but to wait until what is held is durable."""
        output = self._output
        if not self.reading or self.session.closing or output.held > MOST_HELD or self.codec.bytes_held():
            return False
        self._account(output.held)
        return True

    def _released(self) -> bool:
        """Something that was held was sent; whether nothing waited for that."""
        if not self.reading or self.closed:
            return False
        self.active = self._seconds()
        self._account(self.codec.bytes_held() + self._output.held)
        return True

    def _account(self, held: int) -> None:
        """Hold what the buffers take now."""
        buffers = self.session.buffers
        before = buffers.held
        if held != before:
            buffers.set(held)
            if held > before:
                self._server.budget.relieve()

    def turn(self) -> Later[None] | None:
        """Answer waiting requests in order until the turn is over: after so many, bytes of replies, or seconds.

        :return: what must be waited for before the turn goes on.
        """
        self.active = began = self._seconds()
        codec = self.codec
        session = self.session
        store = self._server.store
        store.seen = 0
        waiting: Later[None] | None = None
        number = min(codec.cut(), TURN_REQUESTS)
        done = 0
        while done < number and codec.size < TURN_BYTES:
            done += 1
            quick = session.transaction is None
            waiting = codec.answer(session)
            if self.closed:  # it was evicted, with all that waited: memory was short
                return waiting
            if waiting is not None:
                break
            if session.closing:
                codec.clear()
                break
            # After short plain commands, the clock is looked at now and then.
            if (done & 3 == 0 or not (quick and codec.quick)) and self._seconds() - began > TURN_TIME:
                break
        if codec.size:
            self._output.send(codec.take(), store.seen)
        now = self._seconds()
        if now - began > SLOW_TURN:
            self._late_until = self._server.slow_until = now + PENALTY * (now - began)
        return waiting
