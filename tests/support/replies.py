"""Replies, written and read."""

from __future__ import annotations

import json

OK = b'{"status": "Ok"}\n'


def result(value: object) -> bytes:
    return json.dumps({"status": "Ok", "result": value}).encode() + b"\n"


def code(reply: bytes) -> str:
    """The code of the one reply that is an Error."""
    answer = json.loads(reply)
    assert list(answer)[:2] == ["status", "mesg"]
    assert answer["status"] == "Error"
    return str(answer["code"])
