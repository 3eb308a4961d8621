"""A power loss at any moment costs nothing that was acknowledged, and leaves no commit half there.

A real daemon runs under a load, with checkpoints and folds all the time. All that it writes and syncs is recorded.
From the record, the files are made as a power loss at some moment could have left them; then a store opens them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from errno import EIO
from pathlib import Path

import pytest

from kvd.interfaces import Writes
from kvd.stores.memory.journal import Contents
from kvd.stores.sqlite.file import File
from kvd.stores.sqlite.format import Row
from kvd.stores.sqlite.journal import SqliteJournal
from tests.support.disk import Disk, Record
from tests.support.power_load import EAGER, accusations, finish, wait_for_commits, write


def lives(disk: Disk) -> list[Record]:
    """What happens to the disk in the lives of some daemons: the first two are killed, and the third is stopped."""
    for until in (40, 80):
        with disk.daemon(constants=EAGER).started() as daemon:
            writers = write(disk, daemon, 1000)
            wait_for_commits(writers, until)
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
        wait_for_commits(writers, 40)
        disk.order(f"fail_sync w 5 {EIO}")
        assert daemon.stopped() == 1
        finish(writers)
    disk.order()
    with disk.daemon(constants=EAGER).started() as daemon:
        finish(write(disk, daemon, 1))
    records = disk.records()
    (failed,) = (place for place, record in enumerate(records) if record.error)
    assert accusations(records, tmp_path, 1, 60, after=failed) == []


# These checks notice when a store lies.


def lies(disk: Disk, directory: Path, variant: str) -> list[str]:
    """What is said of a daemon of this variant."""
    with disk.daemon(constants=EAGER, variant=variant).started() as daemon:
        finish(write(disk, daemon, 80))
    (directory / "found").mkdir()
    return accusations(disk.records(), directory / "found", 1, 100)


def test_a_disk_that_only_claims_to_sync_is_noticed(disk: Disk, tmp_path: Path) -> None:
    disk.order("ignore_sync dwjD")
    assert any("was acknowledged" in found for found in lies(disk, tmp_path, "honest"))


def test_a_store_that_acknowledges_before_the_sync_is_noticed(disk: Disk, tmp_path: Path) -> None:
    disk.order("delay_sync w 5")
    assert any("was acknowledged" in found for found in lies(disk, tmp_path, "early"))


def test_a_store_that_folds_what_is_stale_is_noticed(disk: Disk, tmp_path: Path) -> None:
    assert any("are not those of" in found for found in lies(disk, tmp_path, "stale fold"))


class Forgetful(File):
    """Forgets the newest commits when it is opened."""

    def commits(self) -> Iterator[list[tuple[Row, Writes]]]:
        for piece in super().commits():
            yield piece[:-2]


class Stale(SqliteJournal):
    """Applies folded commits again that are kept for their receipts."""

    def _load(self, file: File, contents: Contents) -> None:
        super()._load(file, contents)
        for piece in file.commits():
            for row, _ in piece:
                if row[0] <= file.folded:
                    contents.repeat(file._writes(row[6]))


def test_a_store_that_forgets_the_newest_commits_at_a_start_is_noticed(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvd.stores.sqlite.journal.File", Forgetful)
    assert any("was acknowledged" in found for found in lies(disk, tmp_path, "honest"))


def test_a_store_that_applies_folded_commits_again_is_noticed(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.sqlite.SqliteJournal", Stale)
    assert any("are not those of" in found for found in lies(disk, tmp_path, "honest"))
