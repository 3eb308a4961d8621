"""kvd's own protocol: lines, for people and programs. docs/protocol.md describes it."""

from __future__ import annotations

from twisted.protocols.basic import LineReceiver

from kvd.core.lines import LineCodec
from kvd.daemon.service import StoreService
from kvd.daemon.stream import StreamFactory, StreamProtocol
from kvd.wire import MAX_LINE


class LineProtocol(StreamProtocol, LineReceiver):
    """A LineReceiver, of which only this is used: ``delimiter`` and ``sendLine``, by whoever derives from it.

    Its cutting is not: it takes time quadratic in the length of a batch, it drops a line that is too long together with
    its connection, and it hands over one line at a time. :class:`kvd.core.lines.LineCodec` cuts instead.
    """

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE


def factory(service: StoreService) -> StreamFactory:
    """The protocol of ``--listen line=…`` and of ``--port``."""
    return StreamFactory(service, LineCodec, LineProtocol)
