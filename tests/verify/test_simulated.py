"""The checks against simulated servers: right ones are never accused, wrong ones are found out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvd.verify.check import check, told
from tests.verify.simulator import Simulation

KINDS = ("appends", "predicates", "bank", "plain")

# What finds a fault, with what workload, and in how many of 10 histories of 300 transactions at least.
CAUGHT = [
    ("no read check", "appends", {"lost-update", "incompatible-order", "G-single"}, 10),
    ("no read check", "bank", {"bank"}, 10),
    ("no range check", "predicates", {"G2"}, 10),
    ("deletions missed", "predicates", {"G2"}, 10),
    ("late snapshot", "appends", {"late-snapshot", "G-single-realtime", "G1c-realtime"}, 3),
    ("late snapshot", "predicates", {"late-snapshot", "G-single-realtime", "G-single"}, 3),
    ("no snapshot", "appends", {"internal", "G-single"}, 10),
    ("no snapshot", "bank", {"bank"}, 10),
    ("no snapshot", "plain", {"linearizability"}, 7),
    ("torn commit", "appends", {"G-single", "lost-update"}, 8),
    ("torn commit", "bank", {"bank"}, 10),
    ("acknowledged early", "appends", {"lost-update"}, 10),
    ("acknowledged early", "predicates", {"G2"}, 10),
    ("swapped replies", "appends", {"garbage-read"}, 10),
    ("aborted write shows", "appends", {"G1a"}, 10),
    ("aborted write shows", "predicates", {"G1a"}, 10),
    ("aborted write shows", "bank", {"bank"}, 7),
    ("applied twice", "appends", {"lost-update", "G-single"}, 2),
    ("applied twice", "plain", {"linearizability"}, 9),
    ("lost write", "appends", {"lost-update", "G-single"}, 10),
    ("lost write", "predicates", {"G2", "G-single"}, 10),
]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1).map(sorted),
    clients=st.integers(1, 12),
    unknown=st.sampled_from([0, 0.03, 0.3]),
    length=st.integers(1, 250),
)
def test_a_right_server_is_never_accused(
    seed: int, kinds: list[str], clients: int, unknown: float, length: int
) -> None:
    made = Simulation(seed, kinds=tuple(kinds), unknown=unknown).run(length, clients)
    verdict = check(made)
    assert not verdict.violations, told(made, verdict)
    assert not verdict.undecided


def test_a_long_history_of_a_right_server_is_not_accused() -> None:
    made = Simulation(7, kinds=KINDS).run(5000, 10)
    assert check(made).violations == []


@pytest.mark.parametrize(("fault", "kind", "names", "least"), CAUGHT)
def test_a_wrong_server_is_found_out(fault: str, kind: str, names: set[str], least: int) -> None:
    found = [set(check(Simulation(seed, fault, (kind,)).run(300)).times) for seed in range(10)]
    assert sum(not names.isdisjoint(each) for each in found) >= least


def test_the_verdict_is_the_same_whatever_the_hash_seed_is() -> None:
    program = (
        "import json; from kvd.verify.check import check, report; from tests.verify.simulator import Simulation\n"
        f"for fault in ('', 'no read check', 'torn commit', 'no range check', 'applied twice'):\n"
        f"    made = Simulation(3, fault, {KINDS}).run(400); print(json.dumps(report(made, check(made))))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert b"lost-update" in next(iter(outputs))
