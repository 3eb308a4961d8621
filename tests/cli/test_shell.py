"""``kvd shell``: its parts over memory, and all of it on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import to_plain_text

from kvd.cli.connecting import Server
from kvd.cli.conversation import Conversation
from kvd.cli.prompt import BriefHistory, Commands, History
from kvd.cli.replies import name_and_options, pretty
from kvd.core.commands import ROWS
from kvd.testing import MemoryServer
from tests.support.daemon import LIMIT, Daemon
from tests.support.scripted_server import ScriptedServer
from tests.test_docs import free_port

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


def test_texts_beside_names_have_as_many_lines_as_they_need() -> None:
    names = {"GET key": "one two three four five six", "SCAN [PREFIX p] [FROM key] [LIMIT n]": "seven", "QUIT": ""}
    assert pretty({"status": "Ok", "result": names}, 30).split("\n") == [
        "GET key  one two three four",
        "         five six",
        "SCAN [PREFIX p] [FROM key] [LIMIT n]",
        "         seven",
        "QUIT     ",
    ]


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
    conversation = Conversation(Server(server.clock, server.endpoint, "memory").link)
    server.run(conversation.begin())
    return conversation


def test_the_commands_come_from_the_servers_help(conversation: Conversation) -> None:
    assert {row.usage: row.help for row in ROWS} == conversation.usages


def test_the_prompt_shows_the_state_of_the_transaction(server: MemoryServer, conversation: Conversation) -> None:
    other = server.connect()

    def say(line: str) -> str:
        server.run(conversation.ask(line))
        return conversation.prompt

    assert conversation.prompt == "kvd> "
    assert say("PUT a x") == "kvd> "
    assert say("start") == "kvd (transaction)> "
    assert say("SAVEPOINT s") == "kvd (transaction)> "
    assert say("INCR a") == "kvd (transaction, aborted)> "
    assert say("ROLLBACK TO s") == "kvd (transaction)> "
    server.run(other.put("a", "y"))
    assert say("PUT b 1") == "kvd (transaction, in conflict)> "
    assert say("COMMIT") == "kvd> "
    assert say("START NOW") == "kvd (transaction, aborted)> "
    assert say("ROLLBACK") == "kvd> "
    assert say('["START"]') == "kvd (transaction)> "
    server.advance(100)
    assert say("GET a") == "kvd (transaction, expired)> "
    assert say("COMMIT too many words") == "kvd (transaction, expired)> "
    assert say("COMMIT") == "kvd> "
    assert say("[broken") == "kvd> "
    assert say('["START", true]') == "kvd (transaction, aborted)> "
    assert say('["COMMIT", "a", "b"]') == "kvd (transaction, aborted)> "
    assert say("COMMIT") == "kvd> "


def restart(server: MemoryServer) -> None:
    """Lose all connections, and have the clients hear of it."""
    server.lose_links()
    server.flush()


LINES = ["PUT other 50", "GET other", "COMMIT", "ROLLBACK", "START", "PING", "CHECK", '["INCR", "other"]']


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_a_transaction_that_is_lost_is_not_sent_and_that_is_told(
    server: MemoryServer, conversation: Conversation, line: str
) -> None:
    for each in ("PUT balance 100", "START", "PUT balance 50"):
        server.run(conversation.ask(each))
    restart(server)
    told = server.run(conversation.ask(line))
    assert told == f"the connection was lost; the transaction is rolled back, and '{line}' was not sent"
    assert (conversation.broken, conversation.prompt) == (True, "kvd> ")
    assert server.run(conversation.ask("GET other")) == "connected again\nnull"
    assert (conversation.broken, conversation.prompt) == (False, "kvd> ")


@pytest.mark.parametrize("state", ["START", "START NOW"])
def test_a_line_of_a_transaction_in_any_state_is_not_sent_once_that_is_lost(
    server: MemoryServer, conversation: Conversation, state: str
) -> None:
    server.run(conversation.ask(state))
    restart(server)
    assert "was not sent" in server.run(conversation.ask("PUT a 1"))
    assert server.run(conversation.ask("GET a")) == "connected again\nnull"


def test_outside_a_transaction_a_lost_connection_is_made_again_and_that_is_told(
    server: MemoryServer, conversation: Conversation
) -> None:
    restart(server)
    assert server.run(conversation.ask("PUT a 1")) == "the connection was lost; connected again\nOk"
    server.run(conversation.ask("START"))
    server.run(conversation.ask("COMMIT"))
    restart(server)
    assert server.run(conversation.ask("GET a")) == 'the connection was lost; connected again\n"1"'


def test_a_line_is_not_sent_as_long_as_the_server_cannot_be_reached(
    server: MemoryServer, conversation: Conversation
) -> None:
    restart(server)
    server.reachable = False
    for _ in range(2):
        told = server.run(conversation.ask("PUT a 1"))
        assert "refused" in told
        assert told.endswith("; 'PUT a 1' was not sent")
        assert conversation.broken
    server.reachable = True
    assert server.run(conversation.ask("GET a")) == "connected again\nnull"


@pytest.mark.parametrize(
    ("before", "line", "fate"),
    [
        ([], "PUT a 1", "the change may or may not have been stored"),
        ([], "GET a", "nothing was changed"),
        (["START"], "PUT a 1", "the transaction is rolled back"),
        (["START"], "COMMIT", "the transaction may or may not have been stored"),
    ],
)
def test_a_connection_that_is_lost_before_the_reply_says_what_that_means(
    server: MemoryServer, conversation: Conversation, before: list[str], line: str, fate: str
) -> None:
    for each in before:
        server.run(conversation.ask(each))
    server.network_delay = lambda from_client: 1.0
    server.clock.callLater(0.5, server.lose_links)
    assert server.run(conversation.ask(line)) == f"no reply to '{line}': the connection was lost; {fate}"
    assert (conversation.broken, conversation.prompt) == (True, "kvd> ")


def test_a_transaction_that_is_lost_right_after_a_reply_is_told_with_that_reply(
    server: MemoryServer, conversation: Conversation
) -> None:
    server.run(conversation.ask("START"))
    server.network_delay = lambda from_client: 1.0
    server.clock.callLater(2.5, server.lose_links)
    told = server.run(conversation.ask("PUT a 1"))
    assert told == "Ok\nthe connection was lost; the transaction is rolled back"
    assert conversation.broken


def test_a_server_that_does_not_answer_is_waited_for_a_minute(server: MemoryServer, conversation: Conversation) -> None:
    server.network_delay = lambda from_client: 1e6
    told = server.run(conversation.ask("GET a"))
    assert told == "no reply to 'GET a' within 60 seconds; nothing was changed"


def test_a_password_is_not_shown_in_a_message(server: MemoryServer, conversation: Conversation) -> None:
    restart(server)
    server.reachable = False
    assert "secret" not in server.run(conversation.ask("AUTH me secret"))


def test_a_key_in_quotes_gets_a_hint_and_is_sent_as_it_is(server: MemoryServer, conversation: Conversation) -> None:
    told = server.run(conversation.ask('PUT "my key" v'))
    assert told.startswith('Ok\nnote: the first word is "my, with its quote.')
    assert '["PUT", "a key"]' in told
    assert server.run(conversation.ask('["GET", "\\"my"]')) == '"key\\" v"'
    assert server.run(conversation.ask('PING "a b"')) == '"\\"a b\\""'
    assert server.run(conversation.ask('PUT k "a"')) == "Ok"


def test_quit_ends_it(server: MemoryServer, conversation: Conversation) -> None:
    server.run(conversation.ask("GET a"))
    assert not conversation.over
    server.run(conversation.ask("quit"))
    assert conversation.over


def test_quit_ends_it_also_without_a_connection(server: MemoryServer, conversation: Conversation) -> None:
    server.run(conversation.ask("START"))
    restart(server)
    assert server.run(conversation.ask("QUIT")) == "the connection was lost"
    assert conversation.over


# History.


SECRETS = [
    "auth me secret", '["AUTH", "me", "secret"]', '  [ "auth" , "me", "secret"]', '["\\u0041UTH", "me", "secret"]',
    '["AUTH", "me", "secret"', "\tAUTH me secret", "PING\nAUTH me secret", "AUTHme secret",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_passwords_are_not_kept_neither_for_the_next_session_nor_in_this_one(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "history"
    for history in (History(str(path)), BriefHistory()):
        for line in ("GET a", secret, "GET b", "HELP AUTH"):
            history.append_string(line)
        assert history.get_strings() == ["GET a", "GET b", "HELP AUTH"]
    History(str(path)).store_string(secret)
    assert list(History(str(path)).load_history_strings()) == ["HELP AUTH", "GET b", "GET a"]


def test_a_disk_that_takes_no_history_does_not_matter(tmp_path: Path) -> None:
    history = History("/dev/full")
    history.append_string("GET a")
    assert history.get_strings() == ["GET a"]


# On a terminal.


class Terminal:
    """A ``kvd shell`` on a terminal of its own."""

    def __init__(self, home: str | Path | None, *arguments: str, without: str = "", **more: str) -> None:
        hide = f"sys.modules[{without!r}] = None; " if without else ""
        script = f"import sys; {hide}from kvd.cli.main import main; sys.argv[1:] = {list(arguments)!r}; main()"
        environment = {name: value for name, value in os.environ.items() if name != "HOME"} | more
        if home is not None:
            environment["HOME"] = str(home)
        self._fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(theirs)
        self._seen = b""

    def expect(self, text: str) -> None:
        """Wait until this is shown, after what was expected before."""
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

    def wait_until_it_sleeps(self) -> None:
        """Wait until the terminal is in the mode that it has between two prompts."""
        end = time.monotonic() + LIMIT
        while not termios.tcgetattr(self._fd)[3] & termios.ISIG:
            assert time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.1)

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
    terminal.expect("li")  # and as much of what it does as there is room for
    terminal.type("\t")
    terminal.expect("SCAN")
    terminal.type(" PREFIX greet\r")
    terminal.expect('"greeting"  "hello"')
    terminal.expect("kvd>")
    terminal.type("START\r")
    terminal.expect("kvd (transaction)>")
    terminal.type("INCR greeting\r")
    terminal.expect("NOT_A_NUMBER: ")
    terminal.expect("kvd (transaction, aborted)>")
    terminal.type("half a line\x03")  # Ctrl-C drops the line, and nothing else
    terminal.expect("kvd (transaction, aborted)>")
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


@pytest.mark.parametrize("home", ["/nonexistent", "/proc", "/dev/null", None, "unreadable"])
def test_without_a_place_for_a_history_it_goes_on_without_one(daemon: Daemon, tmp_path: Path, home: str | None) -> None:
    if home == "unreadable":
        (tmp_path / ".kvd_history").mkdir()
        home = str(tmp_path)
    terminal = Terminal(home, "shell", "--connect", f"127.0.0.1:{daemon.port}")
    try:
        if home is not None:  # without HOME, the user's own is taken
            terminal.expect("no history is kept in ~/.kvd_history: ")
        terminal.expect("kvd>")
        terminal.type("PUT a 1\r")
        terminal.expect("Ok\r\n")
        terminal.expect("kvd>")
        terminal.type("\x1b[A\r")
        terminal.expect("PUT a 1")
        terminal.expect("Ok\r\n")
        terminal.expect("kvd>")
        terminal.type("\x04")
        assert terminal.status() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("paste", ["\x1b[200~{}\x1b[201~\r", "{}\r"])
def test_what_was_typed_into_a_transaction_that_a_restart_ended_is_not_run(tmp_path: Path, paste: str) -> None:
    port = free_port()
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Daemon(first, "--port", str(port)) as daemon:
        daemon.started()
        terminal = Terminal(tmp_path, "shell", "--connect", f"127.0.0.1:{port}")
        terminal.expect("kvd>")
        for line in ("PUT balance 100", "START", "PUT balance 50"):
            terminal.type(f"{line}\r")
            terminal.expect("Ok\r\n")
        terminal.expect("kvd (transaction)>")
        daemon.stop()
    try:
        with Daemon(second, "--port", str(port)) as daemon:
            daemon.started()
            terminal.type(paste.format("PUT other 50\rPUT third 3\rCOMMIT"))
            terminal.expect("the transaction is rolled back, and 'PUT other 50' was not sent")
            terminal.expect("kvd>")
            terminal.type("COUNT\r")
            terminal.expect("connected again\r\n0\r\n")
            terminal.expect("kvd>")
            terminal.type("\x04")
            assert terminal.status() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("typed", "means"),
    [
        (["PUT a 1"], "the change may or may not have been stored"),
        (["GET a"], "nothing was changed"),
        (["START", "PUT a 1"], "the transaction is rolled back"),
        (["START", "COMMIT"], "the transaction may or may not have been stored"),
    ],
)
def test_ctrl_c_while_a_reply_is_outstanding_says_what_that_means(
    daemon: Daemon, terminal: Terminal, typed: list[str], means: str
) -> None:
    for line in typed[:-1]:
        terminal.expect("kvd>")
        terminal.type(f"{line}\r")
        terminal.expect("Ok\r\n")
    terminal.expect(">")
    daemon.send_signal(signal.SIGSTOP)
    try:
        terminal.type(f"{typed[-1]}\r")
        terminal.expect(f"{typed[-1]}")
        terminal.wait_until_it_sleeps()
        terminal.type("\x03")
        terminal.expect(f"kvd: interrupted, without a reply to '{typed[-1]}'; {means}\r\n")
        assert terminal.status() == 130
    finally:
        daemon.send_signal(signal.SIGCONT)


def test_letters_that_the_terminal_does_not_have_are_shown_as_escapes(daemon: Daemon, tmp_path: Path) -> None:
    daemon.client().ask("PUT a caf\u00e9")
    terminal = Terminal(tmp_path, "shell", "-c", f"127.0.0.1:{daemon.port}", PYTHONIOENCODING="ascii")
    try:
        terminal.expect("kvd>")
        terminal.type("GET a\r")
        terminal.expect('"caf\\xe9"\r\n')
        terminal.expect("kvd>")
        terminal.type("\x04")
        assert terminal.status() == 0
    finally:
        terminal.close()


def test_it_says_when_it_does_not_talk_to_kvd(tmp_path: Path) -> None:
    with ScriptedServer(lambda data: b"HTTP/1.1 400 Bad Request\r\n\r\n") as scripted:
        terminal = Terminal(tmp_path, "shell", "--connect", f"127.0.0.1:{scripted.port}")
        try:
            terminal.expect(f"kvd: 127.0.0.1:{scripted.port}: this is not a kvd server: it says ")
            assert terminal.status() == 2
        finally:
            terminal.close()


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
