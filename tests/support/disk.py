"""A disk that fails, is slow or full as a test wishes, under a real daemon; and a record of all that happens to it.

The work is done by ``disk_shim.c``, which is compiled here and preloaded into the daemon.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.daemon import Daemon, wait_for

_SOURCE: Final = Path(__file__).with_name("disk_shim.c")
_VARIANT: Final = Path(__file__).with_name("twistd_variant.py")
_HEAD: Final = struct.Struct("=cciqq")

STORE_FILES: Final = "dwjo"
"""The letters of the store's files: the database, its -wal, its -journal, and others whose names begin as theirs."""


class Record(NamedTuple):
    """Something that happened to the disk, or that a test noted."""

    kind: str
    """O: made, W: written, T: truncated, U: unlinked, B: a sync begins, E: it ends, I: so does one that did nothing;
    A: a test's note."""

    file: str
    """A letter of STORE_FILES; D: the directory."""

    error: int
    """An errno; 0: it succeeded."""

    number: int
    """Where it was written, how long the file is now, or which sync."""

    data: bytes


def compile_shim(directory: Path) -> Path:
    """Compile the shim.

    :return: what is to be preloaded.
    """
    library = directory / "disk_shim.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    return library


class Disk:
    """A disk for the files of one store.

    :param shim: what :func:`compile_shim` returned.
    :param directory: for the files of the store, and of its daemons.
    """

    def __init__(self, shim: Path, directory: Path) -> None:
        self.directory: Final = directory.resolve()
        (self.directory / "store").mkdir()
        self.path: Final = self.directory / "store" / "kvd.db"
        self._shim: Final = shim
        self._orders: Final = self.directory / "orders"
        self._log: Final = self.directory / "disk.log"
        self._log.touch()
        self._given = 0
        self._lives = 0
        self.order()

    def order(self, *orders: str) -> None:
        """Have the disk do this from now on, and nothing that was ordered before; the shim's source tells what."""
        self._given += 1  # the same order may be given twice
        new = self._orders.with_suffix(".new")
        new.write_text("\n".join([f"serial {self._given}", *orders]))
        new.replace(self._orders)

    def daemon(self, *options: str, constants: Mapping[str, float] | None = None, variant: str = "honest") -> Daemon:
        """A daemon on this disk, that is not waited for.

        :param constants: of the store's modules, as in ``{"folding.FEW": 3}``.
        :param variant: a name in ``twistd_variant.py``, of a store that lies.
        """
        self._lives += 1
        directory = self.directory / f"life{self._lives}"
        directory.mkdir()
        environment = {
            "LD_PRELOAD": self._shim,
            "KVD_SHIM_STORE": self.path,
            "KVD_SHIM_ORDERS": self._orders,
            "KVD_SHIM_LOG": self._log,
        }
        through = ["env", *(f"{name}={value}" for name, value in environment.items()), sys.executable, str(_VARIANT)]
        through += [variant, *(f"{name}={value}" for name, value in (constants or {}).items())]
        return Daemon(directory, "--port", "0", "--store", f"sqlite:{self.path}", *options, through=tuple(through))

    # What has happened.

    def note(self, text: str) -> None:
        """Write something down between the records."""
        data = text.encode()
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, _HEAD.pack(b"A", b"-", 0, 0, len(data)) + data)
        finally:
            os.close(descriptor)

    def records(self) -> list[Record]:
        """All that has happened, in its order."""
        log = self._log.read_bytes()
        found = []
        place = 0
        while place + _HEAD.size <= len(log):
            kind, file, error, number, size = _HEAD.unpack_from(log, place)
            place += _HEAD.size
            if place + size > len(log):
                break  # it is being written
            found.append(Record(kind.decode(), file.decode(), error, number, log[place : place + size]))
            place += size
        return found

    def failures(self) -> list[tuple[str, str]]:
        """What has failed, and everything that was tried with the store's files afterwards: kinds and files."""
        found: list[tuple[str, str]] = []
        for record in self.records():
            if record.error or (found and record.file in STORE_FILES and record.kind in "OWTUB"):
                found.append((record.kind, record.file))
        return found

    def syncing(self) -> str:
        """The letters of the files that are being synced."""
        begun: dict[int, str] = {}
        for record in self.records():
            if record.kind == "B":
                begun[record.number] = record.file
            elif record.kind in "EI":
                begun.pop(record.number, None)
        return "".join(begun.values())

    def wait_for(self, condition: Callable[[Disk], object], what: str) -> None:
        """Return once something has happened."""
        wait_for(lambda: condition(self), what)
