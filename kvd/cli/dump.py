"""``kvd dump``: write all pairs to a file of JSON lines."""

from __future__ import annotations

from typing import ClassVar

from kvd.cli import files, program
from kvd.cli.connecting import find
from kvd.cli.files import PREFIX, called, output, write_all
from kvd.cli.helper import Helper
from kvd.cli.pairs import counted, line
from kvd.cli.program import CONNECT, TIMEOUT, Program, note
from kvd.cli.progress import on_terminal, progress, speed
from kvd.cli.snapshot import begin
from kvd.reactor import install_reactor


class Options(files.Options):
    """The options of ``kvd dump``."""

    longdesc = (
        "Writes the pairs of a running server to FILE, as they were at one instant, in the order of their keys. Each "
        'line is a JSON array, ["key", "value"], or ["key", "value", end] if the key ends. FILE may be - for standard '
        "output. A dump that breaks off leaves FILE as it was. kvd load reads it. The exit status is 1 if the server "
        "refused it, 2 after another error, and 130 after Ctrl-C."
    )
    optParameters: ClassVar = [CONNECT, TIMEOUT, PREFIX]


async def _run(running: Program, options: Options) -> int:
    helper = Helper(running.reactor)
    server = find(running.reactor, options["connect"], options["timeout"])
    with output(options["file"]) as file:
        snapshot = await begin(server, options["prefix"], count=on_terminal())
        line_of_progress = speed(lambda: snapshot.seen, lambda: snapshot.share)
        with progress(running.reactor, line_of_progress, aside=file.isatty()):
            while snapshot.more:
                lines = [line(pair) for pair in await snapshot.page()]
                # A pipe may take it when somebody reads on the other side, or never.
                await helper.do(write_all, file, "".join(lines).encode())
        await snapshot.end()
    note(f"{counted(snapshot.seen)} written to {called(options['file'], 'output')}")
    return 0


def run(options: Options) -> None:
    """Run it, and exit."""
    install_reactor()
    program.run(lambda running: _run(running, options))
