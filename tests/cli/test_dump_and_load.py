"""``kvd dump`` and ``kvd load``, as processes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import KVD, Done, begun, complaint, ended, kvd, peak_memory, to
from tests.support.daemon import LIMIT, Daemon, wait_for
from tests.support.scripted_server import ScriptedServer

OK = b'{"status": "Ok"}\n'
LIMITS = b'{"status": "Ok", "result": {"keys_limit": 0, "bytes_limit": 0}}\n'

ODD = {
    " ": "",
    '"': 'a "quote" and a \\',
    "-": "a\nb\r\nc\rd\x0b\x0c\x1c\x1d\x1e",
    "\x00": "\x00nul\x00",
    "\n": "line separators \x85 \u2028 \u2029",
    "\x1b[2J": "\x9b2J",
    "[1, 2]": "null",
    "k" * 1024: "v" * 2**20,
    "é" * 512: "é" * 2**19,
    "\u0091\x00\xff": "\u0091\xff\x00",
    "\u2028": "\ufeff",
    "日本語": "日本語",
    "🐘" * 256: "🐘" * 2**18,
    "\U0010ffff": "\x01" * 2**20,
}
"""Keys and values that are easily spoilt."""


def lines_of(pairs: dict[str, str]) -> bytes:
    return b"".join([json.dumps(pair).encode() + b"\n" for pair in pairs.items()])


def numbered(first: int, last: int) -> bytes:
    return lines_of({f"key:{number:06}": str(number) for number in range(first, last + 1)})


def count(daemon: Daemon) -> int:
    number = json.loads(daemon.client().ask("COUNT"))["result"]
    assert isinstance(number, int)
    return number


def value(daemon: Daemon, key: str) -> str | None:
    found: str | None = json.loads(daemon.client().ask(json.dumps(["GET", key])))["result"]
    return found


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Daemon]:
    """A second daemon."""
    directory = tmp_path / "other"
    directory.mkdir()
    with Daemon(directory, "--port", "0") as daemon:
        yield daemon.started()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that holds an older dump, in a directory of its own."""
    directory = tmp_path / "files"
    directory.mkdir()
    path = directory / "pairs.jsonl"
    path.write_bytes(b"an older dump\n")
    return path


def is_as_it_was(file: Path) -> bool:
    return os.listdir(file.parent) == [file.name] and file.read_bytes() == b"an older dump\n"


def load(daemon: Daemon, data: bytes, *options: str) -> Done:
    return kvd("load", "-", to(daemon), *options, stdin=data)


# A dump.


def test_a_dump_has_a_line_for_each_pair_in_the_order_of_the_keys(daemon: Daemon, file: Path) -> None:
    for request in ("PUT b 2", "PUT é ü", "PUT a 1", "PUT empty "):
        daemon.client().ask(request)
    done = kvd("dump", to(daemon), file)
    assert file.read_text(encoding="utf-8") == '["a", "1"]\n["b", "2"]\n["empty", ""]\n["é", "ü"]\n'
    assert done.stderr.decode() == f"4 pairs written to {file}\n"
    assert (done.returncode, done.stdout, os.listdir(file.parent)) == (0, b"", [file.name])


def test_a_dash_is_standard_output(daemon: Daemon) -> None:
    daemon.client().ask("PUT a 1")
    done = kvd("dump", "-", to(daemon))
    assert (done.returncode, done.stdout) == (0, b'["a", "1"]\n')
    assert done.stderr == b"1 pair written to standard output\n"


def test_a_server_without_keys_makes_a_dump_without_lines(daemon: Daemon, file: Path) -> None:
    assert kvd("dump", file, to(daemon)).returncode == 0
    assert file.read_bytes() == b""


def test_a_dump_with_a_prefix_has_no_other_keys(daemon: Daemon) -> None:
    load(daemon, lines_of({"a": "0", "b": "1", "b:1": "2", "c": "3"}))
    assert kvd("dump", "-", "--prefix", "b", to(daemon)).stdout == b'["b", "1"]\n["b:1", "2"]\n'
    assert kvd("dump", "-p", "none", "-", to(daemon)).stdout == b""


