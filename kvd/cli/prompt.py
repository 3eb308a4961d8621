"""The prompt of ``kvd shell``, made with prompt_toolkit, which comes with the extra ``cli``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from twisted.internet.defer import Deferred

from kvd.cli.conversation import Conversation, name_and_options

HISTORY = Path("~/.kvd_history")


class Interrupted(Exception):
    """Ctrl-C. A KeyboardInterrupt would end the event loop."""


class Commands(Completer):
    """Completes command names, each shown with its usage, and option words.

    :param usages: what each command does, by its usage.
    """

    def __init__(self, usages: dict[str, str]) -> None:
        self._usages = usages

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What may stand at the cursor."""
        text = document.text_before_cursor.lstrip(" ").upper()
        *before, word = text.split(" ")
        for usage, does in self._usages.items():
            name, options = name_and_options(usage)
            if name.startswith(text):
                yield Completion(name, -len(text), display=usage, display_meta=does)
            elif text.startswith(f"{name} "):
                for option in options:
                    if option.startswith(word) and option not in before:
                        yield Completion(option, -len(word), display_meta=usage)


class History(FileHistory):
    """What was typed, without passwords."""

    def store_string(self, string: str) -> None:
        """Keep a line for later sessions."""
        if not string.lstrip(' ["').upper().startswith("AUTH"):
            super().store_string(string)


class Prompt:
    """Reads lines from the terminal."""

    def __init__(self) -> None:
        path = HISTORY.expanduser()
        path.touch(mode=0o600)
        self._usages: dict[str, str] = {}
        self._session: PromptSession[str] = PromptSession(
            history=History(str(path)), completer=Commands(self._usages), interrupt_exception=Interrupted
        )

    async def read(self, conversation: Conversation) -> str | None:
        """What is typed next; None if that is the end."""
        self._usages.update(conversation.usages)
        try:
            task = asyncio.ensure_future(self._session.prompt_async(conversation.prompt))
            return await Deferred.fromFuture(task)
        except Interrupted:
            return ""
        except EOFError:
            return None
