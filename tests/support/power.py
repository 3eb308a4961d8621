"""What a power loss leaves of some files, from a record of all that was written and synced.

What a sync that succeeded has covered is there. Everything later may be there or not, each write on its own, or be
torn at a sector's boundary; a file's name in its directory, and its length, as well. After a sync that failed, the
system takes what was written for clean: it is read as if it were there, and a later sync does not write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.support.disk import STORE_FILES, Record

SECTOR: Final = 512

SUFFIXES: Final = {"d": "", "w": "-wal", "j": "-journal"}


@dataclass
class _Operation:
    """A write, or a truncation (no data)."""

    place: int
    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
        else:
            content.extend(bytes(max(0, self.offset - len(content))))
            content[self.offset : self.offset + len(self.data)] = self.data

    def torn(self, random: Random) -> _Operation:
        """What is left of it: a beginning or an end."""
        if self.data is None or len(self.data) <= SECTOR:
            return self
        cut = random.randrange(SECTOR, len(self.data), SECTOR)
        if random.random() < 0.5:
            return _Operation(self.place, self.offset, self.data[:cut])
        return _Operation(self.place, self.offset + cut, self.data[cut:])


@dataclass
class _File:
    """A file, whatever its name."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[_Operation] = field(default_factory=list)

    def left(self, random: Random) -> bytes:
        """Its content after a power loss."""
        content = bytearray(self.synced)
        # Sometimes all is there or nothing; else each piece with the same chance.
        keep, tear = random.choice([(1.0, 0.0), (0.0, 0.0), (random.random(), random.random() * 0.5)])
        for operation in self.pending:
            if random.random() < keep:
                (operation.torn(random) if random.random() < tear else operation).apply(content)
        return bytes(content)


class Platter:
    """The disk, as the records up to some moment have made it.

    :param random: decides what becomes of what is not synced.
    """

    def __init__(self, random: Random) -> None:
        self._random: Final = random
        self._place = 0
        self._files: dict[str, _File] = {}  # by the letters of their names, as the system shows them
        self._names: dict[str, list[_File | None]] = {}  # what is at a name on the disk, and what may be there
        self._syncs: dict[int, tuple[_File | None, int]] = {}

    def take(self, record: Record) -> None:
        """Something happens."""
        self._place += 1
        kind, letter = record.kind, record.file
        if letter in STORE_FILES:
            self._take(record)
        elif letter == "D" and kind == "B":
            self._syncs[record.number] = (None, self._place)
        elif letter == "D" and kind == "E" and not record.error:
            for names in self._names.values():
                del names[:-1]

    def _take(self, record: Record) -> None:
        kind, letter = record.kind, record.file
        if kind == "O":
            self._files[letter] = _File()
            self._names.setdefault(letter, [None]).append(self._files[letter])
        elif kind == "U":
            del self._files[letter]
            self._names[letter].append(None)
        elif kind == "B":
            self._syncs[record.number] = (self._files[letter], self._place)
        elif kind == "E":
            self._end_sync(record)
        elif not record.error and kind == "W":
            self._files[letter].pending.append(_Operation(self._place, record.number, record.data))
        elif kind == "T":
            self._files[letter].pending.append(_Operation(self._place, record.number, None))

    def _end_sync(self, record: Record) -> None:
        file, begun = self._syncs.pop(record.number)
        assert file is not None
        for operation in file.pending:
            if operation.place < begun and (not record.error or self._random.random() < 0.5):
                operation.apply(file.synced)
        file.pending = [operation for operation in file.pending if operation.place > begun]

    def lose_power(self, path: Path) -> None:
        """Make the files that are there after a power loss now.

        :param path: of the store's file; the others have names that begin with it.
        """
        for letter, names in self._names.items():
            file = self._random.choice(names)
            if file is not None and letter in SUFFIXES:
                path.with_name(path.name + SUFFIXES[letter]).write_bytes(file.left(self._random))


def losses(records: list[Record], random: Random, how_many: int, after: int = 0) -> Iterator[tuple[int, Platter]]:
    """Power losses at random moments: before which record, and the disk at that time.

    Half of them are at moments of which there are few: when files are made, opened, and closed.

    :param after: the record before which there is none.
    """
    seldom = [
        place
        for place, record in enumerate(records)
        if place >= after and (record.kind in "OTU" or record.file in "jD")
    ]
    moments = [
        min(random.choice(seldom) + random.randrange(1, 8), len(records))
        if number % 2
        else random.randrange(after + 1, len(records) + 1)
        for number in range(how_many)
    ]
    platter = Platter(random)
    place = 0
    for moment in sorted(moments):
        while place < moment:
            platter.take(records[place])
            place += 1
        yield moment, platter