def test_a_dump_has_all_pages(daemon: Daemon) -> None:
    pairs = numbered(1, 20_001)
    assert load(daemon, pairs).stderr == b"20,001 pairs of standard input stored\n"
    assert kvd("dump", "-", to(daemon)).stdout == pairs


def test_a_dump_has_one_line_for_each_pair_whatever_is_in_it(daemon: Daemon) -> None:
    load(daemon, lines_of(ODD))
    dumped = kvd("dump", "-", to(daemon)).stdout.decode()
    assert [tuple(json.loads(line)) for line in dumped.splitlines()] == sorted(ODD.items())
    assert not {"\x1b", "\x9b"} & set(dumped)


def test_a_dump_is_of_one_instant_and_waits_for_its_reader(daemon: Daemon) -> None:
    pairs = {f"{number}": f"{number}" * 2**19 for number in range(1, 6)}
    load(daemon, lines_of(pairs))
    with begun("dump", "-", to(daemon)) as process:
        assert process.stdout
        first = process.stdout.read(1)
        client = daemon.client()
        client.ask("PUT 5 new")
        client.ask("PUT 6 new")
        client.ask("DEL 4")
        done = ended(process)
    assert first + done.stdout == lines_of(pairs)


def test_the_reading_transaction_of_a_dump_is_over_at_its_end(daemon: Daemon) -> None:
    kvd("dump", "-", to(daemon))
    transactions = json.loads(daemon.client().ask("INFO transactions"))["result"]
    assert (transactions["open"], transactions["committed"]) == (0, 1)


def pages(request: bytes, more: bool = True) -> bytes:
    """A reply to each request of a dump, whose every page has a page after it."""
    if b"SCAN" not in request:
        return OK
    return (
        json.dumps({"status": "Ok", "result": {"items": [["a", "1", None]], "next": "b" if more else None}}).encode()
        + b"\n"
    )


EXPIRED = (
    b'{"status": "Error", "mesg": "the server ended this transaction: %s; ROLLBACK, then START again", '
    b'"code": "TXN_EXPIRED"}\n'
)


@pytest.mark.parametrize(
    ("reply", "status", "says"),
    [
        (b"", 2, "the server closed the connection"),
        (b"HTTP/1.1 400 Bad Request\n", 2, "not a kvd server"),
        (b'{"status": "Ok", "result": [1]}\n', 2, "not a kvd server"),
        (EXPIRED % b"it was idle for more than 60 seconds", 1, "--transaction-idle"),
        (EXPIRED % b"the old values that it and others could see took 9 bytes of memory", 1, "--max-memory"),
        (EXPIRED % b"KILL", 1, "the server ended this transaction: KILL"),
    ],
)
def test_a_dump_that_breaks_off_leaves_the_file_as_it_was(file: Path, reply: bytes, status: int, says: str) -> None:
    with ScriptedServer(lambda data: reply if b"FROM" in data else pages(data)) as scripted:
        done = kvd("dump", file, to(scripted))
    assert says in complaint(done, status)
    assert is_as_it_was(file)


def test_an_interrupted_dump_leaves_the_file_as_it_was(file: Path) -> None:
    with (
        ScriptedServer(lambda data: None if b"FROM" in data else pages(data)) as scripted,
        begun("dump", file, to(scripted)) as process,
    ):
        wait_for(lambda: b"FROM" in scripted.received, "the second page to be asked for")
        process.send_signal(signal.SIGINT)
        assert "interrupted" in complaint(ended(process), 130)
    assert is_as_it_was(file)


def test_an_interrupt_ends_a_dump_that_nobody_reads(daemon: Daemon) -> None:
    load(daemon, lines_of({f"{number}": "x" * 2**20 for number in range(3)}))
    with begun("dump", "-", to(daemon)) as process:
        assert process.stdout
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130


