"""``kvd shell``: a prompt with history and completion, which shows whether a transaction is open."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.task import react
from twisted.python import usage

from kvd.cli import run as lines
from kvd.cli.conversation import Conversation
from kvd.client.link import Link


class Options(usage.Options):
    """The options of ``kvd shell``."""

    synopsis = "[--connect tcp:localhost:8765]"
    longdesc = (
        "A prompt for commands, with history (in ~/.kvd_history) and completion. Ctrl-D, or QUIT, ends it. If "
        "standard input is no terminal, it reads lines and prints replies as kvd run does."
    )
    optParameters: ClassVar = [["connect", "c", "tcp:localhost:8765", "The server, as a Twisted client endpoint."]]


async def _interact(reactor: Any, options: Options, read: Callable[[Conversation], Awaitable[str | None]]) -> None:
    endpoint = clientFromString(reactor, options["connect"])
    conversation = Conversation(lambda: connectProtocol(endpoint, Link(reactor)))
    try:
        await conversation.begin()
    except Exception as error:
        print(f"kvd: {options['connect']}: {str(error) or type(error).__name__}", file=sys.stderr)
        raise SystemExit(2) from None
    while not conversation.over and (typed := await read(conversation)) is not None:
        for line in typed.split("\n"):  # more than one, if they were pasted
            if line.strip(" ") and not conversation.over:
                print(await conversation.ask(line), flush=True)
    conversation.end()


def run(options: Options) -> None:
    """Run it, and exit."""
    if not sys.stdin.isatty():
        for_lines = lines.Options()
        for_lines.parseOptions(["--connect", options["connect"]])
        lines.run(for_lines)
    try:
        from kvd.cli.prompt import Prompt
    except ImportError as error:
        print(f"kvd shell needs prompt_toolkit ({error}): pip install 'txkvd[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    from twisted.internet import asyncioreactor

    asyncioreactor.install(asyncio.new_event_loop())  # prompt_toolkit runs on asyncio
    prompt = Prompt()
    react(lambda reactor: Deferred.fromCoroutine(_interact(reactor, options, prompt.read)))
