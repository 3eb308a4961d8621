"""A word to the compiler of the core, which is not there when the core runs. This module itself is not compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_: bool):
        """Mean nothing to plain Python."""
        return lambda kind: kind