def test_a_dump_that_nobody_reads_for_too_long_says_which_limit_the_server_has(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", "--transaction-idle", "0.3") as daemon:
        daemon.started()
        load(daemon, lines_of({f"{number}": "x" * 2**20 for number in range(3)}))
        with begun("dump", "-", to(daemon)) as process:
            client = daemon.client()
            wait_for(lambda: '"expired": 1' in client.ask("INFO transactions"), "the transaction to expire")
            done = ended(process)
    assert "idle for more than 0.3 seconds" in complaint(done, 1)
    assert "--transaction-idle" in complaint(done, 1)


def test_a_dump_whose_old_values_take_too_much_says_which_limit_the_server_has(tmp_path: Path) -> None:
    pairs = {f"{number:02}": "x" * 2**20 for number in range(12)}
    with Daemon(tmp_path, "--port", "0", "--max-memory", "32M") as daemon:
        daemon.started()
        load(daemon, lines_of(pairs))
        with begun("dump", "-", to(daemon)) as process:
            assert process.stdout
            process.stdout.read(1)
            load(daemon, lines_of(pairs))
            said = complaint(ended(process), 1)
    assert "TXN_EXPIRED: " in said
    assert "old values" in said
    assert "(a higher --max-memory of the server prevents that)" in said


def test_a_dump_of_more_pages_than_a_transaction_may_read_says_which_limit_the_server_has(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", "--transaction-keys", "2") as daemon:
        daemon.started()
        load(daemon, lines_of({f"{number}": "x" * 2**20 for number in range(4)}))
        said = complaint(kvd("dump", "-", to(daemon)), 1)
    assert "TOO_LARGE: " in said
    assert "(a higher --transaction-keys of the server prevents that)" in said


def test_a_reader_that_has_gone_ends_a_dump_with_one_line(daemon: Daemon) -> None:
    load(daemon, lines_of({"a": "x" * 2**20}))
    with begun("dump", "-", to(daemon)) as process:
        assert process.stdout
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr
        said = process.stderr.read()
        assert complaint(subprocess.CompletedProcess([], process.wait(LIMIT), b"", said)) == (
            "kvd: can't write to standard output: Broken pipe\n"
        )


def test_a_place_that_cannot_be_written_to_is_an_error_of_one_line(daemon: Daemon, tmp_path: Path) -> None:
    load(daemon, lines_of({"a": "1"}))
    for place in (tmp_path / "nowhere" / "file", tmp_path):
        assert complaint(kvd("dump", place, to(daemon))).startswith(f"kvd: can't write to {place}: ")
    for redirection in (">/dev/full", ">&-"):
        command = f"{KVD} dump - {to(daemon)} {redirection}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=LIMIT)
        assert "can't write to standard output: " in complaint(done)


def test_what_others_may_not_read_stays_so(daemon: Daemon, file: Path) -> None:
    file.chmod(0o600)
    assert kvd("dump", file, to(daemon)).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_is_no_file_on_disk_is_written_to_and_not_replaced(daemon: Daemon, tmp_path: Path) -> None:
    load(daemon, lines_of({"a": "1"}))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with begun("dump", fifo, to(daemon)) as process:
        assert fifo.read_bytes() == b'["a", "1"]\n'
        assert ended(process).returncode == 0
    assert fifo.is_fifo()


def test_a_dump_replaces_what_a_link_means_and_not_the_link(daemon: Daemon, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert kvd("dump", link, to(daemon)).returncode == 0
    assert (link.is_symlink(), file.read_bytes()) == (True, b"")


def test_a_dump_takes_the_memory_of_some_pages_and_not_of_all() -> None:
    page = {"items": [[f"{number}", "x" * 2**16, None] for number in range(16)], "next": "n"}
    reply = json.dumps({"status": "Ok", "result": page}).encode() + b"\n"
    with (
        ScriptedServer(lambda data: reply if b"SCAN" in data else OK) as scripted,
        begun("dump", "-", to(scripted)) as process,
    ):
        assert process.stdout
        left = 200 * 2**20
        while left > 0:
            read = process.stdout.read(2**20)
            assert read, "the dump broke off"
            left -= len(read)
        assert peak_memory(process) < 120 * 2**20
        process.kill()


def shown_on(terminal: int, wanted: bytes) -> bytes:
    """What a terminal shows, up to what is wanted."""
    shown = b""

    def is_there() -> bool:
        nonlocal shown
        if select.select([terminal], [], [], 0)[0]:
            shown += os.read(terminal, 1024)
        return wanted in shown

    wait_for(is_there, f"{wanted!r} on the terminal")
    return shown


def test_a_terminal_shows_how_far_it_is(daemon: Daemon) -> None:
    load(daemon, lines_of({f"{number}": "x" * 2**20 for number in range(4)}))
    ours, theirs = pty.openpty()
    with begun("dump", "-", to(daemon), stderr=theirs) as process:
        os.close(theirs)
        shown = shown_on(ours, b"%")
        assert shown.split(b"%")[0].strip() in (b"25", b"50")
        process.communicate(timeout=LIMIT)
        assert process.returncode == 0
    os.close(ours)


def test_a_terminal_that_shows_the_dump_shows_nothing_else(daemon: Daemon) -> None:
    load(daemon, lines_of({f"{number}": "x" for number in range(2000)}))
    ours, theirs = pty.openpty()
    with begun("dump", "-", to(daemon), stderr=theirs, stdout=theirs) as process:
        os.close(theirs)
        shown = shown_on(ours, b"standard output\r\n")
        assert process.wait(LIMIT) == 0
    os.close(ours)
    assert shown.count(b"\r\n") == 2001
    assert shown.count(b"\r") == 2001


# A load.


def test_a_load_stores_the_pairs_of_a_file(daemon: Daemon, file: Path) -> None:
    file.write_bytes(numbered(1, 2500))
    done = kvd("load", to(daemon), file)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == f"2,500 pairs of {file} stored\n"
    assert kvd("dump", "-", to(daemon)).stdout == numbered(1, 2500)


def test_a_load_with_a_prefix_stores_no_other_keys(daemon: Daemon) -> None:
    done = load(daemon, lines_of({"a": "0", "b": "1", "b:1": "2", "c": "3"}), "--prefix=b")
    assert done.stderr == b"2 pairs of standard input stored\n"
    assert kvd("dump", "-", to(daemon)).stdout == b'["b", "1"]\n["b:1", "2"]\n'


def test_a_load_replaces_the_values_that_are_there_and_the_last_line_of_a_key_counts(daemon: Daemon) -> None:
    daemon.client().ask("PUT a old")
    load(daemon, b'["a", "1"]\n' + numbered(1, 1500) + b'["a", "2"]\n')
    assert value(daemon, "a") == "2"


def test_blank_lines_line_ends_of_windows_a_utf8_mark_and_a_last_line_without_end_are_fine(daemon: Daemon) -> None:
    done = load(daemon, b'\xef\xbb\xbf["a", "1"]\r\n\n  \r\n [ "b" ,\t"2" ]  \n["c", "3"]')
    assert done.stderr == b"3 pairs of standard input stored\n"
    assert kvd("dump", "-", to(daemon)).stdout == b'["a", "1"]\n["b", "2"]\n["c", "3"]\n'


def test_a_load_without_lines_stores_nothing(daemon: Daemon) -> None:
    done = load(daemon, b"")
    assert (done.returncode, done.stderr, count(daemon)) == (0, b"0 pairs of standard input stored\n", 0)


def test_keys_and_values_go_through_a_pipe_from_server_to_server_unharmed(daemon: Daemon, other: Daemon) -> None:
    for key, text in ODD.items():
        assert daemon.client().ask(json.dumps(["PUT", key, text])) == OK.decode().strip(), key
    command = f"set -o pipefail; {KVD} dump - {to(daemon)} | {KVD} load - {to(other)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (0, b"")
    for key, text in ODD.items():
        assert value(other, key) == text, key
    assert count(other) == len(ODD)


def test_a_key_without_an_end_is_stored_and_one_that_has_ended_is_left_out(daemon: Daemon) -> None:
    done = load(daemon, b'["a", "1", null]\n["b", "2", 1]\n["c", "3", -5]\n')
    assert done.stderr == b"1 pair of standard input stored; 2 had ended, and were left out\n"
    assert kvd("dump", "-", to(daemon)).stdout == b'["a", "1"]\n'


def test_a_key_that_ends_keeps_its_end_through_a_dump_and_a_load(daemon: Daemon) -> None:
    line = b'["a", "1", 4102444800000]\n'
    assert load(daemon, line).stderr == b"1 pair of standard input stored\n"
    assert 0 < int(float(json.loads(daemon.client().ask("TTL a"))["result"])) < 4102444800
    assert kvd("dump", "-", to(daemon)).stdout == line


def test_a_load_of_more_keys_than_a_transaction_of_the_server_may_have_is_fine(tmp_path: Path) -> None:
    with Daemon(tmp_path, "--port", "0", "--transaction-keys", "10", "--transaction-bytes", "8K") as daemon:
        daemon.started()
        assert load(daemon, numbered(1, 100)).stderr == b"100 pairs of standard input stored\n"
        assert count(daemon) == 100


def test_a_load_takes_the_memory_of_some_lines_and_not_of_all(daemon: Daemon) -> None:
    lines = lines_of({f"{number}": "x" * 2**16 for number in range(16)})
    with begun("load", "-", to(daemon)) as process:
        assert process.stdin
        for _ in range(200):
            process.stdin.write(lines)
        assert peak_memory(process) < 120 * 2**20
        process.stdin.close()
        assert process.wait(LIMIT) == 0


# Lines that can't be loaded.


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"a", "it is not JSON: Expecting value, at character 1"),
        (b'["a", "1"', "it is not JSON: "),
        (b'["a", "1"] ["b", "2"]', "it is not JSON: Extra data, at character 12"),
        (b'["a", "\t"]', "it is not JSON: "),
        (b"[" * 100_000, "it is not JSON that can be read"),
        (b"[" + b"9" * 5000 + b"]", "it is not JSON that can be read"),
        (b'{"a": "1"}', "it is not a list of a key and a value"),
        (b'"a"', "it is not a list of a key and a value"),
        (b"[]", "it is not a list of a key and a value"),
        (b'["a"]', "it is not a list of a key and a value"),
        (b'["a", "1", null, null]', "it is not a list of a key and a value"),
        (b'[1, "1"]', "the key is not a string"),
        (b'[null, "1"]', "the key is not a string"),
        (b'["a", 1]', "the value is not a string"),
        (b'["a", null]', "the value is not a string"),
        (b'["a", ["b"]]', "the value is not a string"),
        (b'["a", NaN]', "the value is not a string"),
        (b'["a", "1", "soon"]', "the end is neither null nor a whole number of milliseconds"),
        (b'["a", "1", true]', "the end is neither null nor a whole number of milliseconds"),
        (b'["a", "1", 1.5]', "the end is neither null nor a whole number of milliseconds"),
        (b'["", "1"]', "the key is empty"),
        (b'["\\ud800", "1"]', "the key holds half of a surrogate pair"),
        (b'["a", "\\udc00"]', "the value holds half of a surrogate pair"),
        (b'["a", "\xff"]', "it is not UTF-8"),
        (b'["a", "\xed\xa0\x80"]', "it is not UTF-8"),
        (b'["a", "' + b"x" * 7 * 2**20 + b'"]', "it is longer than 6,299,648 bytes, too long for a pair"),
    ],
    ids=lambda part: repr(part[:30]),
)
def test_a_line_that_is_no_pair_is_told_with_its_number_and_the_lines_before_it_are_stored(
    daemon: Daemon, file: Path, line: bytes, says: str
) -> None:
    file.write_bytes(numbered(1, 2) + line + b"\n" + numbered(4, 5))
    said = complaint(kvd("load", file, to(daemon)))
    assert said.startswith(f"kvd: {file}, line 3: {says}")
    option = to(daemon).replace("=", " ")
    assert said.endswith(f"; everything up to line 2 is stored; to go on: kvd load {file} {option} --skip 2\n")
    assert kvd("dump", "-", to(daemon)).stdout == numbered(1, 2)


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("k" * 1025, "", "TOO_LARGE: the key is 1025 bytes"),
        ("é" * 513, "", "TOO_LARGE: the key is 1026 bytes"),
        ("a", "x" * (2**20 + 1), "TOO_LARGE: the value is 1048577 bytes"),
    ],
)
def test_a_line_that_the_server_refuses_is_told_with_its_number(
    daemon: Daemon, file: Path, key: str, text: str, says: str
) -> None:
    file.write_bytes(numbered(1, 1500) + lines_of({key: text}) + numbered(1502, 1600))
    said = complaint(kvd("load", file, to(daemon)), 1)
    assert said.startswith(f"kvd: {file}, line 1501: {says}")
    assert "; everything up to line 1000 is stored, and perhaps some lines after it; to go on: " in said
    assert value(daemon, "key:001000") == "1000"
    assert value(daemon, "key:001001") is None


