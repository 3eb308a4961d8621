"""``kvd load``: store the pairs of a file that ``kvd dump`` has written."""

from __future__ import annotations

import io
import os
import shlex
import stat
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import ClassVar

from twisted.internet.defer import CancelledError

from kvd import wire
from kvd.cli import files, program
from kvd.cli.connecting import Connection, Server, find
from kvd.cli.files import PREFIX, called, input, unread
from kvd.cli.helper import Helper
from kvd.cli.pairs import counted, pair
from kvd.cli.program import CONNECT, TIMEOUT, Interrupted, Problem, Program, note
from kvd.cli.progress import progress, speed
from kvd.cli.run import UTF8_MARK
from kvd.cli.storing import BYTES, KEYS, Batch
from kvd.client.link import Link
from kvd.numbers import count
from kvd.reactor import install_reactor

AT_ONCE = 4
"""Transactions that are on their way before the first of them must be answered."""

PIECE = 256 * 1024
"""Bytes that are read at a time."""


class Options(files.Options):
    """The options of ``kvd load``."""

    longdesc = (
        'Stores the pairs of FILE on a running server. Each line is a JSON array, ["key", "value"], as kvd dump writes '
        "it. FILE may be - for standard input. Many lines are stored at a time, in one transaction. A load that breaks "
        "off tells up to which line everything is stored, and how to go on. The exit status is 1 if the server refused "
        "something, 2 after another error, such as a line that is no pair, and 130 after Ctrl-C."
    )
    optParameters: ClassVar = [
        CONNECT,
        TIMEOUT,
        PREFIX,
        ["skip", None, 0, "Begin after this many lines.", count],
    ]


class Loading:
    """A load that is under way.

    :param link: the connection.
    :param most: how many keys and how many bytes a transaction may have.
    :ivar sure: up to this line everything is stored.
    :ivar stored: pairs that are surely stored.
    :ivar ended: pairs that were left out because their keys have ended.
    """

    def __init__(self, server: Server, link: Link, most: tuple[int, int], options: Options) -> None:
        self._server = server
        self._link = link
        self._most = most
        self._file = options["file"]
        self._prefix = options["prefix"]
        self._line = 0
        self.sure = self._skip = options["skip"]
        self._batch = Batch(self.sure)
        self._sent: deque[Batch] = deque()
        self.stored = 0
        self.ended = 0

    async def take(self, line: bytes) -> None:
        """Store the pair of the next line, sooner or later.

        :raise Problem: the line is no pair, the server refuses something, or does not answer.
        """
        self._line += 1
        if self._line <= self._skip and len(line) <= wire.MAX_LINE:
            return
        try:
            self._add(line)
        except ValueError as error:
            await self.finish()  # so that all lines before this one are stored
            raise Problem(f"{called(self._file, 'input')}, line {self._line}: {error}") from None
        self._batch.last = self._line
        if len(self._batch.lines) >= self._most[0] or self._batch.bytes >= self._most[1]:
            await self._send()

    def _add(self, line: bytes) -> None:
        if len(line) > wire.MAX_LINE:
            raise ValueError(f"it is longer than {wire.MAX_LINE:,} bytes, too long for a pair")
        if line.isspace() or not line:
            return
        key, value, end = pair(line)
        if not key.startswith(self._prefix):
            return
        asked = [f'["PUT", {wire.quote(key)}, {wire.quote(value)}]\n'.encode("ascii")]
        if end is not None:
            if end <= time.time_ns() // 1_000_000:
                self.ended += 1
                return
            asked.append(f'["EXPIREAT", {wire.quote(key)}, {end}]\n'.encode("ascii"))
        self._batch.add(self._line, *asked)

    async def finish(self) -> None:
        """Store what has been taken, and wait until it is stored."""
        await self._send()
        while self._sent:
            await self._settle()

    @property
    def is_waiting(self) -> bool:
        """Whether transactions were sent of which nobody knows whether they are stored."""
        return len(self._sent) > 0

    async def _send(self) -> None:
        batch, self._batch = self._batch, Batch(self._batch.last)
        self._sent.append(batch)
        batch.send(self._link)
        if len(self._sent) >= AT_ONCE:
            await self._settle()

    async def _settle(self) -> None:
        """Wait until the oldest transaction that was sent is stored."""
        batch = self._sent[0]
        await batch.stored(self._server.name, self._file)
        self._sent.popleft()
        self.sure = batch.last
        self.stored += len(batch.lines)


async def _lines(helper: Helper, file: io.FileIO, name: str) -> AsyncIterator[list[bytes]]:
    """The lines of a file, without their ends, some at a time. One that is too long may be the last, and cut."""

    def read() -> bytes:
        try:
            return file.read(PIECE)
        except OSError as error:
            raise unread(name, error) from None

    rest = b""
    mark = UTF8_MARK.encode()
    while len(rest) <= wire.MAX_LINE and (data := await helper.do(read)):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            lines[0] = lines[0].removeprefix(mark)
            mark = b""
            yield lines
    if rest:
        yield [rest.removeprefix(mark)]


async def _connected(server: Server, timeout: float) -> tuple[Link, tuple[int, int]]:
    """A connection, and how many keys and bytes a transaction on it may have."""
    link = await server.link()
    reply = await Connection(link, server.name, timeout).ask("INFO transactions")
    limits = reply.found.get("result")
    if not isinstance(limits, dict):  # the server does not tell everybody
        return link, (KEYS, BYTES)
    return link, (_share(KEYS, limits.get("keys_limit")), _share(BYTES, limits.get("bytes_limit")))


def _share(wanted: int, limit: object) -> int:
    return min(wanted, max(limit // 4, 1)) if isinstance(limit, int) and limit else wanted


def _how_to_go_on(options: Options, loading: Loading) -> str:
    command = ["kvd", "load", options["file"]]
    for name in ("connect", "prefix"):
        if options[name] != Options()[name]:
            command += [f"--{name}", options[name]]
    if loading.sure:
        command += ["--skip", str(loading.sure)]
    done = "nothing is surely stored"
    if loading.sure > options["skip"]:
        done = f"everything up to line {loading.sure} is stored"
        if loading.is_waiting:
            done += ", and perhaps some lines after it"
    return f"{done}; to go on: {shlex.join(command)}"


async def _load(running: Program, options: Options, file: io.FileIO) -> Loading:
    server = find(running.reactor, options["connect"], options["timeout"])
    link, most = await _connected(server, options["timeout"])
    loading = Loading(server, link, most, options)
    status = os.fstat(file.fileno())
    read = 0

    def share() -> float | None:
        return read / max(status.st_size, 1) if stat.S_ISREG(status.st_mode) else None

    try:
        with progress(running.reactor, speed(lambda: loading.stored, share), aside=file.isatty()):
            async for lines in _lines(Helper(running.reactor), file, options["file"]):
                for line in lines:
                    read += len(line) + 1
                    await loading.take(line)
            await loading.finish()
    except Problem as problem:
        raise Problem(f"{problem}; {_how_to_go_on(options, loading)}", problem.status) from None
    except CancelledError:
        raise Interrupted(f"interrupted; {_how_to_go_on(options, loading)}") from None
    link.close()
    return loading


async def _run(running: Program, options: Options) -> int:
    with input(options["file"]) as file:
        loading = await _load(running, options, file)
    left_out = f"; {loading.ended:,} had ended, and were left out" if loading.ended else ""
    note(f"{counted(loading.stored)} of {called(options['file'], 'input')} stored{left_out}")
    return 0


def run(options: Options) -> None:
    """Run it, and exit."""
    install_reactor()
    program.run(lambda running: _run(running, options))
