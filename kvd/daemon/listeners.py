"""What ``--listen`` asks for: a protocol and an endpoint, with what is not said filled in."""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_PROTOCOL = "line"

BACKLOG = 511
"""Connections that may wait to be accepted; with Twisted's 50, a burst of 100 takes a second."""


class Listener(NamedTuple):
    """One ``--listen``.

    :ivar protocol: the name of the protocol.
    :ivar name: the endpoint, as the user wrote it.
    """

    protocol: str
    name: str

    @property
    def kind(self) -> str:
        """The type of the endpoint."""
        return self.name.partition(":")[0]

    def argument(self, name: str, place: int) -> str | None:
        """The argument of that name, or at that place among those without a name, from 0 on; None: it is not there."""
        words = re.split(r"(?<!\\):", self.name)[1:]
        named = {word.partition("=")[0]: word.partition("=")[2] for word in words if "=" in word}
        bare = [word for word in words if "=" not in word]
        found = named.get(name, bare[place] if place < len(bare) else None)
        return None if found is None else re.sub(r"\\(.)", r"\1", found)

    @property
    def endpoint(self) -> str:
        """The endpoint with what is not said: a TCP port is on loopback, and a burst of connections finds room."""
        if self.kind != "tcp":
            return self.name
        interface = "" if self.argument("interface", 1) is not None else ":interface=127.0.0.1"
        backlog = "" if self.argument("backlog", 2) is not None else f":backlog={BACKLOG}"
        return f"{self.name}{interface}{backlog}"


def listener(value: str) -> Listener:
    """Take ``[NAME=]ENDPOINT`` apart. The type of an endpoint has no ``=``."""
    name, equals, endpoint = value.partition("=")
    return Listener(name, endpoint) if equals and ":" not in name else Listener(DEFAULT_PROTOCOL, value)
