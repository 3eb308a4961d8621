"""``kvd run``: send commands and print the replies."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import react
from twisted.internet.threads import deferToThread
from twisted.python import usage

from kvd.client.link import Link


class Options(usage.Options):
    """The options of ``kvd run``."""

    synopsis = "[--connect tcp:localhost:8765] ['COMMAND' …]"
    longdesc = (
        "Sends each command, as it would be typed into telnet, and prints its reply. Without commands, they are "
        "read from standard input, one a line. The exit status is 1 if a reply was an Error, and 2 if the "
        "server could not be reached."
    )
    optParameters: ClassVar = [["connect", "c", "tcp:localhost:8765", "The server, as a Twisted client endpoint."]]

    def parseArgs(self, *commands: str) -> None:
        """The commands."""
        for command in commands:
            if not command.strip(" ") or "\n" in command:
                raise usage.UsageError(f"a command is one line, and not a blank one: {command!r}")
        self["commands"] = commands


async def _lines(commands: Sequence[str]) -> AsyncIterator[bytes]:
    for command in commands:
        yield command.encode() + b"\n"
    while not commands and (line := await deferToThread(sys.stdin.buffer.readline)):
        if line.strip(b" \r\n"):  # a blank line gets no reply
            yield line if line.endswith(b"\n") else line + b"\n"


async def _run(reactor: Any, options: Options) -> None:
    failed = False
    try:
        link = await connectProtocol(clientFromString(reactor, options["connect"]), Link())
        async for line in _lines(options["commands"]):
            reply = await link.send(line)
            print(reply.decode("ascii"), flush=True)
            failed = failed or json.loads(reply)["status"] != "Ok"
        link.transport.loseConnection()
    except Exception as error:
        print(f"kvd: {options['connect']}: {error or type(error).__name__}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(1 if failed else 0)


def run(options: Options) -> None:
    """Run it, and exit."""
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, options)))
