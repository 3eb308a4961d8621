"""The short way in: what the event loop has received goes straight to a connection, without Twisted in between.

An asyncio transport only needs an object with the methods of a protocol. This one is compiled, and so is everything
from here to the reply. Whatever is not plain requests and replies is left to the Twisted transport and protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvd.core.connection import Connection


class Lane:
    """The protocol of an asyncio transport.

    :param connection: what the bytes are for.
    :param see_to: is called when a connection has more to be seen to than the replies of a turn.
    :param transport: :class:`kvd.daemon.transport.LoopTransport`, for everything else.
    """

    def __init__(self, connection: Connection, see_to: Callable[[], None], transport: Any) -> None:
        self._connection: Final = connection
        self._see_to: Final = see_to
        self._transport: Final = transport

    def data_received(self, data: bytes) -> None:
        """The client has sent something."""
        if self._connection.reading:
            try:
                if self._connection.take(data):
                    self._see_to()
            except Exception:
                self._transport.fail()
        else:
            self._transport.data_received(data)

    def eof_received(self) -> Any:
        """The client sends no more."""
        return self._transport.eof_received()

    def pause_writing(self) -> None:
        """Much waits to be sent."""
        self._transport.pause_writing()

    def resume_writing(self) -> None:
        """Most of it is sent."""
        self._transport.resume_writing()

    def connection_lost(self, exc: Any) -> None:
        """The connection is closed."""
        self._transport.connection_lost(exc)
