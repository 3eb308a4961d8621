"""What ``kvd shell`` says to a server, and how it shows the replies; without a terminal."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from kvd import wire
from kvd.client.link import Link
from kvd.errors import KvdError


class Conversation:
    """What is said to a server, and what is known of it.

    :param connect: makes a connection.
    :ivar usages: the server's commands, as its HELP tells them: what each does, by its usage.
    :ivar transaction: the state of the open transaction in a word or two; empty if none is open.
    :ivar over: whether the user wants to leave.
    """

    def __init__(self, connect: Callable[[], Awaitable[Link]]) -> None:
        self._connect = connect
        self._link: Link | None = None
        self.usages: dict[str, str] = {}
        self.transaction = ""
        self.over = False

    async def begin(self) -> None:
        """Connect, and learn what commands there are."""
        self._link = await self._connect()
        found = json.loads(await self._link.send(b"HELP\n")).get("result")
        self.usages.clear()
        self.usages.update(found if isinstance(found, dict) else {})

    async def ask(self, line: str) -> str:
        """Send a line, and tell what came back."""
        try:
            if self._link is None or self._link.lost is not None:
                await self.begin()
            assert self._link is not None
            reply = json.loads(await self._link.send(line.encode(errors="surrogateescape") + b"\n"))
            name = _name(line)
            self.over = name == "QUIT" and reply["status"] == "Ok"
            if not self.over and (self.transaction or name == "START"):
                self.transaction = _state(json.loads(await self._link.send(b"CHECK\n")))
        except Exception as error:
            was_open, self.transaction = self.transaction, ""
            lost = "; the transaction is rolled back, unless its COMMIT had arrived" if was_open else ""
            return f"no reply: {str(error) or type(error).__name__}{lost}"
        return pretty(reply)

    @property
    def prompt(self) -> str:
        """What stands in front of the next line."""
        return f"kvd ({self.transaction})> " if self.transaction else "kvd> "

    def end(self) -> None:
        """Close the connection."""
        if self._link is not None and self._link.lost is None:
            self._link.close()


def _name(line: str) -> str:
    try:
        name, _ = wire.parse(line)
    except KvdError:
        return ""
    return name


def _state(check: dict[str, Any]) -> str:
    """The state of the transaction, from the reply to CHECK."""
    if check["status"] == "Ok":
        if check["result"]["commits"]:
            return "transaction"
        return "transaction, in conflict" if check["result"]["conflicts"] else "transaction, doomed"
    states = {"NO_TRANSACTION": "", "TXN_EXPIRED": "transaction, expired"}
    return states.get(check["code"], "transaction, doomed")


# Replies for people.


def pretty(reply: dict[str, Any]) -> str:
    """A reply as it is shown. What could play tricks with the terminal is shown as an escape."""
    if reply["status"] != "Ok":
        text = f"{reply['code']}: {reply['mesg']}"
    elif "result" not in reply:
        text = "Ok"
    else:
        text = _pretty_result(reply["result"])
    return "".join(letter if letter.isprintable() or letter == "\n" else f"\\u{ord(letter):04x}" for letter in text)


def _pretty_result(result: Any) -> str:
    if isinstance(result, dict) and result and all(isinstance(value, str) for value in result.values()):
        width = min(max(map(len, result)), 24)
        return "\n".join(f"{name:{width}}  {value}" for name, value in result.items())
    if isinstance(result, dict) and result.keys() == {"items", "next"}:
        items = [item if isinstance(item, list) else [item] for item in result["items"]]
        width = min(max((len(_quoted(item[0])) for item in items), default=0), 40)
        rows = [f"{_quoted(item[0]):{width}}  {' '.join(map(_quoted, item[1:]))}".rstrip() for item in items]
        more = [] if result["next"] is None else [f"more: {_quoted(result['next'])} is next"]
        return "\n".join([*rows, *more]) or "nothing"
    return json.dumps(result, ensure_ascii=False, indent=2)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def name_and_options(usage: str) -> tuple[str, list[str]]:
    """Take a usage apart: ``"COUNT [PREFIX p]"`` is ``COUNT`` with the option word ``PREFIX``."""
    words = usage.split(" ")
    count = next((number for number, word in enumerate(words) if not word.isupper() or word[0] == "["), len(words))
    bare = [word.strip("[]") for word in words[count:]]
    return " ".join(words[:count]), [word for word in bare if word.isalpha() and word.isupper()]
