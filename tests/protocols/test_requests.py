"""Bytes in, bytes out: framing, both request forms, sizes, exact replies."""

from __future__ import annotations

import json

import pytest

from kvd import wire
from kvd.core.commands import ROWS
from kvd.testing.conversations import Connection, Server
from tests.support.replies import OK, code, result

MIB = 1024 * 1024


# Framing


def test_the_transcript_of_the_readme_gets_these_very_bytes(client: Connection) -> None:
    assert client.exchange(b"PUT most_popular_leader georgew\r\n") == OK
    assert client.exchange(b"START\r\n") == OK
    assert client.exchange(b"GET most_popular_leader\r\n") == b'{"status": "Ok", "result": "georgew"}\n'
    assert client.exchange(b'PUT georgew {"first_name": "George"}\r\n') == OK
    assert client.exchange(b"COMMIT\r\n") == OK
    assert client.exchange(b"GET georgew\r\n") == b'{"status": "Ok", "result": "{\\"first_name\\": \\"George\\"}"}\n'
    assert client.exchange(b"GET nothing\r\n") == b'{"status": "Ok", "result": null}\n'


def test_requests_may_be_cut_and_joined_anywhere(server: Server) -> None:
    requests = 'PUT k é\r\n\r\nGET k\nSTART\n["GET", "k"]\r\nCOMMIT\nPING  a b \n'.encode()
    expected = OK + result("é") + OK + result("é") + OK + result(" a b ")
    assert server.client(1).exchange(requests) == expected
    for number in range(len(requests)):
        client = server.client(2 + number)
        client.send(requests[:number])
        client.send(requests[number:])
        assert client.received() == expected
    slowly = server.client(2 + len(requests))
    for byte in requests:
        slowly.send(bytes([byte]))
    assert slowly.received() == expected


def test_blank_lines_get_no_reply(client: Connection) -> None:
    assert client.exchange(b"\n\r\n   \n \r\n") == b""
    assert code(client.exchange(b"\t\n")) == "UNKNOWN_COMMAND"


def test_only_one_carriage_return_belongs_to_the_end_of_a_line(client: Connection) -> None:
    assert client.exchange(b"PUT k v\r\r\nGET k\n") == OK + result("v\r")


def test_replies_are_ascii(client: Connection) -> None:
    assert client.exchange("PUT k café 😀\nGET k\n".encode()) == (
        OK + b'{"status": "Ok", "result": "caf\\u00e9 \\ud83d\\ude00"}\n'
    )


def test_a_line_that_is_no_utf8_is_refused_and_the_next_one_works(client: Connection) -> None:
    replies = client.exchange(b"PUT k ok\nPUT k \xff\xfe\nGET k\n").splitlines(keepends=True)
    assert (replies[0], code(replies[1]), replies[2]) == (OK, "BAD_REQUEST", result("ok"))
    assert b"byte 6 of it is 0xff" in replies[1]
    assert code(client.exchange(b"GET \xed\xa0\x80\n")) == "BAD_REQUEST"  # a surrogate


def test_a_line_over_the_limit_is_skipped_and_the_requests_behind_it_run(client: Connection) -> None:
    endless = b"PUT k " + b"x" * wire.MAX_LINE + b"\nPING\n"
    replies = client.exchange(endless).splitlines(keepends=True)
    assert (code(replies[0]), replies[1]) == ("TOO_LARGE", result("PONG"))
    assert str(wire.MAX_LINE).encode() in replies[0]
    assert str(wire.MAX_LINE + 6).encode() in replies[0]


def test_a_line_over_the_limit_that_comes_in_pieces_is_not_kept(client: Connection) -> None:
    client.send(b"PUT k ")
    for _ in range(130):
        client.send(b"x" * 64 * 1024)
        assert client.protocol.session.buffers.held <= wire.MAX_LINE + 1
    assert client.received() == b""
    replies = client.exchange(b"xx\r\nPING\n").splitlines(keepends=True)
    assert (code(replies[0]), replies[1]) == ("TOO_LARGE", result("PONG"))
    assert str(6 + 130 * 64 * 1024 + 2).encode() in replies[0]


@pytest.mark.parametrize("pieces", [1, 100])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_of_just_the_limit_is_a_request(client: Connection, end: bytes, pieces: int) -> None:
    line = b"PING " + b"x" * (wire.MAX_LINE - 5) + end
    size = len(line) // pieces + 1
    for start in range(0, len(line), size):
        client.send(line[start : start + size])
    assert client.received() == result("x" * (wire.MAX_LINE - 5))
    assert code(client.exchange(b"x" + line)) == "TOO_LARGE"


