"""What several of these tests begin with."""

from __future__ import annotations

from tests.server import Server


def fill(server: Server, keys: str) -> None:
    for key in keys.split():
        server.client().ask(f"PUT {key} {key.upper()}")
