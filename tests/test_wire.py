"""Pure parsing and printing: nothing that comes from outside breaks it, and what goes out is one line of ASCII JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kvd import wire
from kvd.core.arguments import integer_in, prefix_range
from kvd.core.lines import cut_lines
from kvd.errors import BY_CODE, BadRequest, Conflict, KvdError, SpeaksHttp, TooLarge
from kvd.testing.conversations import Server

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.text("PO STHos:TP/1.0x\r"), st.sampled_from(["", "GET a\n", "é\n", "\r\n"]))
@example("GET / HTTP/1.1", "")
def test_a_line_speaks_http_by_its_ends_alone(line: str, before: str) -> None:
    cut = cut_lines(f"{before}{line}\r\n".encode())[-1]
    assert cut == line
    try:
        wire.parse(line)
        seen = False
    except SpeaksHttp:
        seen = True
    except BadRequest:
        seen = False
    assert seen == (line.endswith((" HTTP/1.0", " HTTP/1.1")) or line.startswith(("POST ", "Host:")))


@given(st.text(st.characters(max_codepoint=0x250), min_size=1000, max_size=1100))
@example("x" * 2000)
@example("x" * 2000 + "\x7f")
@example("x" * 16 * 1024 + '"' + "x" * 40_000)
@example("x" * 50_000 + "\\")
def test_long_texts_are_printed_as_short_ones(text: str) -> None:
    assert wire.text_result(text) == json.dumps({"status": "Ok", "result": text}) + "\n"
    assert wire.values_result([text, "x"]) == json.dumps({"status": "Ok", "result": [text, "x"]}) + "\n"


@given(st.binary())
def test_any_bytes_are_cut_into_lines_of_text_or_refusals(data: bytes) -> None:
    lines = cut_lines(data + b"\n")
    assert len(lines) == data.count(b"\n") + 1
    for raw, line in zip(data.split(b"\n"), lines, strict=True):
        if isinstance(line, str):
            assert line.encode() in (raw, raw.removesuffix(b"\r"))
        else:
            assert raw.decode(errors="replace").encode() != raw


@given(TEXT)
@example("[" * 5000)
@example('["GET", 1e999]')
def test_any_line_is_a_request_or_a_bad_request(line: str) -> None:
    try:
        request = wire.parse(line)
    except BadRequest:
        return
    assert all(word is None or type(word) in (str, int) for word in [request[0], *request[1]])


@given(TEXT.filter(lambda text: text and " " not in text), TEXT)
def test_the_json_form_carries_any_key_and_value(key: str, value: str) -> None:
    line = wire.request("PUT", key, value)
    assert line.isascii()
    assert cut_lines(line) == [line.decode("ascii").rstrip("\n")]
    assert wire.parse(line.decode("ascii")[:-1]) == ("PUT", [key, value])


@given(
    TEXT.filter(lambda text: text and " " not in text and "\n" not in text), TEXT.filter(lambda text: "\n" not in text)
)
def test_the_plain_form_carries_any_key_without_spaces_and_any_value_of_one_line(key: str, value: str) -> None:
    line = f"PUT {key} {value}"
    assume(not line.endswith((" HTTP/1.0", " HTTP/1.1")))
    assert wire.parse(line) == ("PUT", [key, value])


@given(TEXT | st.none())
def test_a_result_is_printed_as_json_prints_it(value: str | None) -> None:
    assert wire.text_result(value) == json.dumps({"status": "Ok", "result": value}) + "\n"
    assert wire.values_result([value, "x"]) == json.dumps({"status": "Ok", "result": [value, "x"]}) + "\n"


def test_every_code_has_a_class_and_comes_back_as_it() -> None:
    for code, error_class in BY_CODE.items():
        error = wire.error_from(json.loads(wire.error(error_class("why", key="k"))))
        assert (type(error), error.code, error.mesg, error.fields) == (error_class, code, "why", {"key": "k"})
    assert isinstance(wire.error_from({"status": "Error", "mesg": "from a newer server", "code": "NEW"}), KvdError)
    assert json.loads(wire.error(Conflict("m", key="k", by=2))) == {
        "status": "Error",
        "mesg": "m",
        "code": "CONFLICT",
        "key": "k",
        "by": 2,
    }


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_integer_of_64_bits_is_one(number: int) -> None:
    assert integer_in(str(number)) == number
    assert integer_in(f"{'-' * (number < 0)}000{abs(number)}") == number


@given(
    st.one_of(
        TEXT.filter(lambda text: not text.lstrip("-").isdigit()), st.sampled_from(["", "-", "--1", "+1", "١", "²"])
    )
)
def test_nothing_else_is_an_integer(text: str) -> None:
    assert integer_in(text) is None


@given(TEXT, TEXT)
@example("\ud7ff", "\ud7ff\U0010ffff")
@example("a\U0010ffff", "b")
def test_the_range_of_a_prefix_holds_just_the_keys_that_begin_with_it(prefix: str, key: str) -> None:
    low, high = prefix_range(prefix)
    for each in (key, prefix + key):
        assert (low <= each and (high is None or each < high)) == each.startswith(prefix)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=12), st.data())
def test_any_bytes_in_any_pieces_get_the_same_replies(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"\n".join([*lines, b"PING end\n"])
    server = Server()
    server.client(1).send(stream)
    place = 0
    pieces = server.client(2)
    while place < len(stream) and not pieces.closed:
        size = data.draw(st.integers(1, len(stream) - place))
        pieces.send(stream[place : place + size])
        place += size
    for client in (server.client(1), pieces):
        assert client.closed or client.transport.value().endswith(b'"result": "end"}\n')
    whole = server.client(1).received()
    assert [json.loads(line)["status"] for line in whole.splitlines()]
    assert whole == pieces.received()


@given(
    st.lists(TEXT, max_size=4).map(lambda words: ["PUT", *words])
    | st.lists(st.none() | st.integers() | TEXT, min_size=1)
)
def test_any_json_request_gets_one_reply_and_the_connection_lives_on(words: list[object]) -> None:
    server = Server()
    if words[0] not in ("QUIT", "quit"):
        replies = server.client().exchange(json.dumps(words).encode() + b"\nPING end\n").splitlines()
        assert len(replies) == 2
        assert json.loads(replies[1])["result"] == "end"


def test_long_lines_are_parted_like_short_ones() -> None:
    many = " " * 100_000
    assert wire.parse(f"GET{many}a{many}") == ("GET", ["a"])
    assert wire.parse(f"MGET a{many}b c  d") == ("MGET", ["a", "b", "c", "d"])
    assert wire.parse("MGET" + " key" * wire.MAX_WORDS + many) == ("MGET", ["key"] * wire.MAX_WORDS)
    with pytest.raises(TooLarge):
        wire.parse("MGET" + "  k" * (wire.MAX_WORDS + 1) + many)
    assert wire.parse("GET" + many) == ("GET", [])


def test_a_list_of_values_is_json() -> None:
    each: list[list[str | None]] = [[], [None], ["a", None, "é"]]
    for values in each:
        assert json.loads(wire.values_result(values)) == {"status": "Ok", "result": values}
