"""Attacks on a daemon on this machine: what hostile, broken or merely careless clients do.

``python -m tests.support.attacks NAME PORT SECONDS`` carries one out, bounded in time, and prints what came of it.
Each is a number of connections, and for each of them the blocks of bytes that it sends. A connection whose blocks have
ended is cut off with a reset; for it, and for one that the server closes, a new one comes.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

Blocks = Iterator[bytes]

MIB = 1024 * 1024
SMALL = 30 * b"v"
BIG = MIB * b"v"
LONG_LINE = 6 * MIB
READ = 256 * 1024
OPENED_AT_ONCE = 100


class Attack(NamedTuple):
    """What is done to the daemon.

    :ivar sends: the blocks that a connection sends, by its number; an empty one is a pause of a second.
    :ivar connections: how many there are at a time.
    :ivar reads: whether they read replies.
    :ivar before: requests that are made before it begins.
    :ivar options: of the daemon.
    :ivar drops: whether the server may drop connections, because they ask for it.
    """

    sends: Callable[[int], Blocks]
    connections: int = 1
    reads: bool = True
    before: Callable[[], Blocks] | None = None
    options: tuple[str, ...] = ()
    drops: bool = False


def again(*lines: bytes, size: int = 64 * 1024) -> Callable[[int], Blocks]:
    """The same requests without end."""
    block = b"".join(line + b"\n" for line in lines)
    block *= max(1, size // len(block))
    return lambda number: iter(lambda: block, b"")


def json_line(*words: object) -> bytes:
    return json.dumps(words, ensure_ascii=False).encode()


def puts(keys: Iterable[bytes], value: bytes) -> Blocks:
    """Store a value under many keys, in blocks of some 64 KiB."""
    block: list[bytes] = []
    size = 0
    for key in keys:
        block.append(b"PUT %s %s\n" % (key, value))
        size += len(block[-1])
        if size > 64 * 1024:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join(block)


def deletes(keys: list[bytes]) -> Blocks:
    for start in range(0, len(keys), 2000):
        yield b"".join(b"DEL %s\n" % key for key in keys[start : start + 2000])


def keys(number: int, prefix: bytes = b"key", width: int = 7) -> list[bytes]:
    return [b"%s%0*d" % (prefix, width, index) for index in range(number)]


def small_pairs(number: int = 100_000) -> Callable[[], Blocks]:
    return lambda: puts(keys(number), SMALL)


# Memory


def churn(*kinds: tuple[int, int, int], letter: str = "v") -> Callable[[int], Blocks]:
    """Fill the memory, overwrite, delete, and fill it with pairs of the next kind.

    :param kinds: how many pairs, the length of their keys, and of their values in characters.
    """

    def blocks(number: int) -> Blocks:
        for turn in count():
            for pairs, key_length, length in kinds:
                filled = keys(pairs, b"%d-%d-" % (number, turn), key_length)
                yield from puts(filled, (letter * length).encode())
                yield from puts(filled, (letter * (length * 2 // 3)).encode())
                yield from puts(filled, (letter * length).encode())
                yield from deletes(filled)

    return blocks


def holes(number: int) -> Blocks:
    """Delete every other pair, and fill with ones that do not fit into the holes."""
    length = 520
    while True:
        filled = keys(500_000, b"%d-" % length)
        yield from puts(filled, b"v" * length)
        yield from deletes(filled[::2])
        length += 100
        if length > 2000:
            for old in range(520, 2000, 100):
                yield from deletes(keys(500_000, b"%d-" % old))
            length = 520


def growing_transaction(number: int) -> Blocks:
    """A transaction just under its limits; and then it waits."""
    yield b"START\n"
    for _ in range(62):
        yield b"PUT %d-%d %s\n" % (number, _, BIG)
    while True:
        yield b""


def many_writes(number: int) -> Blocks:
    while True:
        yield b"START\n"
        yield from puts(keys(9_990, b"%d-" % number), SMALL)
        yield b"CHECK\nCOMMIT\n"


def savepoints(number: int) -> Blocks:
    while True:
        yield b"START\n"
        for index in range(1_000):
            yield b"SAVEPOINT s%d\nPUT key %s\n" % (index, 60_000 * b"v")
        yield b"ROLLBACK TO s1\nRELEASE s0\nROLLBACK\n"


def endless_savepoints(number: int) -> Blocks:
    while True:
        yield b"START\n" + b"SAVEPOINT a\n" * 200_000
        yield b""
        yield b"ROLLBACK\n"


def nested_ranges(number: int) -> Blocks:
    """One client validates many ranges that lie in each other, while another one changes what is beside them."""
    if number % 2:
        while True:
            yield from puts(keys(50_000, b"other"), SMALL)
    while True:
        yield b"START\nPUT mine%d x\n" % number
        yield b"".join(b"COUNT PREFIX key%s\n" % (b"0" * (length % 500)) for length in range(1_000))
        yield b""
        yield b"CHECK\n" * 10 + b"COMMIT\n"


def read_sets(number: int) -> Blocks:
    yield b"START\n"
    for part in range(9):
        wanted = b" ".join(keys(1_000, b"%d-%d-" % (number, part), 900))
        yield b"MGET %s\n" % wanted
    while True:
        yield b""


def pinned(number: int) -> Blocks:
    """Half of the clients hold old snapshots, and half overwrite."""
    if number % 2:
        while True:
            yield b"START\nGET key0000001\n"
            yield b""
            yield b"GET key0000002\nROLLBACK\n"
    while True:
        yield from puts(keys(100), b"%d" % (number % 10) * 50_000)


def many_changes(number: int) -> Blocks:
    """Some clients count and scan at an old snapshot, while one changes everything."""
    if number:
        while True:
            yield b"START READONLY\n"
            for _ in range(20):
                yield b"COUNT\nSCAN KEYS LIMIT 10000\nCOUNT PREFIX key\nSCAN FROM key0050000 LIMIT 5000 REVERSE\n"
            yield b"ROLLBACK\n"
    while True:
        yield from puts(keys(100_000), SMALL)
        yield from deletes(keys(100_000)[::3])


# Transactions at their limits


def at_the_key_limit(number: int) -> Blocks:
    wanted = keys(9_980)
    while True:
        yield b"START\nMGET %s\n" % b" ".join(wanted)
        yield b"PUT other%d 1\nCHECK\nCHECK\nCOMMIT\n" % number
        yield from puts(keys(200), SMALL)


def many_ranges(number: int) -> Blocks:
    """One client commits with very many ranges read, in which nothing changed, while another changes all around."""
    if number % 2:
        while True:
            yield from puts(keys(50_000, b"b"), SMALL)
    while True:
        yield b"START\n"
        for length in range(1, 1_000):
            yield b"COUNT PREFIX %s\n" % (b"a" * length)
        yield from puts(keys(8_000, b"own"), SMALL)
        yield b"CHECK\nCHECK\nCHECK\nCOMMIT\nROLLBACK\n"


def nested_keys() -> Blocks:
    yield from puts(keys(50_000, b"a" * 1000, 7), b"1")
    yield from puts(keys(50_000, b"b"), b"1")


def own_writes_in_ranges(number: int) -> Blocks:
    """Scans and counts over many writes of the transaction itself."""
    while True:
        yield b"START\n"
        yield from puts(keys(9_900), SMALL)
        yield b"SCAN LIMIT 1\nCOUNT\n" * 1_000
        yield b"ROLLBACK\n"


# Lines


def long_lines(make: Callable[[], bytes]) -> Callable[[int], Blocks]:
    def blocks(number: int) -> Blocks:
        line = make() + b"\n"
        while True:
            yield line

    return blocks


def trickle(number: int) -> Blocks:
    while True:
        yield b"P"
        yield b""


def silent(number: int) -> Blocks:
    yield b"PING\n"
    while True:
        yield b""


# Connections


def cut_off(number: int) -> Blocks:
    """Leave in the middle of anything."""
    chance = random.Random(number)
    lines = [
        b"START\n", b"PUT a %s\n" % (60_000 * b"v"), b"GET a\n", b"SCAN LIMIT 10000\n", b"COMMIT\n", b"CHECK\n",
        b"COUNT\n", b"SAVEPOINT s\n", b"MGET %s\n" % b" ".join(keys(5_000)), b"PUT b %s" % BIG, b"QUIT\n",
    ]  # fmt: skip
    for _ in range(chance.randrange(12)):
        line = chance.choice(lines)
        yield line if chance.random() < 0.8 else line[: chance.randrange(1, len(line))]


def once(*blocks: bytes) -> Callable[[int], Blocks]:
    return lambda number: iter(blocks)


MANY = ("--max-clients", "20000")

ATTACKS: dict[str, Attack] = {
    "nothing": Attack(silent),
    "pipelining, 1 client": Attack(again(b"PUT key value", b"GET key")),
    "pipelining, 50 clients": Attack(again(b"PUT key value", b"GET key"), 50),
    "pipelining, 500 clients": Attack(again(b"PUT key value", b"GET key"), 500, drops=True),
    "8,000 big values not read": Attack(
        again(b"GET big", size=8_000 * 8), 50, reads=False, before=lambda: iter([b"PUT big %s\n" % BIG]), drops=True
    ),
    "8,000 big values read": Attack(
        again(b"GET big", size=8_000 * 8), 20, before=lambda: iter([b"PUT big %s\n" % BIG])
    ),
    "big values that need escapes": Attack(
        again(b"GET big", size=800), 20, before=lambda: iter([b"PUT big %s\n" % ("é" * 500_000).encode()])
    ),
    "fill: small pairs": Attack(churn((1_500_000, 7, 10), (800_000, 7, 200), (300, 7, MIB))),
    "fill: 1 MiB values": Attack(churn((300, 7, MIB), (3_000, 7, 100_000), (30_000, 7, 9_000)), 4),
    "fill: long keys": Attack(churn((300_000, 1_000, 1), (300_000, 400, 400))),
    "fill: non-ASCII values": Attack(
        churn((300, 7, 260_000), (100_000, 7, 900), (700_000, 7, 10), letter="\U0001f600")
    ),
    "fill: holes": Attack(holes),
    "transactions of many bytes": Attack(growing_transaction, 50, drops=True),
    "transactions of many writes": Attack(many_writes, 20),
    "transactions of many savepoints": Attack(savepoints, 20),
    "savepoints without end": Attack(endless_savepoints, 20, drops=True),
    "transactions of nested ranges": Attack(nested_ranges, 4, before=small_pairs()),
    "transactions of big read sets": Attack(read_sets, 100, drops=True),
    "old snapshots pinned": Attack(pinned, 20, before=small_pairs(100)),
    "scans, 50 clients": Attack(again(b"SCAN LIMIT 10000", size=1_700), 50, before=small_pairs()),
    "scans of keys, 50 clients": Attack(
        again(b"SCAN KEYS LIMIT 10000", b"SCAN KEYS LIMIT 10000 REVERSE", size=1_700), 50, before=small_pairs()
    ),
    "scans of the most that needs no pause": Attack(again(b"SCAN LIMIT 500"), 50, before=small_pairs()),
    "scans and counts of the past": Attack(many_changes, 5, before=small_pairs()),
    "transactions at the key limit": Attack(at_the_key_limit, 20, before=small_pairs()),
    "transactions of many ranges": Attack(many_ranges, 2, before=nested_keys),
    "scans over own writes": Attack(own_writes_in_ranges, 10),
    "MGET of 10,000": Attack(again(b"MGET " + b" ".join(keys(10_000)), size=1), 20, before=small_pairs()),
    "MGET of 10,000 in a transaction": Attack(
        again(b"START", b"MGET " + b" ".join(keys(9_999)), b"ROLLBACK", size=1), 20, before=small_pairs()
    ),
    "MGET of more than a reply holds": Attack(
        again(b"MGET" + b" big" * 1_000, size=1), 20, before=lambda: iter([b"PUT big %s\n" % BIG])
    ),
    "MGET of all that a reply holds": Attack(
        again(b"MGET" + b" big" * 15, size=1), 20, before=lambda: iter([b"PUT big %s\n" % BIG]), drops=True
    ),
    "6 MiB lines: PUT": Attack(long_lines(lambda: b"PUT key " + b"v" * LONG_LINE), 10, drops=True),
    "6 MiB lines: PUT, 100 clients": Attack(long_lines(lambda: b"PUT key " + b"v" * LONG_LINE), 100, drops=True),
    "6 MiB lines: MGET": Attack(long_lines(lambda: b"MGET" + b" a" * (LONG_LINE // 2)), 10, drops=True),
    "6 MiB lines: spaces": Attack(long_lines(lambda: b"GET" + b" " * LONG_LINE), 10, drops=True),
    "6 MiB lines: non-ASCII": Attack(long_lines(lambda: b"GET " + "é".encode() * (LONG_LINE // 2)), 10, drops=True),
    "6 MiB lines: unknown command": Attack(long_lines(lambda: b"X" * LONG_LINE), 10, drops=True),
    "6 MiB lines: JSON of numbers": Attack(
        long_lines(lambda: b'["GET"' + b",1" * (LONG_LINE // 2) + b"]"), 10, drops=True
    ),
    "6 MiB lines: one JSON number": Attack(long_lines(lambda: b'["GET", ' + b"1" * LONG_LINE + b"]"), 10, drops=True),
    "6 MiB lines: JSON escapes": Attack(
        long_lines(lambda: b'["PUT", "a", "' + b"\\u00e9" * (LONG_LINE // 6) + b'"]'), 10, drops=True
    ),
    "6 MiB lines: JSON nested deep": Attack(long_lines(lambda: b"[" * LONG_LINE), 10, drops=True),
    "6 MiB lines: JSON nested deep behind a name": Attack(
        long_lines(lambda: b'["GET", ' + b"[" * LONG_LINE), 10, drops=True
    ),
    "6 MiB lines: JSON name": Attack(long_lines(lambda: json_line("X" * LONG_LINE)), 10, drops=True),
    "6 MiB lines: invalid UTF-8": Attack(long_lines(lambda: b"GET " + b"\xff" * LONG_LINE), 10, drops=True),
    "6 MiB lines: NULs": Attack(long_lines(lambda: b"\0" * LONG_LINE), 10, drops=True),
    "over-long lines": Attack(long_lines(lambda: b"PUT key " + b"v" * 20 * MIB), 10),
    "endless lines": Attack(lambda number: iter(lambda: b"v" * READ, b""), 50, drops=True),
    "invalid UTF-8, short": Attack(again(b"GET \xff"), 20),
    "blank lines": Attack(again(b"", b" ", b"\r"), 20),
    "NULs": Attack(again(b"\0" * 10), 20),
    "half a line at one byte a second": Attack(trickle, 500, options=("--line-time", "5"), drops=True),
    "10,000 idle connections": Attack(silent, 10_000, options=MANY),
    "connect and close": Attack(once(), 100),
    "connect, ask and close": Attack(once(b"PING\nPUT a b\nGET a\n"), 100),
    "connect beyond --max-clients": Attack(silent, 300, options=("--max-clients", "100"), drops=True),
    "HTTP": Attack(again(b"POST / HTTP/1.1", b"Host: localhost", size=1), 50, drops=True),
    "unknown commands": Attack(again(b"GETT a", b"abcdefghijklmnopqrst a"), 50),
    "wrong arguments": Attack(again(b"GET", b"GET a b", b"SCAN LIMIT x", b'["GET", null]', b"COMMIT"), 50),
    "INFO": Attack(again(b"INFO"), 50),
    "HELP": Attack(again(b"HELP", b"HELP GTE"), 50),
    "START and ROLLBACK": Attack(again(b"START", b"ROLLBACK"), 50),
    "left in the middle of everything": Attack(cut_off, 100, before=small_pairs(), drops=True),
}  # fmt: skip
"""By name."""


# How an attack is carried out


class _Connection:
    def __init__(self, address: tuple[str, int], blocks: Blocks) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(address)
        self.blocks = blocks
        self.rest: memoryview = memoryview(b"")

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Figures(NamedTuple):
    """What came of an attack.

    :ivar opened: how many connections were opened.
    :ivar dropped: how many of them the server closed.
    :ivar sent: bytes that the server took.
    :ivar received: bytes of its replies.
    :ivar codes: some of the errors that it told.
    """

    opened: int
    dropped: int
    sent: int
    received: int
    codes: list[str]


class _Attacker:
    """Carries an attack out.

    :param port: of the daemon, on loopback.
    :param seconds: how long it lasts.
    """

    def __init__(self, attack: Attack, port: int, seconds: float) -> None:
        self._attack = attack
        self._address = ("127.0.0.1", port)
        self._end = time.monotonic() + seconds
        self._selector = selectors.DefaultSelector()
        self._resting: list[tuple[float, _Connection]] = []
        self._opened = self._dropped = self._sent = self._received = 0
        self._codes: set[str] = set()

    def run(self) -> Figures:
        open_now = 0
        while time.monotonic() < self._end:
            lacking = self._attack.connections - open_now
            for _ in range(min(lacking, OPENED_AT_ONCE)):
                self._open()
                open_now += 1
            self._wake()
            for key, events in self._selector.select(0 if lacking > OPENED_AT_ONCE else 0.05):
                if not self._serve(key.data, events):
                    open_now -= 1
        return Figures(self._opened, self._dropped, self._sent, self._received, sorted(self._codes))

    def _open(self) -> None:
        connection = _Connection(self._address, self._attack.sends(self._opened))
        self._opened += 1
        reading = selectors.EVENT_READ if self._attack.reads else 0
        self._selector.register(connection.socket, reading | selectors.EVENT_WRITE, connection)

    def _wake(self) -> None:
        now = time.monotonic()
        while self._resting and self._resting[0][0] <= now:
            _, connection = self._resting.pop(0)
            if connection.socket.fileno() >= 0:
                reading = selectors.EVENT_READ if self._attack.reads else 0
                self._selector.modify(connection.socket, reading | selectors.EVENT_WRITE, connection)

    def _serve(self, connection: _Connection, events: int) -> bool:
        """Do what can be done on a connection.

        :return: whether it lives on.
        """
        try:
            if events & selectors.EVENT_READ:
                data = connection.socket.recv(READ)
                if not data:
                    raise ConnectionError
                self._received += len(data)
                self._codes.update(code.decode() for code in re.findall(rb'"code": "(\w+)"', data[:1000]))
            if events & selectors.EVENT_WRITE:
                return self._send(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._dropped += 1
            self._selector.unregister(connection.socket)
            connection.socket.close()
            return False
        return True

    def _send(self, connection: _Connection) -> bool:
        if not connection.rest:
            block = next(connection.blocks, None)
            if block is None:
                self._selector.unregister(connection.socket)
                connection.reset()
                return False
            if not block:
                self._resting.append((time.monotonic() + 1, connection))
                self._selector.modify(
                    connection.socket, selectors.EVENT_READ, connection
                )  # a close is seen, even if replies are not wanted
                return True
            connection.rest = memoryview(block)
        number = connection.socket.send(connection.rest[:READ])
        self._sent += number
        connection.rest = connection.rest[number:]
        return True


# From outside


def prepare(attack: Attack, port: int) -> None:
    """Make the requests that come before an attack, and wait for their replies."""
    if attack.before is None:
        return
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        for block in attack.before():
            connection.sendall(block)
            lines = block.count(b"\n")
            while lines > 0:
                lines -= connection.recv(READ).count(b"\n")


def begin(name: str, port: int, seconds: float, through: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Carry an attack out, in a process of its own.

    :param through: a command to start it with, as ``("taskset", "-c", "1")``.
    """
    command = [*through, sys.executable, "-m", "tests.support.attacks", name, str(port), str(seconds)]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent.parent, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> Figures:
    """What came of it."""
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    return Figures(**json.loads(said))


def memory(pid: int, which: str) -> int:
    """A figure of the memory of a process, in KiB: VmRSS is what is resident, VmHWM the most that ever was."""
    found = re.search(rf"{which}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


def allow_open_files(number: int) -> None:
    """Raise the soft limit on open files, where that is needed and may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))


if __name__ == "__main__":
    os.nice(5)  # what is measured is the daemon, not how the machine divides its time between its attackers
    chosen = ATTACKS[sys.argv[1]]
    allow_open_files(chosen.connections + 100)
    print(json.dumps(_Attacker(chosen, int(sys.argv[2]), float(sys.argv[3])).run()._asdict()))
