"""Whatever was acknowledged is there after kill -9, whenever it comes, and nothing is there by half.

``python -m tests.soaks.kill`` does the same for as long as one likes.
"""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom

from tests.support.killing import Rounds

ROUNDS = 5


def test_a_daemon_that_is_killed_under_load_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    seed = SystemRandom().getrandbits(32)
    rounds = Rounds(tmp_path, seed)
    rounds.prepare()
    for number in range(ROUNDS):
        assert rounds.round() == [], f"round {number} of seed {seed}"
    assert rounds.checkpoints > ROUNDS, "there were too few checkpoints"


def test_a_store_that_takes_too_much_for_folded_is_caught(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path, 1, "stale fold")
    rounds.prepare()
    assert any(rounds.round() for _ in range(20))
