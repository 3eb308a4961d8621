"""Everything that README.md and docs/ show is done here, against a real daemon, and must look as shown.

- a ``console`` block that begins with ``$ telnet`` is typed, line by line;
- other ``console`` blocks are run by a shell, command by command, and print what follows them;
- a ``text`` block with ``A>`` and ``A<`` is a conversation of several clients;
- a ``python`` block whose first line is a comment with a path is that file;
- any other is run as a script; it prints what stands in the comments after its calls of ``print``.

``…`` stands for anything. Each document has a daemon of its own; its port takes the place of 8765.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from kvd.core.commands import ROWS
from kvd.errors import BY_CODE
from tests.support.daemon import LIMIT, Client, Daemon, wait_for

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A block of code: what stands behind its fence, the line where it begins, and what it holds."""

    kind: str
    line: int
    text: str


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[1], text.count("\n", 0, each.start()) + 2, each[2]) for each in found]


def assert_looks_like(actual: str, shown: str, where: str) -> None:
    pattern = re.escape(shown.strip()).replace("…", ".*")
    assert re.fullmatch(pattern, actual.strip(), re.DOTALL), f"{where}\nshown:  {shown}\nactual: {actual}"


def converse(block: Block, daemon: Daemon) -> None:
    """Type what is typed, and compare what is answered."""
    clients: dict[str, Client] = {}
    telnet = block.kind == "console"
    for number, line in enumerate(block.text.splitlines()[telnet:], block.line + telnet):
        who, typed = ("A", not line.startswith("{")) if telnet else (line[0], line[1] == ">")
        said = line if telnet else line[3:]
        client = clients.setdefault(who, clients.get(who) or daemon.client())
        if typed:
            client.send(said.encode() + b"\r\n")
        else:
            assert_looks_like(client.line(), said, f"line {number}")
    for client in clients.values():
        client.close()


def run_commands(block: Block, daemon: Daemon, directory: Path, port: int) -> None:
    """Run each command of a block in a shell, and compare what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE):
        if "kvd run" in command and "--connect" not in command:
            command = command.replace("kvd run", f"kvd run --connect tcp:localhost:{port}")
        done = subprocess.run(
            ["bash", "-c", command.replace("8765", str(port))],
            cwd=directory,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )
        assert_looks_like(done.stdout.replace(str(port), "8765"), shown, f"line {block.line}: {command}")
        if "kill $(cat" in command:
            wait_for(lambda: not (directory / "kvd.pid").exists(), "the daemon to end")


def run_script(block: Block, directory: Path, port: int) -> None:
    """Run a block of Python, and compare what it prints with its comments."""
    script = directory / "example.py"
    script.write_text(block.text.replace("8765", str(port)))
    done = subprocess.run([sys.executable, script], cwd=directory, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, f"line {block.line}: {done.stderr}"
    shown = re.findall(r"print\(.*\) +# (.*)", block.text)
    assert_looks_like(done.stdout.replace(str(port), "8765"), "\n".join(shown), f"line {block.line}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_shows_happens(document: Path, daemon: Daemon, tmp_path: Path) -> None:
    for block in blocks_of(document):
        first = block.text.splitlines()[0]
        if first.startswith("$ telnet ") or (block.kind == "text" and first.startswith("A> ")):
            with Daemon(fresh_directory(tmp_path), "--port", "0") as fresh:  # its clients count from 1
                converse(block, fresh.started())
        elif block.kind == "console" and "pip install" not in block.text:
            # A block that starts a daemon of its own needs a port that is free.
            port = free_port() if "twistd" in block.text else daemon.port
            run_commands(block, daemon, tmp_path, port)
        elif named := re.match(r"# ([\w/]+\.py)\n", block.text):
            file = tmp_path / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.kind == "python":
            run_script(block, tmp_path, daemon.port)


def fresh_directory(parent: Path) -> Path:
    directory = parent / f"block{len(list(parent.iterdir()))}"
    directory.mkdir()
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_every_block_of_code_is_of_a_kind_that_is_tried() -> None:
    for document in DOCUMENTS:
        for block in blocks_of(document):
            where = f"{document.name}, line {block.line}"
            assert block.kind in ("console", "text", "python", "ini"), where
            if block.kind == "console":
                assert block.text.startswith("$ "), where


def test_the_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_protocol_page_names_every_command_and_code() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    for row in ROWS:
        assert f"`{row.usage}`" in page or f"`{row.name}" in page, row.usage
    codes = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    source = "".join(path.read_text() for path in (ROOT / "kvd").rglob("*.py") if path.name != "errors.py")
    for code, error in BY_CODE.items():
        assert (code in codes) == (f"{error.__name__}(" in source), code
