"""Imports point one way: from what serves to what is served, and never from the client's side to the server's."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvd
from tests.support.daemon import LIMIT

ROOT = Path(kvd.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# The server, bottom first. Each imports only what stands before it.
SERVER = [
    "kvd.compiler",
    "kvd.errors",
    "kvd.wire",
    "kvd.core.lines",
    "kvd.core.limits",
    "kvd.interfaces",
    "kvd.core.arguments",
    "kvd.core.transaction",
    "kvd.stores.memory.history",
    "kvd.stores.memory.split",
    "kvd.stores.memory.store",
    "kvd.core.command",
    "kvd.core.session",
    "kvd.core.handlers",
    "kvd.core.commands",
    "kvd.core.connection",
    "kvd.daemon.transport",
    "kvd.daemon.listen",
    "kvd.daemon.turns",
    "kvd.daemon.resident",
    "kvd.daemon.stream",
    "kvd.daemon.service",
    "kvd.daemon.ports",
    "kvd.tap",
]
CORE = SERVER[: SERVER.index("kvd.daemon.transport")]
SHARED = {"kvd", "kvd.errors", "kvd.wire", "kvd.interfaces"}
CLIENTS = ["kvd.client", "kvd.blocking", "kvd.cli.main", "kvd.cli.run", "kvd.cli.verify"]


def imports(module: str, types_too: bool = False) -> set[str]:
    """The names of the modules that a module imports, anywhere in it.

    :param types_too: count what only the type checker sees.
    """
    return set(_imported(ast.parse(MODULES[module].read_text()), types_too))


def _imported(node: ast.AST, types_too: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "write the whole name"
        package = node.module or ""
        for name in node.names:
            inner = f"{package}.{name.name}"
            yield inner if inner in MODULES else package
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types_too:
        for statement in node.orelse:
            yield from _imported(statement, types_too)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imported(child, types_too)


def reached(module: str) -> set[str]:
    """The modules of kvd that a module imports, and what they import, and so on."""
    found: set[str] = set()
    left = [module]
    while left:
        for name in imports(left.pop()) - found:
            if name in MODULES:
                found.add(name)
                left.append(name)
    return found


def run(code: str) -> str:
    """What code prints in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=LIMIT, check=True, text=True
    ).stdout


@pytest.mark.parametrize("module", SERVER)
def test_the_server_imports_only_from_below(module: str) -> None:
    above = set(SERVER[SERVER.index(module) :])
    assert not reached(module) & above


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_itself_and_no_twisted(module: str) -> None:
    used = imports(module, types_too=True)
    assert {name for name in used if name.startswith("kvd")} <= {"kvd", *CORE}
    assert not {name for name in used if name.split(".")[0] in ("twisted", "zope", "uvloop")}


@pytest.mark.parametrize("module", CORE)
def test_the_core_has_no_generator_expressions_for_the_compiler_makes_lists_of_them(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    lazy = {  # it makes loops of these
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("all", "any", "next", "sum")
        for argument in call.args
    }
    found = [node for node in ast.walk(tree) if isinstance(node, ast.GeneratorExp) and id(node) not in lazy]
    assert [node.lineno for node in found] == []


@pytest.mark.parametrize("module", SERVER)
def test_the_server_knows_no_client(module: str) -> None:
    assert not [name for name in reached(module) if name in CLIENTS or name.startswith("kvd.cli")]


@pytest.mark.parametrize("module", CLIENTS)
def test_the_client_side_never_imports_the_server(module: str) -> None:
    server = {"kvd.tap", *reached("kvd.tap")}
    assert not reached(module) & (server - SHARED)


def test_the_blocking_client_brings_no_twisted_with_it() -> None:
    assert run(
        "import sys, kvd.blocking; print({name.split('.')[0] for name in sys.modules} & {'twisted', 'zope'})"
    ) == ("set()\n")


def test_no_module_installs_a_reactor_when_it_is_imported() -> None:
    names = [name for name in MODULES if not name.endswith("__main__")]
    statements = "\n".join(f"import {name}" for name in [*names, "twisted.plugins.kvd_plugin"])
    assert run(f"{statements}\nimport sys\nprint('twisted.internet.reactor' in sys.modules)") == "False\n"
