"""Kills a daemon on a SQLite store under load, over and over, and looks for anything that was lost or is half there::

    python -m tests.soaks.kill --rounds 200

Clients write, remove, count, move money, and commit groups of keys with receipts, while the store folds and checkpoints
far more often than usual. Each round kills the daemon (some also kill the next one while it starts), and then asks
another one for all that the clients know. ``--seed`` decides what clients do; when the daemon dies also depends on the
machine. The exit status is 1 if anything was wrong; the files are kept then.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.support.killing import Rounds


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("::")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="kvd-kill-"))
    print(f"seed {options.seed}, files in {directory}", flush=True)
    rounds = Rounds(directory, options.seed)
    rounds.prepare()
    begun = time.monotonic()
    for number in range(1, options.rounds + 1):
        faults = rounds.round()
        if faults:
            print(f"round {number}:", *faults, sep="\n")
            return 1
        if number % 10 == 0 or number == options.rounds:
            print(
                f"{number} rounds, {rounds.load.acknowledged()} acknowledged, {rounds.checkpoints} checkpoints, "
                f"{rounds.folds} rounds with a fold, {time.monotonic() - begun:.0f} s",
                flush=True,
            )
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
