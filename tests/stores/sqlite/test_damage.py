"""A file that is damaged is refused, or it was damaged where nothing is: wrong data is never served.

``python -m tests.stores.sqlite.test_damage`` makes ``format-1.db``, which every later version must open.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from twisted.internet.task import Clock

from kvd.interfaces import CannotOpen, text_in
from kvd.stores.memory.store import MemoryStore
from kvd.stores.sqlite.format import row_sum
from kvd.testing.conversations import Server
from tests.support.hosts import host
from tests.support.sqlite import sqlite_store

FLIPS: Final = 250
CUTS: Final = 40
FIXTURE: Final = Path(__file__).with_name("format-1.db")

DAMAGED = r"is damaged \(.*\); put a backup in its place, or move it away to begin with an empty store"
NOT_OURS = r" is (not a file of kvd|an SQLite database, but not one of kvd); name another (one|file)"
LATER = "was written by a later version of kvd"
HEADER: Final = 100
"""Bytes at the beginning of a file that tell what it is."""


class Found(NamedTuple):
    """What a store holds: its pairs, and which receipts committed."""

    pairs: dict[str, str]
    receipts: dict[str, bool]


def opened(path: Path) -> MemoryStore:
    """A store that is started, and is not to be stopped: so its file stays as it is."""
    store = sqlite_store(path, Clock())
    store.start(host())
    return store


def found_in(store: MemoryStore) -> Found:
    pairs = {key: text_in(store.data.values.get(key)) or "" for key in store.data.keys_from("", 100_000)}
    return Found(pairs, {receipt.name: it.committed for receipt, it in store.data.receipts._known.items()})


def file_of(store: MemoryStore) -> sqlite3.Connection:
    """The connection of a store to its file."""
    journal: Any = store._journal
    connection: sqlite3.Connection = journal._file._connection
    return connection


def fill(path: Path, first: int, last: int) -> Server:
    """Commit puts, removals, and transactions with receipts."""
    clock = Clock()
    server = Server(sqlite_store(path, clock), clock)
    client = server.client()
    dice = random.Random(first)
    lines = []
    for number in range(first, last):
        lines.append(f"PUT key{dice.randrange(400)} {number} {'v' * dice.choice([0, 20, 50, 300])}")
        if number % 7 == 0:
            lines.append(f"DEL key{dice.randrange(400)}")
        if number % 20 == 0:
            lines += ["START", f"PUT moved{number} 1", f"COMMIT receipt{number}", f"OUTCOME never{number}"]
    assert b"Error" not in client.exchange("".join(f"{line}\n" for line in lines).encode())
    return server


def one_file(server: Server) -> Found:
    """Have all that a store holds be in the file itself, where every byte can be damaged."""
    store = server.service.store
    assert isinstance(store, MemoryStore)
    file_of(store).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found_in(store)


KINDS = ["commits alone", "pairs and commits", "pairs alone"]


@pytest.fixture(params=KINDS, scope="module")
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Found]:
    """The bytes of a sound file, and what is in it."""
    path = tmp_path_factory.mktemp("sound") / "kvd.db"
    server = fill(path, 0, 500)
    if request.param != "commits alone":
        server.service.stopService()
        server = fill(path, 500, 700 if request.param == "pairs and commits" else 500)
    found = one_file(server)
    assert len(found.pairs) > 200
    assert len(found.receipts) >= 50
    return path.read_bytes(), found


def verdict(data: bytes, right: Found, path: Path, *refusals: str) -> str:
    """What is wrong with how a store takes damaged bytes; empty: nothing."""
    for end in ("", "-wal", "-journal"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    path.write_bytes(data)
    try:
        store = opened(path)
    except CannotOpen as error:
        if re.search(DAMAGED, str(error)) or any(re.search(each, str(error)) for each in refusals):
            return ""
        return f"it is refused so: {error}"
    except Exception as error:
        return f"there is a traceback: {error!r}"
    found = found_in(store)
    file_of(store).close()
    return "" if found == right else "wrong data is served"


def test_a_flipped_bit_is_noticed_or_harmless(sound: tuple[bytes, Found], tmp_path: Path) -> None:
    data, right = sound
    seed = random.SystemRandom().getrandbits(32)
    dice = random.Random(seed)
    wrong = []
    for number in range(FLIPS):
        place = dice.randrange(4 * 4096 if number % 3 == 0 else len(data))  # what the file says of itself comes first
        damaged = bytearray(data)
        damaged[place] ^= 1 << dice.randrange(8)
        # In the header it may be that the file seems to be of another kind.
        said = verdict(bytes(damaged), right, tmp_path / "kvd.db", *([NOT_OURS, LATER] if place < HEADER else []))
        if said:
            wrong.append(f"seed {seed}, byte {place} of page {place // 4096}: {said}")
    assert wrong == []


def test_a_header_by_which_the_file_must_not_be_written_is_damage(sound: tuple[bytes, Found], tmp_path: Path) -> None:
    data, right = sound
    damaged = bytearray(data)
    damaged[18] ^= 1 << 5
    assert verdict(bytes(damaged), right, tmp_path / "kvd.db") == ""


def test_whatever_bit_is_flipped_in_what_the_file_says_of_itself_is_noticed_or_harmless(
    sound: tuple[bytes, Found], tmp_path: Path
) -> None:
    data, right = sound
    place = data.index(b"receipts_since")
    page = place // 4096 * 4096
    first = min(data.index(name, page) for name in (b"store", b"folded", b"checkpoints", b"receipts_since"))
    wrong = []
    for bit in range(8 * (first - 4), 8 * (place + 30)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        said = verdict(bytes(damaged), right, tmp_path / "kvd.db")
        if said:
            wrong.append(f"byte {bit // 8}, bit {bit % 8}: {said}")
    assert wrong == []


def test_bytes_that_were_overwritten_are_noticed_or_harmless(sound: tuple[bytes, Found], tmp_path: Path) -> None:
    data, right = sound
    seed = random.SystemRandom().getrandbits(32)
    dice = random.Random(seed)
    for _ in range(CUTS):
        place, size = dice.randrange(HEADER, len(data)), dice.choice([2, 16, 512, 4096])
        junk = dice.choice([bytes(size), b"\xff" * size, dice.randbytes(size), data[:size]])
        damaged = data[:place] + junk[: len(data) - place] + data[place + size :]
        assert verdict(damaged, right, tmp_path / "kvd.db") == "", f"seed {seed}, {size} bytes from {place} on"


def test_a_file_that_was_cut_off_is_refused(sound: tuple[bytes, Found], tmp_path: Path) -> None:
    data, right = sound
    dice = random.Random(1)
    for number in range(CUTS):
        end = dice.randrange(16, len(data))
        if number % 2:
            end = end // 4096 * 4096 or 4096
        assert verdict(data[:end], right, tmp_path / "kvd.db") == "", f"cut at {end}"


def test_pages_that_stand_in_the_place_of_others_are_noticed(sound: tuple[bytes, Found], tmp_path: Path) -> None:
    data, right = sound
    dice = random.Random(2)
    pages = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    for _ in range(CUTS):
        one, other = dice.sample(range(len(pages)), 2)
        swapped = list(pages)
        swapped[one] = pages[other]
        said = verdict(b"".join(swapped), right, tmp_path / "kvd.db", NOT_OURS)
        assert said == "", f"page {one} is {other}"


# The -wal file.


def test_a_damaged_wal_file_gives_a_state_that_there_was(tmp_path: Path) -> None:
    """SQLite can't tell damage there from what a power loss left, and takes all that comes before it."""
    path, copy = tmp_path / "kvd.db", tmp_path / "copy.db"
    clock = Clock()
    server = Server(sqlite_store(path, clock), clock)
    states: list[dict[str, str]] = [{}]
    for number in range(60):
        server.client().ask(f"PUT key{number % 7} {number}")
        states.append({**states[-1], f"key{number % 7}": str(number)})
    base, wal = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    dice = random.Random(3)
    for _ in range(100):
        damaged = bytearray(wal)
        damaged[dice.randrange(len(wal))] ^= 1 << dice.randrange(8)
        copy.write_bytes(base)
        Path(f"{copy}-wal").write_bytes(damaged)
        store = opened(copy)
        assert found_in(store).pairs in states
        file_of(store).close()