def test_when_the_first_line_is_faulty_nothing_is_stored_and_that_is_said(daemon: Daemon) -> None:
    said = complaint(load(daemon, b"no\n"))
    assert said.startswith("kvd: standard input, line 1: ")
    assert said.endswith(f"; nothing is surely stored; to go on: kvd load - {to(daemon).replace('=', ' ')}\n")


# Loads that break off, and go on.


def test_a_load_goes_on_after_the_lines_that_are_skipped(daemon: Daemon) -> None:
    done = load(daemon, b"no pair\n" * 2 + numbered(3, 5), "--skip", "2")
    assert done.stderr == b"3 pairs of standard input stored\n"
    assert kvd("dump", "-", to(daemon)).stdout == numbered(3, 5)
    assert load(daemon, numbered(1, 2), "--skip=7").stderr == b"0 pairs of standard input stored\n"


def test_an_error_after_lines_that_were_skipped_has_the_number_that_the_line_has_in_the_file(daemon: Daemon) -> None:
    said = complaint(load(daemon, numbered(1, 3) + b"no\n", "--skip", "2"))
    assert "standard input, line 4: " in said
    assert said.endswith(" --skip 3\n")


def test_an_interrupted_load_says_how_far_it_came_and_goes_on_from_there(daemon: Daemon) -> None:
    with begun("load", "-", to(daemon), "--prefix", "key:") as process:
        assert process.stdin
        process.stdin.write(numbered(1, 1500))
        process.stdin.write(numbered(1501, 6500))
        wait_for(lambda: count(daemon) == 6000, "the transactions that are whole to be stored")
        process.send_signal(signal.SIGINT)
        said = complaint(ended(process), 130)
    option = to(daemon).replace("=", " ")
    skip = int(said.split()[-1])
    command = f"kvd load - {option} --prefix key: --skip {skip}"
    assert said.startswith(f"kvd: interrupted; everything up to line {skip} is stored")
    assert said.endswith(f"; to go on: {command}\n")
    assert 2000 <= skip <= 6000
    assert load(daemon, numbered(1, 7000), "--skip", str(skip)).returncode == 0
    assert kvd("dump", "-", to(daemon)).stdout == numbered(1, 7000)


