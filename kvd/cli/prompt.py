"""The prompt of ``kvd shell``, made with prompt_toolkit, which the extra ``cli`` installs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.history import History as AnyHistory
from prompt_toolkit.input.typeahead import clear_typeahead
from twisted.internet.defer import Deferred

from kvd.cli.connecting import is_secret
from kvd.cli.conversation import Conversation
from kvd.cli.program import complain, reason
from kvd.cli.replies import name_and_options

HISTORY = Path("~/.kvd_history")


class Interrupted(Exception):
    """Ctrl-C at the prompt. A KeyboardInterrupt would end the event loop."""


class Commands(Completer):
    """Completes command names, each shown with its usage, and option words.

    :param usages: what each command does, by its usage.
    """

    def __init__(self, usages: dict[str, str]) -> None:
        self._usages = usages

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What can come at the cursor."""
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


class WithoutPasswords(AnyHistory):
    """A history that no password gets into, neither its file nor what the arrow keys bring back."""

    def append_string(self, string: str) -> None:
        """Keep what was typed, for this session and later ones."""
        if not any(map(is_secret, string.split("\n"))):
            super().append_string(string)


class History(WithoutPasswords, FileHistory):
    """What was typed, in a file."""

    def store_string(self, string: str) -> None:
        """Keep a line for later sessions, if the disk takes it."""
        if not any(map(is_secret, string.split("\n"))):
            with suppress(OSError):
                super().store_string(string)


class BriefHistory(WithoutPasswords, InMemoryHistory):
    """What was typed, until the session ends."""


def history() -> AnyHistory:
    """The history, of this session alone if there is no place for a file."""
    try:
        path = HISTORY.expanduser()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        return History(str(path))
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        complain(f"no history is kept in {HISTORY}: {reason(error)}")
        return BriefHistory()


class Prompt:
    """Reads lines from the terminal."""

    def __init__(self) -> None:
        self._usages: dict[str, str] = {}
        self._session: PromptSession[str] = PromptSession(
            history=history(), completer=Commands(self._usages), interrupt_exception=Interrupted
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

    def forget(self) -> None:
        """Drop what was typed, or pasted, before the user could know what came of the line before it."""
        clear_typeahead(self._session.input)
        with suppress(ImportError):  # not on every system
            import termios

            termios.tcflush(sys.stdin, termios.TCIFLUSH)
