"""What a store is started with, where there is no daemon."""

from __future__ import annotations

from collections import deque

from twisted.internet.task import Clock

from kvd.accounts import Budget
from kvd.interfaces import Host, ServerClock


def host(limit: int = 0) -> Host:
    """What a daemon offers whose memory is limited to so many bytes; 0: it is not."""
    clock = Clock()
    return Host(
        clock,
        clock.seconds,
        lambda call: clock.callLater(0, call),
        lambda call: clock.callLater(0, call),
        lambda line: None,
        0.0,
        Budget(limit),
        (3600.0, 600.0),
        lambda: None,
        lambda why: None,
        lambda steps: deque(steps, maxlen=0).clear(),
        ServerClock(lambda: int(clock.seconds() * 1000 + 0.001), 0),
    )
