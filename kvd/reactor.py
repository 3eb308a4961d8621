"""Which reactor runs: asyncio's, on uvloop's event loop where there is one, and on monotonic time."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from twisted.internet import asyncioreactor
from twisted.internet.main import installReactor


class MonotonicReactor(asyncioreactor.AsyncioSelectorReactor):
    """The asyncio reactor, whose time a step of the wall clock can't disturb."""

    def seconds(self) -> float:
        """Seconds since some instant in the past."""
        return time.monotonic()


def install_reactor() -> None:
    """Install it, unless a reactor is installed already."""
    if "twisted.internet.reactor" in sys.modules:
        return
    open_standard_streams()
    loop: asyncio.AbstractEventLoop
    try:
        import uvloop
    except ImportError:
        loop = asyncio.SelectorEventLoop()
    else:
        loop = uvloop.new_event_loop()
    installReactor(MonotonicReactor(loop))


def open_standard_streams() -> None:
    """Put the null device where standard input, output or error is closed: what opens next would take its number.

    A daemon's descriptors 0 to 2 are replaced when it goes into the background; none may be the event loop's.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def transport_name(reactor: object) -> str:
    """What serves connections under this reactor: ``uvloop``, ``asyncio`` or ``Twisted's EPollReactor``, say."""
    if isinstance(reactor, asyncioreactor.AsyncioSelectorReactor):
        return type(reactor._asyncioEventloop).__module__.partition(".")[0]
    return f"Twisted's {type(reactor).__name__}"