def test_a_load_whose_server_dies_says_how_far_it_came(daemon: Daemon) -> None:
    with begun("load", "-", to(daemon)) as process:
        assert process.stdin
        process.stdin.write(numbered(1, 6500))
        wait_for(lambda: count(daemon) == 6000, "the transactions that are whole to be stored")
        daemon.send_signal(signal.SIGKILL)
        said = complaint(ended(process))
    assert said.startswith(f"kvd: 127.0.0.1:{daemon.port}: the ")
    assert "; everything up to line " in said
    assert 2000 <= int(said.split()[-1]) <= 6000


def test_a_load_that_fills_the_server_says_so_and_what_it_calls_stored_is_stored(tmp_path: Path, file: Path) -> None:
    file.write_bytes(lines_of({f"{number:06}": "x" * 10_000 for number in range(1, 5001)}))
    with Daemon(tmp_path, "--port", "0", "--max-memory", "24M") as daemon:
        daemon.started()
        said = complaint(kvd("load", file, to(daemon)), 1)
        assert "OUT_OF_MEMORY: " in said
        skip = int(said.split()[-1])
        assert 0 < skip < 5000
        assert value(daemon, f"{skip:06}") is not None
        assert count(daemon) >= skip


def answers(data: bytes, commit: bytes | None) -> bytes | None:
    """What a server says that answers every COMMIT like this."""
    if b"INFO" in data:
        return LIMITS
    replies = [commit if line == b"COMMIT" else OK for line in data.splitlines()]
    return b"".join([reply for reply in replies if reply is not None]) or None


