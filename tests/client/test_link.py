"""Any bytes in place of a server's replies: no request gets another one's, and what is no reply is an error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from kvd import requests
from kvd.client.link import Link, NotKvd
from kvd.errors import Busy, Idle, Internal, KvdError
from kvd.requests import Page

LINES = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b""))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
# What a server might say that nearly is one, or is of another version.
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["Ok", "Error", "ok"]) | VALUES,
        "result": VALUES,
        "mesg": st.text(max_size=5) | VALUES,
        "code": st.sampled_from(["CONFLICT", "NEW"]) | VALUES,
        "key": VALUES,
        "self": VALUES,
        "by": VALUES,
    },
)
REPLIES = LINES | (VALUES | NEARLY).map(lambda value: json.dumps(value).encode())
DEEP = b"[" * 100_000
LONG = b'{"status": "Ok", "result": ' + b"9" * 5000 + b"}"


class Lines:
    """A link, and what came of the requests sent on it: a reply, an exception, or None for neither yet."""

    def __init__(self, number: int) -> None:
        self.transport = StringTransport(peerAddress=UNIXAddress(None))
        self.link = Link()
        self.link.makeConnection(self.transport)
        self.found: list[Any] = [None] * number
        for place in range(number):
            self.link.send(b"PING\n").addBoth(self._take, place)

    def _take(self, result: bytes | Failure, place: int) -> None:
        assert self.found[place] is None
        self.found[place] = result.value if isinstance(result, Failure) else result

    @property
    def given_up(self) -> bool:
        return self.transport.disconnecting


def outcome(ask: Callable[[], Any]) -> Any:
    """What a call returns, or the error of ours that it raises; any other comes through."""
    try:
        return ask()
    except KvdError as error:
        return error if isinstance(error.mesg, str) and isinstance(error.code, str) else repr(error)


@given(st.lists(LINES, max_size=6), st.integers(0, 6), LINES, st.data())
def test_each_request_gets_its_own_line_however_the_bytes_are_split(
    lines: list[bytes], asked: int, rest: bytes, data: st.DataObject
) -> None:
    stream = b"".join(line + b"\n" for line in lines) + rest
    lines_of = Lines(asked)
    while stream and not lines_of.given_up:
        size = data.draw(st.integers(1, len(stream)))
        lines_of.link.dataReceived(stream[:size])
        stream = stream[size:]
    assert lines_of.found == lines[:asked] + [None] * (asked - len(lines))
    # What nobody asked for ends the connection: the next reply might not be the one that belongs.
    assert lines_of.given_up == (len(lines) > asked) == (lines_of.link.lost is not None)
    lines_of.link.connectionLost(Failure(ConnectionDone()))
    assert all(isinstance(found, ConnectionDone) for found in lines_of.found[len(lines) :])


@given(REPLIES)
@example(DEEP)
@example(b'{"status": "Error", "mesg": "full", "code": "BUSY"}')
@example(b'{"status": "Error", "mesg": "you were silent", "code": "IDLE"}')
@example(b'{"status": "Error", "mesg": "it says nothing was stored", "code": "UNAVAILABLE"}')
@example(b'{"status": "Ok", "mesg": "full", "code": []}')
def test_any_line_that_nobody_asked_for_ends_the_connection_with_a_told_reason(line: bytes) -> None:
    lines = Lines(0)
    lines.link.dataReceived(line + b"\n")
    assert lines.given_up
    assert lines.link.lost is not None
    reason = lines.link.lost.value
    assert isinstance(reason, Busy | Idle | NotKvd)
    assert str(reason)


@given(REPLIES)
@example(DEEP)
@example(LONG)
@example(b'{"status": "Error", "mesg": "m", "code": "CONFLICT", "self": 1}')
@example(b'{"status": "Error", "mesg": 5, "code": "CONFLICT"}')
@example(b'{"status": "Error", "mesg": "m", "code": ["CONFLICT"]}')
def test_any_line_is_a_result_or_an_error_of_ours(line: bytes) -> None:
    found = outcome(lambda: requests.result(line))
    if not isinstance(found, KvdError):
        reply = json.loads(line)
        assert reply["status"] == "Ok"
        # Not compared as values: NaN is not itself.
        assert json.dumps(reply.get("result")) == json.dumps(found)


@given(VALUES | st.fixed_dictionaries({"items": VALUES, "next": VALUES}), st.booleans())
def test_any_result_of_a_scan_is_a_page_or_an_error_of_ours(found: Any, keys_only: bool) -> None:
    try:
        page = requests.page(found, keys_only)
    except Internal:
        return
    assert isinstance(page, Page)
    assert page.next is None or isinstance(page.next, str)
    for item in page.items:
        key, value = (item, "") if keys_only else item
        assert isinstance(key, str)
        assert isinstance(value, str)
