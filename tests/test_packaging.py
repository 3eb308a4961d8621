"""What is built and installed: the wheel's content, and environments in which kvd was installed."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.daemon import TWISTD

ROOT = Path(__file__).parent.parent
LIMIT = 300.0
"""Seconds that one step of building, installing or testing may take."""

SOURCES = ["accounts", "interfaces", "wire"]
FOLDERS = ["core", "stores/memory", "stores/sqlite"]
CORE = SOURCES + [
    str(path.relative_to(ROOT / "kvd").with_suffix(""))
    for folder in FOLDERS
    for path in (ROOT / "kvd" / folder).glob("[!_]*.py")
]
COMPILED = {f"kvd/{name}{sysconfig.get_config_var('EXT_SUFFIX')}" for name in [*CORE, "core__mypyc"]}


def run(command: list[str], directory: Path) -> str:
    """What a command prints. Only what is installed is found by it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, timeout=LIMIT, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def can_compile() -> bool:
    """Whether there is a C compiler, and Python's headers."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(compiler) is not None and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing in the checkout."""
    tree = tmp_path_factory.mktemp("build") / "tree"
    tree.mkdir()
    for path in ("kvd", "twisted", "tests", "docs"):
        shutil.copytree(ROOT / path, tree / path, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    for path in ("pyproject.toml", "setup.cfg", "setup.py", "MANIFEST.in", "LICENSE", "README.md"):
        shutil.copy(ROOT / path, tree)
    return tree


@pytest.fixture(scope="session")
def distributions(tree: Path) -> Path:
    """A directory with the sdist, and the wheel that was built from it."""
    made = tree.parent / "made"
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(tree)], tree.parent)
    return made


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (wheel,) = distributions.glob("*.whl")
    return wheel


def environment(directory: Path, *what: str) -> Path:
    """A new environment with kvd installed in it, and the packages of this one in reach: its Python.

    :param what: to install, in pip's words.
    """
    run([sys.executable, "-m", "venv", "--without-pip", str(directory)], directory.parent)
    python = directory / "bin" / "python"
    # Behind its own packages, and without what .pth files bring into this one, as kvd itself.
    (own,) = directory.glob("lib/python*/site-packages")
    (own / "this.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run([*pip, "install", "--no-index", "--no-deps", "--ignore-installed", *what], directory)
    return python


@pytest.fixture(scope="session")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("wheel"), str(wheel))


@pytest.fixture(scope="session")
def from_tree(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("editable"), "--no-build-isolation", "--editable", str(tree))


def sources(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in (tree / "kvd").rglob("*.py")}


def test_the_wheel_holds_kvd_its_plugin_and_nothing_else(tree: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in names if name.split("/")[0] == f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert about
    plain = {*sources(tree), "kvd/py.typed", "twisted/plugins/kvd_plugin.py"}
    assert names - about == plain | (COMPILED if can_compile() else set())


def test_the_base_install_needs_three_packages_alone(wheel: Path) -> None:
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    needed = email.message_from_bytes(zipfile.ZipFile(wheel).read(name)).get_all("Requires-Dist", [])
    base = [str(line) for line in needed if "extra ==" not in line]
    assert sorted(line.partition(">=")[0] for line in base) == ["Twisted", "sortedcontainers", "uvloop"]
    assert [line for line in base if ";" in line] == [line for line in base if line.startswith("uvloop")]


def test_the_sdist_holds_all_that_its_tests_need(tree: Path, distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert {name for name in wanted if ".egg-info/" not in name} <= names
    assert not [name for name in names if name.endswith((".pyc", "dropin.cache", "twisted/__init__.py"))]


@pytest.mark.parametrize("installed", ["from_wheel", "from_tree"])
class TestInstalled:
    """In an environment of its own, from another directory."""

    @pytest.fixture
    def python(self, installed: str, request: pytest.FixtureRequest) -> Path:
        python: Path = request.getfixturevalue(installed)
        return python

    def test_the_package_is_the_one_that_was_installed(
        self, python: Path, installed: str, tree: Path, tmp_path: Path
    ) -> None:
        place = run([str(python), "-c", "import kvd; print(kvd.__file__)"], tmp_path).strip()
        assert Path(place).is_relative_to(tree if installed == "from_tree" else python.parent.parent)

    def test_twistd_lists_kvd(self, python: Path, tmp_path: Path) -> None:
        lines = run([str(python), TWISTD, "--help"], tmp_path).split("\n")
        assert [line.split()[0] for line in lines if "A key/value daemon" in line] == ["kvd"]

    def test_twistd_kvd_is_there_with_its_stores(self, python: Path, tmp_path: Path) -> None:
        assert "\n  memory " in run([str(python), TWISTD, "kvd", "--help"], tmp_path)

    def test_the_kvd_command_is_there(self, python: Path, tmp_path: Path) -> None:
        command = str(python.with_name("kvd"))
        assert run([command, "--help"], tmp_path).startswith("Usage: kvd SUBCOMMAND")
        assert run([command, "--version"], tmp_path) == run([str(python), "-m", "kvd", "--version"], tmp_path)


def test_without_a_compiler_the_same_files_are_plain_python(tree: Path, tmp_path: Path) -> None:
    env = {**os.environ, "CC": "false"}
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    done = subprocess.run([*build, str(tree)], cwd=tmp_path, env=env, capture_output=True, timeout=LIMIT, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert sources(tree) <= names
    assert not names & COMPILED


def test_the_core_passes_its_tests_as_it_is_installed(from_wheel: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    told = run([str(from_wheel), "-c", "import kvd.core.commands; print(kvd.core.commands.__file__)"], tmp_path)
    assert told.strip().endswith(".py") != can_compile()
    suites = ["tests/stores", "tests/core", "tests/protocols", "tests/daemon/test_limits.py", "tests/test_wire.py"]
    # There is no twistd in that environment, and what is compiled has its constants in it.
    but = "--ignore=tests/stores/sqlite"
    told = run([str(from_wheel), "-m", "pytest", "-q", "-p", "no:cacheprovider", but, *suites], tmp_path)
    assert " passed" in told
