"""``kvd shell``: a prompt with history and completion, which shows whether a transaction is open."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, ClassVar

from twisted.internet import asyncioreactor

from kvd.cli import program
from kvd.cli import run as lines
from kvd.cli.connecting import Trouble, find, is_blank
from kvd.cli.conversation import Conversation
from kvd.cli.program import CONNECT, FAILED, Program, complain, say

if TYPE_CHECKING:
    from kvd.cli.prompt import Prompt


class Options(program.Options):
    """The options of ``kvd shell``."""

    longdesc = (
        "A prompt for commands, with history (in ~/.kvd_history) and completion. Ctrl-D or QUIT ends it. Ctrl-C drops "
        "the line that you are typing; while a reply is outstanding, it ends the shell with the exit status 130. If "
        "standard input is not a terminal, kvd shell reads lines and prints replies as kvd run does."
    )
    optParameters: ClassVar = [CONNECT]


async def _interact(running: Program, options: Options, prompt: Prompt) -> int:
    conversation = Conversation(find(running.reactor, options["connect"]).link)
    try:
        await conversation.begin()
    except Trouble as trouble:
        raise Trouble(options["connect"], trouble.text) from None
    while not conversation.over and (typed := await prompt.read(conversation)) is not None:
        # More than one, if they were pasted.
        waiting = [line for line in typed.split("\n") if not is_blank(line)]
        while waiting and not conversation.over:
            say(await conversation.ask(waiting.pop(0)))
            if conversation.broken:
                prompt.forget()
                if waiting:
                    say(f"not sent: {len(waiting)} more lines")
                break
    conversation.end()
    return 0


def run(options: Options) -> None:
    """Run it, and exit."""
    if sys.stdin is None or not sys.stdin.isatty():
        for_lines = lines.Options()
        for_lines.parseOptions(["--connect", options["connect"]])
        lines.run(for_lines)
    try:
        from kvd.cli.prompt import Prompt
    except ImportError as error:
        complain(f"kvd shell needs prompt_toolkit ({error}): pip install 'txkvd[cli]'")
        raise SystemExit(FAILED) from None
    asyncioreactor.install(asyncio.new_event_loop())  # prompt_toolkit runs on asyncio
    prompt = Prompt()
    program.run(lambda running: _interact(running, options, prompt))
