"""A power loss at any moment costs nothing that was acknowledged, and leaves no commit half there.

A real daemon runs under a load, with checkpoints and folds all the time. All that it writes and syncs is recorded.
From the record, the files are made as a power loss at some moment could have left them; then a store opens them.
"""

from __future__ import annotations

import signal
from errno import EIO
from pathlib import Path

from tests.support.daemon import wait_for
from tests.support.disk import Disk, Record
from tests.support.power_load import EAGER, accusations, finish, write


def lives(disk: Disk) -> list[Record]:
    """What happens to the disk in the lives of some daemons: the first two are killed, and the third is stopped."""
    for until in (40, 80):
        with disk.daemon(constants=EAGER).started() as daemon:
            writers = write(disk, daemon, 1000)
            wait_for(lambda: min(writer.acknowledged for writer in writers) >= until, "the writers")
            daemon.send_signal(signal.SIGKILL)
            finish(writers)
    with disk.daemon(constants=EAGER).started() as daemon:
        finish(write(disk, daemon, 20))
        daemon.stop()
    return disk.records()


def test_a_power_loss_costs_nothing_that_was_acknowledged_and_leaves_no_commit_half_there(
    disk: Disk, tmp_path: Path
) -> None:
    records = lives(disk)
    assert sum(record[:2] == ("E", "d") for record in records) > 10, "there were too few checkpoints"
    assert accusations(records, tmp_path, 1, 150) == []


def test_a_power_loss_while_the_file_is_made_leaves_one_that_can_be_opened(disk: Disk, tmp_path: Path) -> None:
    disk.daemon().started().__exit__()  # kills it
    assert accusations(disk.records(), tmp_path, 1, 150) == []


def test_a_power_loss_after_a_failed_sync_and_another_start_costs_nothing(disk: Disk, tmp_path: Path) -> None:
    with disk.daemon(constants=EAGER).started() as daemon:
        writers = write(disk, daemon, 1000)
        wait_for(lambda: min(writer.acknowledged for writer in writers) >= 40, "the writers")
        disk.order(f"fail_sync w 5 {EIO}")
        assert daemon.stopped() == 1
        finish(writers)
    disk.order()
    with disk.daemon(constants=EAGER).started() as daemon:
        finish(write(disk, daemon, 1))
    records = disk.records()
    (failed,) = (place for place, record in enumerate(records) if record.error)
    assert accusations(records, tmp_path, 1, 60, after=failed) == []