# Other files.


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"Dear diary,\n", "is not a file of kvd; name another one"),
        (b"x", "is not a file of kvd; name another one"),
        (b"\0" * 8192, "is not a file of kvd; name another one"),
        (b"SQLite format 3\0", "is damaged"),
        (b"SQLite format 3\0" + b"x" * 8176, "is damaged"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "kvd.db"
    path.write_bytes(data)
    with pytest.raises(CannotOpen, match=why):
        opened(path)
    assert path.read_bytes() == data


def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "kvd.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
        other.commit()
    data = path.read_bytes()
    with pytest.raises(CannotOpen, match="is an SQLite database, but not one of kvd; name another file"):
        opened(path)
    assert path.read_bytes() == data


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    path = tmp_path / "kvd.db"
    path.touch()
    assert found_in(opened(path)) == Found({}, {})


# Files of later versions.


def change(path: Path, act: Callable[[sqlite3.Connection], object]) -> Path:
    """A file whose store was changed by another program."""
    server = fill(path, 0, 30)
    server.service.stopService()
    with closing(sqlite3.connect(path)) as other:
        act(other)
        other.commit()
    return path


def test_a_later_format_is_refused_and_the_message_says_what_to_install(tmp_path: Path) -> None:
    path = change(tmp_path / "kvd.db", lambda other: other.execute("PRAGMA user_version = 2"))
    with pytest.raises(CannotOpen, match=r"by a later version of kvd \(its format is 2, .*\); install that version"):
        opened(path)


@pytest.mark.parametrize("writes", ['[["a","1",9,9]]', '[{"from":"a","to":"b"}]', '[["b","2"],{"from":"a","to":null}]'])
def test_commits_of_a_later_kind_are_refused_and_the_message_says_what_to_install(writes: str, tmp_path: Path) -> None:
    def commit(other: sqlite3.Connection) -> None:
        (folded,) = other.execute("SELECT value FROM about WHERE name = 'folded'").fetchone()
        total = row_sum(folded + 1, 5, "", "", 1, writes)
        other.execute("INSERT INTO commits VALUES (?, 5, 1, '', '', 1, ?, ?)", (folded + 1, writes, total))

    why = "has commits of another kind, which this version of kvd does not know; install the one"
    with pytest.raises(CannotOpen, match=why):
        opened(change(tmp_path / "kvd.db", commit))


# The format, for ever.

PAIRS: Final = {
    "folded": "1",
    "folded, then put": "new",
    "put": "2",
    "nul\0key": "nul\0value\0",
    '"quoted"\\': "'",
    "emoji \U0001f600": "\u00e9\U0010ffff",
}
"""What the file of format 1 holds."""

RECEIPTS: Final = {"folded receipt": True, "receipt": True, "folded never": False, "never": False}
"""Whether they committed."""


def make_format_1(path: Path) -> None:
    """Write a file of format 1 that has everything in it."""
    clock = Clock()
    server = Server(sqlite_store(path, clock), clock)
    folded = ["folded", "nul\0key", '"quoted"\\']
    words: list[list[str]] = [["PUT", key, PAIRS[key]] for key in folded]
    words += [["PUT", key, "old"] for key in ("folded, then put", "folded, then removed")]
    words += [["START"], ["PUT", "emoji \U0001f600", "old"], ["COMMIT", "folded receipt"], ["OUTCOME", "folded never"]]
    for each in words:
        assert server.client().ask(json.dumps(each))["status"] == "Ok"
    server.service.stopService()
    clock = Clock()
    server = Server(sqlite_store(path, clock), clock)
    words = [["PUT", key, value] for key, value in PAIRS.items() if key not in folded]
    words += [["START"], ["DEL", "folded, then removed"], ["COMMIT", "receipt"], ["OUTCOME", "never"]]
    for each in words:
        assert server.client().ask(json.dumps(each))["status"] == "Ok"
    one_file(server)


def test_a_file_of_format_1_can_be_opened_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "kvd.db"
    shutil.copy(FIXTURE, path)
    store = sqlite_store(path, Clock())
    store.start(host()._replace(receipt_times=(inf, 600.0)))
    assert found_in(store) == Found(PAIRS, RECEIPTS)


def test_the_view_of_a_file_of_format_1_shows_its_pairs(tmp_path: Path) -> None:
    path = tmp_path / "kvd.db"
    shutil.copy(FIXTURE, path)
    with closing(sqlite3.connect(path)) as other:
        assert dict(other.execute("SELECT key, value FROM pairs")) == PAIRS


if __name__ == "__main__":
    FIXTURE.unlink(missing_ok=True)
    make_format_1(FIXTURE)
