"""Which reactor runs: asyncio's, on uvloop's event loop where there is one."""

from __future__ import annotations

import asyncio
import sys

from twisted.internet import asyncioreactor


def install_reactor() -> None:
    """Install the asyncio reactor, on uvloop's loop where there is one, unless a reactor is installed already."""
    if "twisted.internet.reactor" in sys.modules:
        return
    loop: asyncio.AbstractEventLoop
    try:
        import uvloop
    except ImportError:
        loop = asyncio.SelectorEventLoop()
    else:
        loop = uvloop.new_event_loop()
    asyncioreactor.install(loop)


def transport_name(reactor: object) -> str:
    """What serves connections under this reactor: ``uvloop``, ``asyncio`` or ``Twisted's EPollReactor``, say."""
    if isinstance(reactor, asyncioreactor.AsyncioSelectorReactor):
        return type(reactor._asyncioEventloop).__module__.partition(".")[0]
    return f"Twisted's {type(reactor).__name__}"
