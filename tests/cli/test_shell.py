"""``kvd shell``: its parts over memory, and all of it on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import to_plain_text
from twisted.internet.endpoints import connectProtocol

from kvd.cli.conversation import Conversation, name_and_options, pretty
from kvd.cli.prompt import Commands, History
from kvd.client.link import Link
from kvd.testing import MemoryServer
from tests.support.daemon import LIMIT, Daemon

# Replies.


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ('{"status": "Ok"}', "Ok"),
        ('{"status": "Ok", "result": null}', "null"),
        ('{"status": "Ok", "result": "caf\\u00e9 \\"1\\""}', '"café \\"1\\""'),
        ('{"status": "Ok", "result": 12}', "12"),
        ('{"status": "Ok", "result": ["a", null]}', '[\n  "a",\n  null\n]'),
        ('{"status": "Ok", "result": {"items": [["a", "1"], ["bcd", "2"]], "next": "e"}}',
         '"a"    "1"\n"bcd"  "2"\nmore: "e" is next'),
        ('{"status": "Ok", "result": {"items": ["a", "bcd"], "next": null}}', '"a"\n"bcd"'),
        ('{"status": "Ok", "result": {"items": [], "next": null}}', "nothing"),
        ('{"status": "Ok", "result": {"GET key": "the value", "QUIT": "the end"}}',
         "GET key  the value\nQUIT     the end"),
        ('{"status": "Error", "mesg": "no such thing", "code": "CONFLICT"}', "CONFLICT: no such thing"),
    ],
)  # fmt: skip
def test_replies_are_shown_for_people(reply: str, shown: str) -> None:
    assert pretty(json.loads(reply)) == shown


@pytest.mark.parametrize("trick", ["\x1b[2J", "\x9b2J", "\u202e", "\x07"])
def test_nothing_that_is_stored_can_play_tricks_with_the_terminal(trick: str) -> None:
    for reply in (
        {"status": "Ok", "result": trick},
        {"status": "Ok", "result": {"items": [[trick, trick]], "next": trick}},
        {"status": "Ok", "result": {trick: trick}},
        {"status": "Error", "mesg": trick, "code": "CONFLICT"},
    ):
        shown = pretty(reply)
        assert trick[0] not in shown
        assert f"\\u{ord(trick[0]):04x}" in shown


# Completion.

USAGES = {
    "GET key": "the value, or null",
    "ROLLBACK": "end the transaction",
    "ROLLBACK TO name": "drop what was changed since the savepoint",
    "GROW [PREFIX p] [FAST]": "a command that only this server has",
}


def completions(typed: str) -> list[str]:
    return [each.text for each in Commands(USAGES).get_completions(Document(typed), CompleteEvent())]


def test_commands_are_completed_as_the_server_tells_them() -> None:
    assert completions("") == ["GET", "ROLLBACK", "ROLLBACK TO", "GROW"]
    assert completions("g") == ["GET", "GROW"]
    assert completions("  gr") == ["GROW"]
    assert completions("rollback t") == ["ROLLBACK TO"]
    assert completions("GROW ") == ["PREFIX", "FAST"]
    assert completions("GROW PREFIX p f") == ["FAST"]
    assert completions("GROW FAST ") == ["PREFIX"]
    assert completions("GET g") == []


def test_a_completion_shows_the_usage_and_what_the_command_does() -> None:
    (found,) = Commands(USAGES).get_completions(Document("GE"), CompleteEvent())
    assert to_plain_text(found.display) == "GET key"
    assert to_plain_text(found.display_meta) == "the value, or null"
    assert found.start_position == -2


def test_a_usage_is_taken_apart() -> None:
    assert name_and_options("QUIT") == ("QUIT", [])
    assert name_and_options("PUT key value") == ("PUT", [])
    assert name_and_options("SCAN [PREFIX p] [LIMIT n] [KEYS]") == ("SCAN", ["PREFIX", "LIMIT", "KEYS"])
    assert name_and_options("ROLLBACK TO name") == ("ROLLBACK TO", [])


# What the prompt knows.


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def conversation(server: MemoryServer) -> Conversation:
    conversation = Conversation(lambda: connectProtocol(server.endpoint, Link(server.clock)))
    server.run(conversation.begin())
    return conversation


def test_the_commands_come_from_the_servers_help(conversation: Conversation) -> None:
    assert conversation.usages["GET key"] == "the value, or null"


def test_the_prompt_shows_the_state_of_the_transaction(server: MemoryServer, conversation: Conversation) -> None:
    other = server.connect()

    def say(line: str) -> str:
        server.run(conversation.ask(line))
        return conversation.prompt

    assert conversation.prompt == "kvd> "
    assert say("PUT a x") == "kvd> "
    assert say("start") == "kvd (transaction)> "
    assert say("SAVEPOINT s") == "kvd (transaction)> "
    assert say("INCR a") == "kvd (transaction, doomed)> "
    assert say("ROLLBACK TO s") == "kvd (transaction)> "
    server.run(other.put("a", "y"))
    assert say("PUT b 1") == "kvd (transaction, in conflict)> "
    assert say("COMMIT") == "kvd> "
    assert say("START NOW") == "kvd (transaction, doomed)> "
    assert say("ROLLBACK") == "kvd> "
    assert say('["START"]') == "kvd (transaction)> "
    server.advance(100)
    assert say("GET a") == "kvd (transaction, expired)> "
    assert say("COMMIT too many words") == "kvd (transaction, expired)> "
    assert say("COMMIT") == "kvd> "
    assert say("[broken") == "kvd> "


def test_a_lost_connection_is_told_and_made_again(server: MemoryServer, conversation: Conversation) -> None:
    server.run(conversation.ask("START"))
    asking = conversation.ask("PUT a 1")
    server.lose_links()
    server.reachable = False
    told = server.run(asking)
    assert told.startswith("no reply: ")
    assert "rolled back" in told
    assert conversation.prompt == "kvd> "
    server.reachable = True
    assert server.run(conversation.ask("GET a")) == "null"


def test_quit_ends_it(server: MemoryServer, conversation: Conversation) -> None:
    server.run(conversation.ask("GET a"))
    assert not conversation.over
    server.run(conversation.ask("quit"))
    assert conversation.over


# History.


def test_passwords_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history = History(str(path))
    for line in ("GET a", "auth me secret", '["AUTH", "me", "secret"]', "GET b"):
        history.store_string(line)
    assert list(History(str(path)).load_history_strings()) == ["GET b", "GET a"]


# On a terminal.


class Terminal:
    """A ``kvd shell`` on a terminal of its own."""

    def __init__(self, home: Path, *arguments: str, without: str = "") -> None:
        hide = f"sys.modules[{without!r}] = None; " if without else ""
        script = f"import sys; {hide}from kvd.cli.main import main; sys.argv[1:] = {list(arguments)!r}; main()"
        self._fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
        )
        os.close(theirs)
        self._seen = b""

    def expect(self, text: str) -> None:
        """Wait until this is shown, behind what was expected before."""
        end = time.monotonic() + LIMIT
        while True:
            shown = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", self._seen).decode(errors="replace")
            before, found, _ = shown.partition(text)
            if found:
                self._seen = shown[len(before) + len(found) :].encode()
                return
            assert time.monotonic() < end, f"waited in vain for {text!r}; there is {shown!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self._seen += os.read(self._fd, 65536)
                except OSError:  # the other end is closed
                    raise AssertionError(f"ended before {text!r}; there is {shown!r}") from None

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def status(self) -> int:
        """Wait for the end."""
        return self.process.wait(LIMIT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT)
        os.close(self._fd)


@pytest.fixture
def terminal(daemon: Daemon, tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, "shell", "--connect", f"tcp:127.0.0.1:{daemon.port}")
    yield terminal
    terminal.close()


def test_it_works_on_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.expect("kvd>")
    terminal.type("PUT greeting hello\r")
    terminal.expect("Ok\r\n")
    terminal.expect("kvd>")
    terminal.type("sca")
    terminal.expect("SCAN [PREFIX p]")  # the menu shows the usage
    terminal.expect("pairs")
    terminal.type("\t")
    terminal.expect("SCAN")
    terminal.type(" PREFIX greet\r")
    terminal.expect('"greeting"  "hello"')
    terminal.expect("kvd>")
    terminal.type("START\r")
    terminal.expect("kvd (transaction)>")
    terminal.type("INCR greeting\r")
    terminal.expect("NOT_A_NUMBER: ")
    terminal.expect("kvd (transaction, doomed)>")
    terminal.type("half a line\x03")  # Ctrl-C drops the line, and nothing else
    terminal.expect("kvd (transaction, doomed)>")
    terminal.type("ROLLBACK\r")
    terminal.expect("Ok\r\n")
    terminal.expect("kvd>")
    terminal.type("\x1b[A\x1b[A\x1b[A\x1b[A\r")  # up to the SCAN
    terminal.expect('"greeting"  "hello"')
    terminal.expect("kvd>")
    terminal.type("\x04")
    assert terminal.status() == 0
    history = tmp_path / ".kvd_history"
    assert "+PUT greeting hello\n" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_quit_ends_it_on_a_terminal(terminal: Terminal) -> None:
    terminal.expect("kvd>")
    terminal.type("QUIT\r")
    terminal.expect("Ok\r\n")
    assert terminal.status() == 0


def test_a_server_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "shell", "--connect", f"unix:{tmp_path}/nothing")
    try:
        terminal.expect(f"kvd: unix:{tmp_path}/nothing: ")
        assert terminal.status() == 2
    finally:
        terminal.close()


def test_without_prompt_toolkit_it_says_what_to_install(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "shell", without="prompt_toolkit")
    try:
        terminal.expect("pip install 'txkvd[cli]'")
        assert terminal.status() == 2
    finally:
        terminal.close()


def test_without_a_terminal_it_does_what_run_does(daemon: Daemon) -> None:
    said = b"PUT a caf\xc3\xa9\n\nGET a\nSTART\nGETT\nCOMMIT"
    both = [
        subprocess.run(
            [sys.executable, "-m", "kvd", command, "--connect", f"tcp:127.0.0.1:{daemon.port}"],
            input=said,
            capture_output=True,
            timeout=LIMIT,
        )
        for command in ("shell", "run")
    ]
    assert both[0].stdout == both[1].stdout
    assert both[0].stdout.count(b"\n") == 5
    assert both[0].returncode == both[1].returncode == 1