@pytest.mark.parametrize(
    ("commit", "status", "says"),
    [
        (EXPIRED % b"KILL", 1, "TXN_EXPIRED: the server ended this transaction: KILL"),
        (
            b'{"status": "Error", "mesg": "the disk is full", "code": "UNAVAILABLE"}\n',
            1,
            "UNAVAILABLE: the disk is full",
        ),
        (b'{"status": "Error", "mesg": "bye", "code": "IDLE"}\n', 2, "bye"),
        (b"HTTP/1.1 400 Bad Request\n", 2, "not a reply of a kvd server"),
        (None, 2, "no reply within 0.5 seconds"),
    ],
)
def test_a_transaction_that_is_not_stored_is_told_of(commit: bytes | None, status: int, says: str) -> None:
    with ScriptedServer(lambda data: answers(data, commit)) as scripted:
        done = kvd("load", "-", to(scripted), "--timeout", "0.5", stdin=numbered(1, 3))
    said = complaint(done, status)
    assert said.startswith(f"kvd: 127.0.0.1:{scripted.port}: ")
    assert says in said
    assert "; nothing is surely stored; to go on: " in said


def test_what_is_no_kvd_server_gets_no_pairs() -> None:
    with ScriptedServer(lambda data: b"-ERR\r\n") as scripted:
        assert "not a kvd server" in complaint(kvd("load", "-", to(scripted), stdin=numbered(1, 3)))
    assert b"key:" not in scripted.received


