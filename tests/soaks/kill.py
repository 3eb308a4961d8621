"""Kills a daemon on a SQLite store under load, over and over, and looks for anything that was lost or is half there::

    python -m tests.soaks.kill --rounds 200

Clients write, remove, count, move money, and commit groups of keys with receipts, while the store folds and checkpoints
far more often than usual. Each round kills the daemon (some also kill the next one while it starts), and then asks
another one for all that the clients know. ``--seed`` decides what clients do; when the daemon dies also depends on the
machine. In a compiled build the store's constants can't be changed, so folds and checkpoints are rare there; what is
not compiled folds and checkpoints all the time. The exit status is 1 if anything was wrong; the files are kept then.
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

A_FILE = 20
"""Rounds with one file: what has a receipt stays in it, so it grows."""


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.split("::")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    begun = time.monotonic()
    acknowledged = checkpoints = folds = done = 0
    while done < options.rounds:
        directory = Path(tempfile.mkdtemp(prefix="kvd-kill-"))
        seed = options.seed + done
        print(f"seed {seed}, files in {directory}", flush=True)
        rounds = Rounds(directory, seed)
        rounds.prepare()
        for _ in range(min(A_FILE, options.rounds - done)):
            done += 1
            faults = rounds.round()
            if faults:
                print(f"round {done}:", *faults, sep="\n")
                return 1
        acknowledged += rounds.load.acknowledged()
        checkpoints += rounds.checkpoints
        folds += rounds.folds
        took = time.monotonic() - begun
        print(
            f"{done} rounds, {acknowledged} acknowledged, {checkpoints} checkpoints, {folds} rounds with a fold that "
            f"was completed, {took:.0f} s",
            flush=True,
        )
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
