"""Folding: however commits and the pieces of folds follow each other, the file holds what was appended, at any moment.

After each step the files are copied, and a store opens the copy. A copy is what a killed daemon leaves.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from kvd.errors import ReceiptUsed
from kvd.interfaces import Host, Receipt, ServerClock, Writes, text_in
from kvd.stores.memory.store import MemoryStore
from kvd.stores.sqlite import folding, format, journal
from tests.support.hosts import host
from tests.support.sqlite import sqlite_store

KEYS: Final = ["a", "aa", "b", "c", "d", "e\0", "\0", "'\"\\", "é", "\U0001f600", "\U0010ffff"]
RECEIPT_TIME: Final = 20.0
BEGIN: Final = 1_700_000_000_000


class Wall:
    """The clock of the story that is told."""

    clock = Clock()


class Age(NamedTuple):
    """What is known of a receipt."""

    at: float
    committed: bool


class Story:
    """A store whose folds go on when the story says so, beside a model of it.

    :param receipt_time: seconds for which receipts are remembered.
    """

    def __init__(self, directory: Path, receipt_time: float = RECEIPT_TIME) -> None:
        self.path = directory / "kvd.db"
        self._copy = directory / "copy.db"
        self._receipt_time = receipt_time
        self._commits = 0
        self.begin()
        self._states: dict[int, dict[str, str]] = {0: {}}  # by the number of the newest commit
        self._receipts: dict[int, dict[str, Age]] = {0: {}}

    def begin(self, now: float = 0.0) -> None:
        """Open the file."""
        self.clock = Clock()
        self.clock.rightNow = now
        Wall.clock = self.clock
        self.folds: list[Iterator[None]] = []
        self.store = sqlite_store(self.path, self.clock)
        self.store.start(self._host(self.clock)._replace(background=self.folds.append))

    def _host(self, clock: Clock) -> Host:
        return host()._replace(
            reactor=clock,
            seconds=clock.seconds,
            soon=lambda call: clock.callLater(0, call),
            from_thread=lambda call: clock.callLater(0, call),
            receipt_times=(self._receipt_time, 1.0),
            clock=ServerClock(lambda: BEGIN + int(clock.seconds() * 1000), BEGIN + int(clock.seconds() * 1000)),
        )

    @property
    def journal(self) -> Any:
        """The store's journal."""
        return self.store._journal

    # What may happen.

    def commit(self, writes: Writes, receipt: str | None = None) -> None:
        """Commit, with a receipt or without one."""
        self._commits += 1
        told = None if receipt is None else Receipt(None, receipt)
        number = self.store.data.unsynced.number
        with suppress(ReceiptUsed):
            self.store.data.apply(writes, 1, told)
        if self.store.data.unsynced.number > number:
            pairs = {**self._states[number], **writes}
            self._note({key: text_in(value) or "" for key, value in pairs.items() if value is not None}, receipt, True)

    def settle(self, receipt: str) -> None:
        """Ask for the outcome of a receipt."""
        number = self.store.data.unsynced.number
        self.store.outcome(Receipt(None, receipt))
        if self.store.data.unsynced.number > number:
            self._note(self._states[number], receipt, False)

    def _note(self, pairs: dict[str, str], receipt: str | None, committed: bool) -> None:
        number = self.store.data.unsynced.number
        self._states[number] = pairs
        known = self._receipts[number - 1]
        self._receipts[number] = known if receipt is None else {**known, receipt: Age(self.clock.seconds(), committed)}

    def go_on(self, steps: int) -> None:
        """Let folds go on, and the loop."""
        for _ in range(steps):
            for fold in list(self.folds):
                if next(fold, self) is self:
                    self.folds.remove(fold)
            self.clock.advance(0.001)

    def wait(self, seconds: float) -> None:
        """Let time pass, in which syncs and checkpoints are done."""
        self.clock.advance(seconds)

    def die(self) -> None:
        """Be killed, and opened again."""
        number = self.journal._appended
        self.journal._file.abandon()
        self._states = {number: self._states[number]}
        self._receipts = {number: self._receipts[number]}
        self.begin(self.clock.seconds())

    def stop(self) -> None:
        """Stop cleanly."""
        self.store.stop()

    # What must be.

    def check(self) -> None:
        """See that a store that opens a copy of the files holds what was appended."""
        for end in ("", "-wal"):
            shutil.copy(f"{self.path}{end}", f"{self._copy}{end}")
        clock = Clock()
        clock.rightNow = self.clock.rightNow
        store = sqlite_store(self._copy, clock)
        store.start(self._host(clock))
        self._compare(store, self.journal._appended)
        found: Any = store._journal
        found._file.abandon()
        with closing(sqlite3.connect(self._copy)) as copy:
            shown = dict(copy.execute("SELECT key, value FROM pairs"))
            assert shown == self._states[self.journal._appended]

    def _compare(self, store: MemoryStore, number: int) -> None:
        assert store.durable == number
        found = {key: store.data.values.get(key) or "" for key in store.data.keys_from("", 1000)}
        assert found == self._states[number]
        receipts = store.data.receipts
        for name, age in self._receipts[number].items():
            known = receipts.known(Receipt(None, name))
            if known is None:
                assert self.clock.seconds() - age.at >= receipts.kept(), f"{name} is forgotten too early"
            else:
                assert known[0].committed == age.committed


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Much is done that else takes much more."""
    for module, name, value in (
        (folding, "FEW", 3),
        (folding, "PIECE", 1),
        (folding, "LOOK", 2),
        (journal, "WAL_BYTES", 30_000),
        (journal, "LOOK_EVERY", 0),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(format, "now", lambda: BEGIN + int(Wall.clock.seconds() * 1000))


VALUES = st.sampled_from(["", "1", "2", "x" * 3000])
WRITES = st.dictionaries(st.sampled_from(KEYS), st.none() | VALUES, min_size=1, max_size=4)
NAMES = st.sampled_from([f"r{number}" for number in range(12)])
STEPS = st.one_of(
    st.tuples(st.just("commit"), WRITES),
    st.tuples(st.just("commit"), WRITES, NAMES),
    st.tuples(st.just("settle"), NAMES),
    st.tuples(st.just("go_on"), st.integers(1, 3)),
    st.tuples(st.just("go_on"), st.integers(1, 60)),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.004, 0.01, 9.0])),
    st.tuples(st.just("die")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=50))
def test_a_file_holds_what_was_appended_however_commits_and_pieces_of_folds_follow_each_other(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        story = Story(Path(directory))
        for name, *arguments in steps:
            getattr(story, name)(*arguments)
            story.check()
        story.stop()


def drive(story: Story) -> None:
    """Let everything go on until nothing is left to be done."""
    for _ in range(300):
        story.go_on(1)


def rows(story: Story, query: str) -> list[Any]:
    """What plain SQLite finds in a file that no store has open."""
    with closing(sqlite3.connect(story.path)) as other:
        return other.execute(query).fetchall()


def filled(directory: Path, receipt_time: float = RECEIPT_TIME) -> Story:
    """A story that has begun with more commits than need to be folded, and some receipts, and is to fold them."""
    story = Story(directory, receipt_time)
    for number, key in enumerate(KEYS):
        story.commit({key: str(number)}, f"r{number}" if number % 3 == 0 else None)
    while not story.folds:
        story.wait(0.001)
    return story


def test_a_key_that_is_removed_or_put_again_at_any_moment_of_a_fold_is_so_after_every_piece(tmp_path: Path) -> None:
    for moment in range(0, 40, 3):
        directory = tmp_path / str(moment)
        directory.mkdir()
        story = filled(directory)
        story.go_on(moment)
        story.commit({"aa": None, "c": "new", "\0": None})
        for _ in range(4):
            story.go_on(3)
            story.check()
        story.commit({"aa": "again"})
        drive(story)
        story.check()
        story.stop()
        assert dict(rows(story, "SELECT key, value FROM folded")) == story._states[story._commits]


def test_a_clean_stop_leaves_pairs_and_receipts_and_no_other_commits(tmp_path: Path) -> None:
    story = filled(tmp_path)
    story.go_on(5)
    story.commit({"a": None, "z": "1"})
    story.stop()
    assert rows(story, "SELECT DISTINCT receipt > '' FROM commits") == [(1,)]
    assert dict(rows(story, "SELECT key, value FROM folded")) == story._states[story._commits]


def test_commits_that_a_killed_daemon_had_folded_and_not_removed_yet_are_removed_by_the_next_one(
    tmp_path: Path,
) -> None:
    story = filled(tmp_path)
    while story.journal._file.folded == 0:
        story.go_on(1)
    story.die()
    story.stop()
    assert rows(story, "SELECT count(*) FROM commits WHERE receipt = ''") == [(0,)]


def test_receipts_are_kept_for_their_time_and_then_removed_from_the_file(tmp_path: Path) -> None:
    story = filled(tmp_path)
    drive(story)
    story.wait(RECEIPT_TIME - 3)
    story.commit({"a": "1"}, "late")
    for number in range(6):  # and another fold
        story.commit({"a": str(number)})
        drive(story)
    names = [receipt for (receipt,) in story.journal._file._connection.execute("SELECT receipt FROM commits")]
    assert {"r0", "r3", "r6", "r9", "late"} <= {*names}
    story.check()
    story.wait(5)
    story.stop()
    assert rows(story, "SELECT receipt FROM commits") == [("late",)]
    story.begin(story.clock.seconds())
    assert story.store.data.receipts.kept() == pytest.approx(RECEIPT_TIME, abs=5)


def test_receipts_without_a_time_are_kept_for_ever(tmp_path: Path) -> None:
    story = filled(tmp_path, inf)
    drive(story)
    story.wait(1e8)
    story.check()
    story.stop()
    assert rows(story, "SELECT count(*) FROM commits WHERE receipt > ''") == [(4,)]


def test_under_a_load_without_a_pause_a_fold_comes_to_its_end(tmp_path: Path) -> None:
    story = filled(tmp_path)
    for number in range(200):
        story.commit({KEYS[number % len(KEYS)]: str(number)})
        story.go_on(1)
    assert story.journal._file.folded > 0