def test_a_file_that_cannot_be_read_is_an_error_of_one_line(daemon: Daemon, tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        assert complaint(kvd("load", place, to(daemon))).startswith(f"kvd: can't read {place}: ")
    for redirection in ("<&-", "0>/dev/null"):
        command = f"{KVD} load - {to(daemon)} {redirection}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=LIMIT)
        assert "can't read standard input: " in complaint(done)


# The command line.


@pytest.mark.parametrize("name", ["dump", "load"])
def test_a_command_line_without_one_file_is_refused(name: str) -> None:
    assert "one FILE is needed, not 0" in complaint(kvd(name))
    assert "one FILE is needed, not 2" in complaint(kvd(name, "a", "--prefix", "", "b"))
    assert "nosuch" in complaint(kvd(name, "a", "--nosuch"))


@pytest.mark.parametrize("name", ["dump", "load"])
def test_a_prefix_is_text(name: str) -> None:
    done = subprocess.run([KVD, name, "-", b"--prefix=\xff"], capture_output=True, timeout=LIMIT)
    assert "a prefix is text in UTF-8" in complaint(done)


def test_a_name_that_looks_like_an_option_stands_after_two_dashes(daemon: Daemon, tmp_path: Path) -> None:
    done = subprocess.run([KVD, "dump", to(daemon), "--", "--prefix"], cwd=tmp_path, capture_output=True, timeout=LIMIT)
    assert (done.returncode, (tmp_path / "--prefix").exists()) == (0, True)