def test_a_start_over_the_line_limit_aborts_what_follows(client: Connection) -> None:
    client.send(b"START" + b" " * wire.MAX_LINE)
    replies = client.exchange(b"\nPUT a 1\nCOMMIT\nGET a\n").splitlines(keepends=True)
    assert [code(reply) for reply in replies[:3]] == ["TOO_LARGE", "ABORTED", "ABORTED"]
    assert replies[3] == result(None)


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1", b"PUT k v HTTP/1.0", b"POST /x", b"Host: localhost:8765", b"Host:x", b"GET /\xff HTTP/1.1"],
)
def test_http_is_refused_and_the_connection_closed(client: Connection, line: bytes) -> None:
    assert code(client.exchange(line + b"\r\nPUT k forged\r\n")) == "BAD_REQUEST"
    assert client.closed


def test_http_is_no_start_whatever_it_begins_with(server: Server, client: Connection) -> None:
    assert code(client.exchange(b"START HTTP/1.1\n")) == "BAD_REQUEST"
    assert client.closed
    assert server.service.core.info()["transactions"]["rolled_back"] == 0


def test_http_inside_a_value_is_no_http(client: Connection) -> None:
    assert client.exchange(b"PUT k a HTTP/1.1 request\nPUT k see Host:\nGET k\n") == OK + OK + result("see Host:")


# The plain form


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"PUT k v", "v"),
        (b"put   k v", "v"),
        (b"   PuT k v", "v"),
        (b"PUT k  v", " v"),
        (b"PUT k v ", "v "),
        (b"PUT k ", ""),
        (b"PUT k  ", " "),
        (b"PUT k two  words", "two  words"),
        (b'PUT k "a"', '"a"'),
        (b"PUT k a\tb\0c", "a\tb\0c"),
        (b'PUT k ["a"]', '["a"]'),
        (b'["PUT", "k", "two\\nlines"]', "two\nlines"),
        (b'  ["put","k","\\ud83d\\ude00 \\u0000"]  ', "😀 \0"),
    ],
)
def test_a_value_is_stored_to_the_letter(client: Connection, line: bytes, value: str) -> None:
    assert client.exchange(line + b"\nGET  k \n") == OK + result(value)


def test_tabs_belong_to_words(client: Connection) -> None:
    assert client.exchange(b"PUT a\tb 1\nGET a\tb\n") == OK + result("1")
    assert code(client.exchange(b"GET\ta\n")) == "UNKNOWN_COMMAND"


def test_only_ascii_letters_have_capitals(client: Connection) -> None:
    assert code(client.exchange("ſtart\n".encode())) == "UNKNOWN_COMMAND"
    assert client.exchange(b"GET a\n") == result(None)


def test_ping_answers_its_text_to_the_letter(client: Connection) -> None:
    assert client.exchange(b'PING\nping a  b \nPING \n["PING", "x"]\n') == (
        result("PONG") + result("a  b ") + result("") + result("x")
    )


@pytest.mark.parametrize(
    "line",
    [
        "PUT", "PUT k", "GET", "GET a b", "DEL", "DEL a b", "START now", "MGET", "EXISTS", "EXISTS a b", "INCR",
        "INCR a b", "INCR a 1 2", "CAS a b", "CAS a b c d", "SCAN x", "SCAN LIMIT", "SCAN LIMIT 0", "SCAN LIMIT 10001",
        "SCAN LIMIT x", "SCAN LIMIT 1 LIMIT 1", "SCAN PREFIX", "COUNT x", "COUNT PREFIX", "INFO nosuch", "QUIT now",
    ],
)  # fmt: skip
def test_wrong_arguments_get_the_usage(client: Connection, line: str) -> None:
    reply = client.exchange(line.encode() + b"\n")
    assert code(reply) == "BAD_ARGUMENTS"
    row = next(row for row in ROWS if row.name == line.split()[0])
    assert row.usage in json.loads(reply)["mesg"] or line.startswith("INFO")
    assert client.exchange(b"ROLLBACK\nPING\n").endswith(result("PONG"))


# The JSON form


@pytest.mark.parametrize(
    "line",
    [
        "[", "[]", "[1]", "[null]", '["GET", "a"', '["GET", "a"] x', '["GET", ["a"]]', '["GET", {"a": 1}]',
        '["GET", true]', '["GET", false]', '["INCR", "n", 1.5]', '["INCR", "n", 1e3]', '["INCR", "n", NaN]',
        '["INCR", "n", -Infinity]',
        r'["GET", "\ud800"]', r'["GET", "\udc00\ud800"]', '["GET", "a\tb"]', "[" * 100_000, '[["PING"]]',
        "['PING']", '["PING",]', r'["\ud800"]',
    ],
)  # fmt: skip
def test_what_is_no_flat_array_of_strings_is_a_bad_request(client: Connection, line: str) -> None:
    assert code(client.exchange(line.encode() + b"\n")) == "BAD_REQUEST"
    assert client.exchange(b"PING\n") == result("PONG")


