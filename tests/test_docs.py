"""Everything that README.md and docs/ show is done here, against a real daemon, and must look as shown.

- A ``console`` block that begins with ``$ telnet`` is typed, line by line.
- Any other ``console`` block is run by a shell, command by command, and prints what follows each command. The
  environment that README.md makes is ``.venv``; it is on the path once the page has activated it.
- A ``text`` block with ``A>`` and ``A<`` is a conversation of several clients.
- A ``python`` block whose first line is a comment with a path is that file. If the repository has such a file, the
  block is what to add to it: at its end, or, with ``in NAME``, at the head of that list. Conversations that come later
  on the page are held with a daemon that has the addition.
- Any other ``python`` block is run as a script. It prints what stands in the comments after its calls of ``print``.

``…`` stands for anything. Each page has a daemon of its own, and the port of that daemon takes the place of 8765.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kvd.core.commands import COMMANDS, ROWS
from kvd.errors import BY_CODE
from tests.support.daemon import LIMIT, Client, Daemon, wait_for
from tests.test_imports import LANGUAGE, MODULES, imports, room_of

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ENVIRONMENT = Path(sys.executable).parent.parent
"""What README.md calls ``.venv``."""

ACTIVATE = ". .venv/bin/activate"
"""The command after which a page may leave out ``.venv/bin/``."""

TYPE_CHECK_LIMIT = 240.0
"""Seconds that the type checker may take."""


class Block(NamedTuple):
    """A block of code: the word after its fence, the line where it begins, and what it holds."""

    kind: str
    line: int
    text: str

    @property
    def is_conversation(self) -> bool:
        """Whether it shows what clients type, and what the server answers."""
        return self.text.startswith("$ telnet ") or (self.kind == "text" and self.text.startswith("A> "))


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(each[1], text.count("\n", 0, each.start()) + 2, each[2]) for each in found]


def commands_of(block: Block) -> list[tuple[str, str]]:
    """The commands of a ``console`` block, each with what it prints."""
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.MULTILINE)


def assert_looks_like(actual: str, shown: str, where: str) -> None:
    pattern = re.escape(shown.strip()).replace("…", ".*")
    assert re.fullmatch(pattern, actual.strip(), re.DOTALL), f"{where}\nshown:  {shown}\nactual: {actual}"


class Reader:
    """Somebody who does what a page shows, block by block.

    :param directory: where they work.
    :param port: the port of the daemon that they have started already.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port
        self._path = without_environment(os.environ["PATH"])
        self._changed: Path | None = None  # a copy of the sources, with what the page adds
        (directory / ".venv").symlink_to(ENVIRONMENT)

    def do(self, block: Block) -> None:
        """Do what a block shows."""
        added = re.match(r"# ([\w/]+\.py)(?:, in (\w+))?\n(.*)", block.text, re.DOTALL)
        if block.is_conversation:
            self._converse(block)
        elif block.kind == "console" and "pip install" not in block.text:
            self._run_commands(block)
        elif added and (ROOT / added[1]).exists():
            self._add(*added.groups())
        elif added:
            file = self._directory / added[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.kind == "python":
            self._run_script(block)

    def _converse(self, block: Block) -> None:
        """Type what is typed, and compare what is answered. The clients of each conversation count from 1."""
        directory = self._directory / f"block{block.line}"
        directory.mkdir()
        through = () if self._changed is None else ("env", f"PYTHONPATH={self._changed}")
        telnet = block.kind == "console"
        clients: dict[str, Client] = {}
        with Daemon(directory, "--port", "0", through=through) as daemon:
            daemon.started()
            for number, line in enumerate(block.text.splitlines()[telnet:], block.line + telnet):
                who, typed = ("A", not line.startswith("{")) if telnet else (line[0], line[1] == ">")
                said = line if telnet else line[3:]
                client = clients.setdefault(who, clients.get(who) or daemon.client())
                if typed:
                    client.send(said.encode() + b"\r\n")
                else:
                    assert_looks_like(client.line(), said, f"line {number}")

    def _run_commands(self, block: Block) -> None:
        """Run each command in a shell, and compare what it prints."""
        port = free_port() if "twistd" in block.text else self._port  # a daemon of its own needs a port of its own
        for command, shown in commands_of(block):
            if command == ACTIVATE:
                self._path = f"{ENVIRONMENT}/bin{os.pathsep}{self._path}"
                continue
            done = subprocess.run(
                ["bash", "-c", on_port(command, port)],
                cwd=self._directory,
                env={**os.environ, "PATH": self._path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT,
            )
            assert_looks_like(done.stdout.replace(str(port), "8765"), shown, f"line {block.line}: {command}")
            if "kill $(cat" in command:
                wait_for(lambda: not (self._directory / "kvd.pid").exists(), "the daemon to end")
            elif "kill -USR1" in command:
                wait_for(lambda: len(list(self._directory.glob("kvd.log*"))) == 2, "the log to be rotated")

    def _run_script(self, block: Block) -> None:
        """Run a script, and compare what it prints with its comments."""
        script = self._directory / "example.py"
        script.write_text(block.text.replace("8765", str(self._port)))
        done = subprocess.run(
            [sys.executable, script], cwd=self._directory, capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 0, f"line {block.line}: {done.stderr}"
        shown = re.findall(r"print\(.*\) +# (.*)", block.text)
        assert_looks_like(done.stdout.replace(str(self._port), "8765"), "\n".join(shown), f"line {block.line}")

    def _add(self, path: str, name: str | None, addition: str) -> None:
        """Add something to a copy of the sources.

        :param name: the list at whose head it belongs; the end of the file if it is not given.
        """
        if self._changed is None:
            self._changed = self._directory / "changed"
            shutil.copytree(ROOT / "kvd", self._changed / "kvd", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        file = self._changed / path
        text = file.read_text()
        if name is None:
            file.write_text(text + addition)
        else:
            before, opening, after = re.split(rf"^({name}\b.*\[\n)", text, maxsplit=1, flags=re.MULTILINE)
            file.write_text(f"{before}{opening}{addition}{after}")


def without_environment(path: str) -> str:
    """The path on which commands are looked for, as it is before the environment is activated."""
    if sys.prefix == sys.base_prefix:
        return path
    return os.pathsep.join(part for part in path.split(os.pathsep) if Path(part) != ENVIRONMENT / "bin")


def on_port(command: str, port: int) -> str:
    """A command that uses this port where it would use kvd's own."""
    if "--connect" not in command:
        command = re.sub(
            r"\bkvd (run|shell|dump|load|backup|bench|verify)\b", rf"kvd \1 --connect tcp:localhost:{port}", command
        )
    return command.replace("8765", str(port))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_page_shows_happens(document: Path, daemon: Daemon, tmp_path: Path) -> None:
    reader = Reader(tmp_path, daemon.port)
    for block in blocks_of(document):
        reader.do(block)


def test_every_block_of_code_is_of_a_kind_that_is_tried() -> None:
    for document in DOCUMENTS:
        for block in blocks_of(document):
            where = f"{document.name}, line {block.line}"
            assert block.kind in ("console", "text", "python", "ini"), where
            if block.kind == "console":
                assert block.text.startswith("$ "), where


def test_a_page_can_be_tried_while_a_server_holds_the_default_port() -> None:
    """Each server and each client on a page names its address, so that the tests can put another in its place."""
    for document in DOCUMENTS:
        for block in blocks_of(document):
            where = f"{document.name}, line {block.line}"
            if block.kind == "python":
                assert "Client()" not in block.text, where
            elif block.kind == "console":
                started = [command for command, _ in commands_of(block) if re.search(r"\btwistd\b.* kvd\b", command)]
                assert all("--port 8765" in command or "--listen" in command for command in started), where


def test_the_examples_on_the_clients_page_pass_a_strict_type_check(tmp_path: Path) -> None:
    files = []
    for block in blocks_of(ROOT / "docs" / "clients.md"):
        if block.kind == "python":
            files.append(tmp_path / f"line_{block.line}.py")
            files[-1].write_text(block.text)
    assert files
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TYPE_CHECK_LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# What the pages name.


def test_the_links_between_pages_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^):]+)\)", document.read_text()):
            path, _, anchor = target.partition("#")
            page = document.parent / path if path else document
            assert page.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors_in(page), f"{document.name}: {target}"


