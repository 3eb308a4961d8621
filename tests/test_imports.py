"""Imports point one way: from what serves to what is served, and never from the client's side to the server's."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx
import pytest

import kvd
from tests.support.daemon import LIMIT

ROOT = Path(kvd.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

LANGUAGE = {"kvd.accounts", "kvd.compiler", "kvd.errors", "kvd.interfaces", "kvd.wire"}
"""What all parts speak."""

CLIENT_SIDE = {"kvd", "kvd.errors", "kvd.wire", "kvd.requests", "kvd.receipts", "kvd.client", "kvd.blocking"}

ROOMS = {
    "kvd.core": LANGUAGE,
    "kvd.stores": LANGUAGE,
    "kvd.daemon": {"kvd", "kvd.numbers", "kvd.plugins", "kvd.reactor", "kvd.core", *LANGUAGE},
    "kvd.protocols": {"kvd.core", "kvd.daemon", *LANGUAGE},
    "kvd.client": CLIENT_SIDE,
    "kvd.blocking": CLIENT_SIDE,
    "kvd.verify": CLIENT_SIDE,
    "kvd.cli": {"kvd.numbers", "kvd.reactor", "kvd.stores", "kvd.verify", *CLIENT_SIDE},
}
"""What the modules of each room may import, besides each other."""

COMPILED = sorted(
    name
    for name in MODULES
    if name in LANGUAGE or name.startswith(("kvd.core.", "kvd.stores.memory.", "kvd.stores.sqlite."))
)
"""What knows no Twisted, and is compiled but for the errors and the compiler's own word."""


def imports(module: str) -> set[str]:
    """The names of the modules that a module imports, anywhere in it, for the type checker too."""
    return set(_imported(ast.parse(MODULES[module].read_text())))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "write the whole name"
        package = node.module or ""
        for name in node.names:
            inner = f"{package}.{name.name}"
            yield inner if inner in MODULES else package
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imported(child)


def run(code: str) -> str:
    """What code prints in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=LIMIT, check=True, text=True
    ).stdout


def room_of(module: str) -> str:
    """The room that a module is in; its own name where that stands at the top."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_the_rooms_below_it(room: str) -> None:
    inside = [name for name in MODULES if room_of(name) == room]
    assert inside
    used = {room_of(name) for module in inside for name in imports(module) if name in MODULES}
    assert used - {room} <= ROOMS[room]


def test_of_the_server_the_command_line_knows_only_the_format_of_a_file() -> None:
    used = {name for module in MODULES if room_of(module) == "kvd.cli" for name in imports(module)}
    assert {name for name in used if room_of(name) == "kvd.stores"} == {"kvd.stores.sqlite.format"}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph: Any = networkx.DiGraph((module, name) for module in MODULES for name in imports(module) if name in MODULES)
    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1] == []
    assert list(networkx.selfloop_edges(graph)) == []


@pytest.mark.parametrize("module", COMPILED)
def test_what_is_compiled_knows_no_twisted(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] in ("twisted", "zope", "uvloop")}


def test_what_knows_no_twisted_is_compiled() -> None:
    built = setup_core()
    paths = {
        str(MODULES[module].relative_to(ROOT.parent)) for module in COMPILED if MODULES[module].name != "__init__.py"
    }
    assert built == paths - {"kvd/compiler.py", "kvd/errors.py"}


def setup_core() -> set[str]:
    """The files that setup.py compiles."""
    tree = ast.parse((ROOT.parent / "setup.py").read_text())
    (core,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CORE"
    )
    found = set()
    for pattern in (node.value for node in ast.walk(core) if isinstance(node, ast.Constant)):
        found |= {str(path.relative_to(ROOT.parent)) for path in ROOT.parent.glob(str(pattern))}
    return found


@pytest.mark.parametrize("module", COMPILED)
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


def test_the_blocking_client_brings_no_twisted_with_it() -> None:
    assert run(
        "import sys, kvd.blocking; print({name.split('.')[0] for name in sys.modules} & {'twisted', 'zope'})"
    ) == ("set()\n")


def test_no_module_installs_a_reactor_when_it_is_imported() -> None:
    names = [name for name in MODULES if not name.endswith("__main__")]
    statements = "\n".join(f"import {name}" for name in [*names, "twisted.plugins.kvd_plugin"])
    assert run(f"{statements}\nimport sys\nprint('twisted.internet.reactor' in sys.modules)") == "False\n"