@pytest.mark.parametrize(
    "line",
    [
        '["GET", 1]', '["GET", null]', '["PUT", "k", 1]', '["PUT", "k", null]', '["CAS", "k", 1, "2"]',
        '["INCR", "n", null]', '["INCR", "n", 9223372036854775808]', '["INCR", "n", 1' + "0" * 5000 + "]",
        '["GET", ""]', '["PUT", "", "v"]',
        '["SCAN", "LIMIT", "x"]', '["SCAN", null]', '["SCAN", 5]', '["PING", 1]', '["MGET", "a", 1]',
        '["SCAN", "PREFIX", 1]', '["HELP", 1]',
    ],
)  # fmt: skip
def test_a_number_or_null_where_a_string_belongs_is_a_bad_argument(client: Connection, line: str) -> None:
    assert code(client.exchange(line.encode() + b"\n")) == "BAD_ARGUMENTS"


def test_scan_takes_its_limit_as_a_number_or_a_string(client: Connection) -> None:
    empty = result({"items": [], "next": None})
    assert client.exchange(b'["SCAN", "LIMIT", 5]\n["scan", "limit", "5", "KEYS"]\n') == empty + empty


# Sizes


def test_keys_have_at_most_1024_bytes(client: Connection) -> None:
    assert client.exchange(b"PUT " + b"k" * 1024 + b" v\nGET " + "é".encode() * 512 + b"\n") == OK + result(None)
    reply = client.exchange(b"GET " + b"k" * 1025 + b"\n")
    assert code(reply) == "TOO_LARGE"
    assert b"1025 bytes" in reply
    assert b"1024" in reply
    assert code(client.exchange("GET {}\n".format("é" * 513).encode())) == "TOO_LARGE"


def test_values_have_at_most_a_mebibyte(client: Connection) -> None:
    largest = "é" * (MIB // 2)
    assert client.exchange(f"PUT k {largest}\n".encode()) == OK
    assert json.loads(client.exchange(b"GET k\n"))["result"] == largest
    assert code(client.exchange(f"PUT k {largest}x\n".encode())) == "TOO_LARGE"
    assert code(client.exchange(json.dumps(["CAS", "k", largest, largest + "x"]).encode() + b"\n")) == "TOO_LARGE"
    escaped = "[" + json.dumps("PUT") + ", " + json.dumps("k") + ', "' + "\\u0001" * MIB + '"]\n'
    assert client.exchange(escaped.encode()) == OK


def test_a_reply_over_its_limit_is_not_sent(client: Connection) -> None:
    client.exchange(b"PUT k " + b"x" * MIB + b"\n")
    assert len(client.exchange(b"MGET" + b" k" * 15 + b"\n")) > 15 * MIB
    reply = client.exchange(b"MGET" + b" k" * 16 + b"\n")
    assert code(reply) == "TOO_LARGE"
    assert str(wire.MAX_REPLY).encode() in reply
    assert code(client.exchange("PING {}\n".format("é" * (3 * MIB)).encode())) == "TOO_LARGE"


@pytest.mark.parametrize("form", ["plain", "json", "spaced"])
def test_a_request_has_at_most_10000_arguments(client: Connection, form: str) -> None:
    def mget(number: int) -> bytes:
        if form == "json":
            return json.dumps(["MGET", *["k"] * number]).encode() + b"\n"
        return b"MGET" + (b" k" if form == "plain" else b"         k") * number + b"\n"

    assert client.exchange(mget(10_000)) == result([None] * 10_000)
    reply = client.exchange(mget(10_001))
    assert code(reply) == "TOO_LARGE"
    assert b"10000" in reply


def test_names_of_savepoints_have_1_to_64_bytes(client: Connection) -> None:
    assert client.exchange(b"START\nSAVEPOINT " + b"s" * 64 + b"\n") == OK + OK
    assert code(client.exchange(b"SAVEPOINT " + b"s" * 65 + b"\n")) == "TOO_LARGE"
    assert client.exchange(b"ROLLBACK\nSTART\n") == OK + OK
    assert code(client.exchange(b'["SAVEPOINT", ""]\n')) == "BAD_ARGUMENTS"


# INFO, QUIT


def test_info_tells_of_server_clients_store_transactions_and_commands(server: Server, client: Connection) -> None:
    server.play("""
        2 START   -> ok
        2 PUT a 1 -> ok
        2 COMMIT  -> ok
        2 START   -> ok
        2 NOSUCH  -> UNKNOWN_COMMAND
    """)
    info = client.ask("INFO")["result"]
    assert list(info) == ["server", "clients", "store", "transactions", "commands"]
    assert info["clients"]["connected"] == 2
    assert info["store"]["name"] == "memory"
    assert info["store"]["keys"] == 1
    assert (info["transactions"]["open"], info["transactions"]["committed"]) == (1, 1)
    assert info["commands"]["calls"] == {"START": 2, "PUT": 1, "COMMIT": 1, "INFO": 1}
    assert info["commands"]["errors"] == {"UNKNOWN_COMMAND": 1}
    assert client.ask("info Store")["result"] == info["store"]


def test_quit_answers_closes_and_drops_the_requests_behind_it(server: Server, client: Connection) -> None:
    assert client.exchange(b"QUIT\nPUT a 1\n") == OK
    assert client.closed
    server.play("2 GET a -> null")
