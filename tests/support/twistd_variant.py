"""Runs twistd with a SQLite store that has other constants, so that little data does what else takes much; or one that
lies, so that a check can be seen to accuse it.

The arguments: the name of the variant, ``MODULE.CONSTANT=VALUE`` for each constant, the path of twistd, its arguments.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Final

from kvd.stores.sqlite import folding, journal, store
from kvd.stores.sqlite.file import File


def honest() -> None:
    """Change nothing."""


class StaleFold(folding.Folder):
    """Says at its end that everything is folded that was appended by then, not by its beginning."""

    def _fold(self, changed: set[str], last: int) -> Iterator[None]:
        yield from super()._fold(changed, last)
        end = time.monotonic() + 5
        while self._newest() < last + 12 and time.monotonic() < end:
            yield  # commits are appended meanwhile
        self._file.set_folded(max(last, self._newest()), self._contents.now())
        self._changed.clear()

    def _newest(self) -> int:
        (number,) = self._file._connection.execute("SELECT max(number) FROM commits").fetchone()
        return int(number or 0)


def stale_fold() -> None:
    """Commits that are appended during a fold are taken for folded."""
    vars(journal)["Folder"] = StaleFold


class EarlyJournal(journal.SqliteJournal):
    """Acknowledges what was appended before it is synced."""

    def _append(self, file: File) -> None:
        super()._append(file)
        self._tell_synced(self._appended)


def early() -> None:
    """Acknowledge before the sync."""
    vars(store)["SqliteJournal"] = EarlyJournal


VARIANTS: Final[dict[str, Callable[[], None]]] = {"honest": honest, "early": early, "stale fold": stale_fold}


def main() -> None:
    """Set up the variant, and become twistd."""
    variant, *arguments = sys.argv[1:]
    VARIANTS[variant]()
    while "=" in arguments[0]:
        name, _, value = arguments.pop(0).partition("=")
        module, _, constant = name.partition(".")
        found = import_module(f"kvd.stores.sqlite.{module}")
        kind = type(getattr(found, constant))
        setattr(found, constant, kind(value))
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
