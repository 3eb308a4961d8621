"""Drives a server with random transactions, window by window, and checks the record of each window.

A window has its own keys, and no request is under way between two windows. So a long run takes no more memory than
a short one.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from kvd import requests, wire
from kvd.client.link import Link
from kvd.verify.check import Verdict, check
from kvd.verify.client import Client, Unreachable
from kvd.verify.history import COMMITTED, ROLLED_BACK, UNKNOWN, History
from kvd.verify.space import Space
from kvd.verify.workloads import all_of_them

PREFIX: Final = "kvd-verify:"
"""What all keys begin with; a word that no other run has follows."""

WINDOW: Final = 1.5
"""The length of a window, in seconds."""

TRANSACTIONS: Final = 6000
"""The most transactions and plain commands of a window."""

FOCUS: Final = 0.1
"""Seconds for which most clients do the same kind of work, so that they get in each other's way."""

FOCUSED: Final = 0.6
"""The chance that a client does that work."""

PAGE: Final = 500
"""Keys that are removed at once."""


@dataclass
class Figures:
    """What was done.

    :ivar seconds: how long the server was under load.
    :ivar transactions: how many transactions had each outcome.
    :ivar commands: the same for plain commands.
    :ivar codes: how often each error came, by code.
    :ivar undecided: keys of plain commands for which the search for an order was given up.
    """

    seconds: float = 0.0
    transactions: dict[str, int] = field(default_factory=lambda: dict.fromkeys((COMMITTED, ROLLED_BACK, UNKNOWN), 0))
    commands: dict[str, int] = field(default_factory=lambda: dict.fromkeys((COMMITTED, ROLLED_BACK, UNKNOWN), 0))
    codes: dict[str, int] = field(default_factory=dict)
    undecided: int = 0

    @property
    def checked(self) -> int:
        """How many transactions and plain commands there were."""
        return sum(self.transactions.values()) + sum(self.commands.values())

    def add(self, history: History) -> None:
        """Count what a history holds."""
        for each in history.transactions:
            kind = self.commands if each.started is None else self.transactions
            kind[each.outcome] += 1
            if each.code is not None:
                self.codes[each.code] = self.codes.get(each.code, 0) + 1


class Driver:
    """One run against one server.

    :param connect: makes a connection.
    :param clients: how many simulated clients there are.
    :param seed: decides what they do; the network and the server decide when.
    :ivar stopped: nothing new is begun once this is true.
    :ivar trouble: why the server could not be reached; empty if it could.
    """

    def __init__(self, connect: Callable[[], Awaitable[Link]], clock: IReactorTime, clients: int, seed: int) -> None:
        self.prefix = f"{PREFIX}{os.urandom(4).hex()}:"
        self.figures = Figures()
        self.stopped = False
        self.trouble = ""
        self._connect = connect
        self._clock = clock
        self._seed = seed
        self._windows = 0
        numbers = count(1)
        self._clients = [Client(connect, clock, numbers, f"{seed}/{number}") for number in range(clients)]

    async def begin(self) -> None:
        """See that the server is there, and lets its keys be counted.

        :raise Exception: it is not, or does not.
        """
        link = await self._connect()
        reply = await link.send(wire.request("COUNT", "PREFIX", self.prefix))
        link.close()
        requests.result(reply)

    async def run(self, seconds: float, checked: Callable[[History, Verdict], None]) -> tuple[History, Verdict] | None:
        """Load the server, and check.

        :param seconds: how long to load it.
        :param checked: is called after each window.
        :return: the first window with a violation, or None.
        """
        while not self.stopped and self.figures.seconds < seconds:
            history = await self._window(min(WINDOW, seconds - self.figures.seconds))
            self.figures.add(history)
            verdict = check(history)
            self.figures.undecided += len(verdict.undecided)
            checked(history, verdict)
            if verdict.violations:
                return history, verdict
            if not self.trouble:
                await self._tidy(f"{self.prefix}{self._windows}/")
        return None

    async def _window(self, seconds: float) -> History:
        self._windows += 1
        begun, zero = self._clock.seconds(), monotonic()
        history = History(lambda: monotonic() - zero)
        workloads = all_of_them(Space(history, f"{self.prefix}{self._windows}/"), len(self._clients))

        async def work(client: Client) -> None:
            passed = 0.0
            while not self.stopped and passed < seconds and len(history.transactions) < TRANSACTIONS:
                if any(each.met_odd for each in self._clients):
                    break  # that is a violation, and nothing after it can be trusted
                if await self._is_ready(client, history):
                    workload = client.random.choice(workloads)
                    if client.random.random() < FOCUSED:
                        workload = workloads[int(passed / FOCUS) % len(workloads)]
                    await workload.turn(client)
                passed = self._clock.seconds() - begun

        await gatherResults([Deferred.fromCoroutine(work(client)) for client in self._clients])
        self.figures.seconds += self._clock.seconds() - begun
        # Some faults show only after everything has settled.
        if await self._is_ready(self._clients[0], history):
            await gatherResults([look for workload in workloads for look in workload.look_all(self._clients[0])])
        return history

    async def _is_ready(self, client: Client, history: History) -> bool:
        try:
            await client.ready(history)
        except Unreachable as error:
            self.trouble = str(error)
            self.stopped = True
            for each in self._clients:
                each.over = True
            return False
        return True

    async def _tidy(self, prefix: str) -> None:
        """Remove what a window has left; if that fails, :meth:`end` tries again."""
        with suppress(Exception):
            await self._remove(prefix)

    async def _remove(self, prefix: str) -> None:
        """Remove all keys with a prefix.

        :raise Exception: that failed.
        """
        link = await self._connect()
        following: list[wire.Word] = []
        while True:
            words = ("SCAN", "PREFIX", prefix, "KEYS", "LIMIT", PAGE, *following)
            page = requests.page(requests.result(await link.send(wire.request(*words))), True)
            await gatherResults([link.send(wire.request("DEL", key)) for key in page.items])
            if page.next is None:
                break
            following = ["FROM", page.next]
        link.close()

    async def end(self) -> None:
        """Close all connections, and remove all keys.

        :raise Exception: some could not be removed.
        """
        for client in self._clients:
            client.leave()
        await self._remove(self.prefix)