def anchors_in(page: Path) -> set[str]:
    """What a link to a heading of a page ends with, as GitHub makes it from the heading."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_files_that_the_pages_name_exist() -> None:
    for document in DOCUMENTS:
        for path in re.findall(r"`((?:kvd|tests|twisted|docs)/[\w./-]*)`", document.read_text()):
            assert (ROOT / path).exists(), f"{document.name}: {path}"


def test_the_methods_that_the_pages_name_exist_and_the_functions_that_the_walk_names() -> None:
    defined: defaultdict[str, set[str]] = defaultdict(set)
    for owner, names in definitions():
        defined[owner].update(names)
    for document in DOCUMENTS:
        for owner, name in re.findall(r"`(\w+)\.(\w+)(?:\(\))?`", document.read_text()):
            is_code = owner[0].isupper() or document.name == "reading.md"  # kvd.log and so on are files
            if is_code and owner in defined and name != "py":
                assert name in defined[owner], f"{document.name}: {owner}.{name}"


def definitions() -> Iterator[tuple[str, list[str]]]:
    """The modules and classes of kvd, by their short names, each with the names that it defines."""
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        yield module.rpartition(".")[2], named_in(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                attributes = [each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)]
                yield node.name, named_in(node) + attributes


def named_in(node: ast.Module | ast.ClassDef) -> list[str]:
    names = []
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(each.name)
        elif isinstance(each, ast.AnnAssign):
            names.append(ast.unparse(each.target))
        elif isinstance(each, ast.Assign):
            names += map(ast.unparse, each.targets)
    return names


def test_the_pages_name_only_commands_that_exist() -> None:
    words = {word for row in ROWS for word in re.findall(r"[A-Z]+", row.usage)} | set(BY_CODE)
    words |= {"POST"}  # a web browser's
    for document in DOCUMENTS:
        text = document.read_text()
        added = set(re.findall(r'handlers\.\w+\("([A-Z]+)', text))  # by the page itself
        for word in re.findall(r"`([A-Z][A-Z_]+)\b[^`\n]*`", text):
            assert word in words | added, f"{document.name}: {word}"
        for name in re.findall(r'\bcall\("([A-Z]+)"', text):
            assert name in COMMANDS.keys() | added, f"{document.name}: {name}"


def table_in(document: str, heading: str) -> list[list[str]]:
    """The rows of the first table after a heading, cell by cell, without the row of titles."""
    _, _, section = (ROOT / "docs" / document).read_text().partition(f"\n{heading}\n")
    found = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert found, heading
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[0].splitlines()[2:]]


def test_the_protocol_page_lists_the_commands_and_their_answers_as_the_command_table_has_them() -> None:
    listed = [(usage.strip("`"), answers) for usage, _, answers in table_in("protocol.md", "## Commands")]
    assert sorted(listed) == sorted((row.usage, row.shape.says) for row in ROWS)


def test_the_protocol_page_lists_the_codes_that_the_server_uses() -> None:
    listed = {code.strip("`") for code, *_ in table_in("protocol.md", "## Codes")}
    source = "".join(path.read_text() for path in (ROOT / "kvd").rglob("*.py") if path.name != "errors.py")
    assert listed == {code for code, error in BY_CODE.items() if f"{error.__name__}(" in source}


def test_the_walk_through_the_code_shows_every_room_and_what_it_imports() -> None:
    shown: list[str] = []
    for cell, _, imported in table_in("reading.md", "## The rooms"):
        rooms = [module_at(path) for path in spans(cell)]
        modules = [module for module in MODULES if room_of(module) in rooms]
        used = {room_of(name) for module in modules for name in imports(module) if name in MODULES}
        assert {module_at(path) for path in spans(imported)} == used - {"kvd", *rooms} - LANGUAGE, cell
        shown += rooms
    assert sorted(shown) == sorted({room_of(module) for module in MODULES} - {"kvd", "kvd.__main__"})


def module_at(path: str) -> str:
    return path.rstrip("/").removesuffix(".py").replace("/", ".")


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)
