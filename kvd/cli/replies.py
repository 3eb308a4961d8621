"""Replies as ``kvd shell`` shows them to people."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from kvd.cli.program import printable

NAMES = 24
"""Letters up to which a column of names is as wide as the longest of them."""


def pretty(reply: dict[str, Any], width: int = 80) -> str:
    """A reply as it is shown. What could play tricks with the terminal is shown as an escape.

    :param width: columns of the terminal.
    """
    if reply["status"] != "Ok":
        text = f"{reply['code']}: {reply['mesg']}"
    elif "result" not in reply:
        text = "Ok"
    else:
        text = _pretty_result(reply["result"], width)
    return printable(text, keep="\n")


def _pretty_result(result: Any, width: int) -> str:
    if isinstance(result, dict) and result and all(isinstance(value, str) for value in result.values()):
        return _columns(result, width)
    if isinstance(result, dict) and result.keys() == {"items", "next"}:
        return _page(result)
    return json.dumps(result, ensure_ascii=False, indent=2)


def _columns(texts: dict[str, str], width: int) -> str:
    """Names, and beside each its text, in as many lines as it needs."""
    column = max([len(name) for name in texts if len(name) <= NAMES], default=4)
    lines = []
    for name, text in texts.items():
        parts = textwrap.wrap(text, max(width - column - 2, 20), break_on_hyphens=False, replace_whitespace=False)
        if len(name) > column:
            lines.append(name)
            name = ""
        lines += [f"{name if not number else '':{column}}  {part}" for number, part in enumerate(parts or [""])]
    return "\n".join(lines)


def _page(page: dict[str, Any]) -> str:
    items = [item if isinstance(item, list) else [item] for item in page["items"]]
    width = min(max((len(_quoted(item[0])) for item in items), default=0), 40)
    rows = [f"{_quoted(item[0]):{width}}  {' '.join(map(_quoted, item[1:]))}".rstrip() for item in items]
    more = [] if page["next"] is None else [f"more: {_quoted(page['next'])} is next"]
    return "\n".join([*rows, *more]) or "nothing"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def name_and_options(usage: str) -> tuple[str, list[str]]:
    """Take a usage apart: ``"COUNT [PREFIX p]"`` is ``COUNT`` with the option word ``PREFIX``."""
    words = usage.split(" ")
    count = next((number for number, word in enumerate(words) if not word.isupper() or word[0] == "["), len(words))
    bare = [word.strip("[]") for word in words[count:]]
    return " ".join(words[:count]), [word for word in bare if word.isalpha() and word.isupper()]
