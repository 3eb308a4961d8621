"""The way out: replies leave in order, once a turn of the event loop, and not before what they tell of is durable.

What a connection has to say is gathered until the loop has read from all who had something to ask; then all of it is
sent. (Sending at once wakes each client while others still wait to be read.) Where the store's commits are applied
before they are durable, replies that rest on one are held until it is; all connections share the sync. Redis does both
in the same way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from kvd.interfaces import Store

MOST_HELD: Final = 64 * 1024
"""Bytes of replies that may wait to be durable before nothing more is read."""

AT_ONCE: Final = 16 * 1024
"""So many bytes are sent without waiting: by the end of the turn they would be out of the processor's cache."""


class Outbox:
    """The outputs of all connections.

    :param store: tells what is durable.
    :param soon: has a function called in the event loop's next turn.
    """

    def __init__(self, store: Store, soon: Callable[[Callable[[], None]], object]) -> None:
        self.store: Final = store
        self._soon: Final = soon
        self._ready: list[Output] = []
        self._holding: dict[Output, None] = {}  # in the order in which they began to

    def add(self, output: Output) -> None:
        """Have an output flushed soon."""
        self._ready.append(output)
        if len(self._ready) == 1:
            self._soon(self.flush)

    def flush(self) -> None:
        """Send what waits for the end of this turn of the event loop."""
        ready, self._ready = self._ready, []
        for output in ready:
            output.flush()

    def hold(self, output: Output) -> None:
        """Have an output look again when more is durable."""
        self._holding[output] = None

    def forget(self, output: Output) -> None:
        """An output holds nothing any more."""
        self._holding.pop(output, None)

    def synced(self) -> None:
        """More is durable than before."""
        for output in list(self._holding):
            output.release()

    def holding(self) -> list[Output]:
        """The outputs that hold something."""
        return list(self._holding)


class Output:
    """What one connection has to say.

    :param transport: sends bytes.
    :param moved: is called when something that was held was sent, unless ``released`` has seen to that.
    :ivar released: is called before; whether it has seen to it.
    :ivar held: bytes that are held until they are durable.
    :ivar before: bytes that the transport was given before the last time.
    :ivar written: bytes that it was given altogether.
    """

    def __init__(self, outbox: Outbox, transport: Any, moved: Callable[[], None]) -> None:
        self._outbox: Final = outbox
        self._store: Final = outbox.store
        self._transport = transport
        self._moved = moved
        self.released: Callable[[], bool] = _not
        self.before = 0
        self.written = 0
        self._ready: list[bytes] = []
        self._held: deque[tuple[int, bytes]] = deque()  # each with the commit that must be durable before
        self.held = 0

    def send(self, data: bytes, seen: int) -> None:
        """Send some replies, after those that are still here.

        :param seen: the commit that they rest on.
        """
        if seen > self._store.durable or self._held:
            if not self._held:
                self._outbox.hold(self)
            self._held.append((seen, data))
            self.held += len(data)
        elif self._ready:
            self._ready.append(data)
        elif len(data) >= AT_ONCE:
            self._write(data)
        else:
            self._ready.append(data)
            self._outbox.add(self)

    def empty(self) -> bool:
        """Whether everything was handed to the transport."""
        return not self._ready and not self._held

    def flush(self) -> None:
        """Send what may be sent."""
        if self._ready:
            data = self._ready[0] if len(self._ready) == 1 else b"".join(self._ready)
            self._ready.clear()
            self._write(data)

    def _write(self, data: bytes) -> None:
        self.before = self.written
        self.written += len(data)
        self._transport.write(data)

    def release(self) -> None:
        """Send what was held, as far as it is durable now."""
        durable = self._store.durable
        before = self.held
        while self._held and self._held[0][0] <= durable:
            data = self._held.popleft()[1]
            self.held -= len(data)
            self._ready.append(data)
        if not self._held:
            self._outbox.forget(self)
        if self.held < before:
            self.flush()
            if not self.released():
                self._moved()

    def close(self) -> None:
        """Drop everything, and send nothing any more."""
        self._transport = None
        self._moved = _nothing
        self.released = _not
        self._ready.clear()
        self._held.clear()
        self.held = 0
        self._outbox.forget(self)


def _nothing() -> None:
    pass


def _not() -> bool:
    return False
