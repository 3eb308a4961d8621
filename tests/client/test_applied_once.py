"""The Deferred client under random losses: what succeeds is applied once, and what stored nothing, never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from kvd.client import Transaction
from kvd.errors import Internal, KvdError, OutcomeUnknown
from kvd.testing import MemoryServer
from tests.support.client import outcome_of

FAULTS = st.sampled_from(["before", "after", "links", "away", "back", "mute", "tells", "slow", "quick", "conflict"])


def cause(server: MemoryServer, fault: str) -> None:
    """Let something go wrong, or well again."""
    acts: dict[str, Callable[[], object]] = {
        "before": server.lose_link_before_next_commit,
        "after": server.lose_link_after_next_commit,
        "links": server.lose_links,
        "away": lambda: setattr(server, "reachable", False),
        "back": lambda: setattr(server, "reachable", True),
        "mute": lambda: setattr(server, "tells_outcomes", False),
        "tells": lambda: setattr(server, "tells_outcomes", True),
        "slow": lambda: setattr(server, "store_delay", 0.7),
        "quick": lambda: setattr(server, "store_delay", 0.0),
        "conflict": server.conflict_at_next_commit,
    }
    acts[fault]()


@given(st.lists(st.tuples(FAULTS, st.sampled_from([0.0, 0.1, 1.0, 7.0])), max_size=25), st.booleans())
@example([("before", 0.0), ("mute", 7.0), ("tells", 1.0)], True)
@example([("after", 0.0), ("away", 7.0), ("back", 1.0)], True)
@example([("slow", 0.1), ("links", 0.1), ("slow", 0.1), ("links", 0.1)], True)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_succeeds_is_applied_once_and_what_stored_nothing_never(
    faults: list[tuple[str, float]], again: bool
) -> None:
    server = MemoryServer()
    client = server.connect(timeout=6, wait=2, retry_for=6)
    server.network_delay = lambda from_client: 0.02
    found: dict[str, list[Any]] = {}
    for number, (fault, pause) in enumerate(faults):

        async def mark(txn: Transaction, key: str = f"mark:{number}") -> None:
            await txn.incr(key)

        async def once(mark: Callable[[Transaction], Any] = mark) -> None:
            async with client.transaction() as txn:
                await mark(txn)

        found[f"mark:{number}"] = outcome_of(client.transact(mark) if again else Deferred.fromCoroutine(once()))
        cause(server, fault)
        server.advance(pause)
    for fault in ("back", "tells", "quick"):
        cause(server, fault)
    server._lose = None
    server.advance(120)
    for key, outcome in found.items():
        assert len(outcome) == 1
        (error,) = outcome
        stored = server.run(client.get(key))
        assert stored in (None, "1")
        if error is None:
            assert stored == "1"
        elif not isinstance(error, OutcomeUnknown):
            assert isinstance(error, KvdError)
            assert not isinstance(error, Internal)
            assert stored is None, error
