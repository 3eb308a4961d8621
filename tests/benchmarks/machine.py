"""What a benchmark ran on: nothing that tells whose machine it is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kvd import wire


def facts() -> dict[str, str]:
    """Name and version of each part of the machine that matters."""
    return {
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "Twisted": _version("Twisted"),
        "uvloop": _version("uvloop"),
        "kvd's core": "plain Python" if (wire.__file__ or "").endswith(".py") else "compiled",
        "Redis": _redis(),
    }


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _redis() -> str:
    if not shutil.which("redis-server"):
        return "not installed"
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v=(\S+)", said)
    return found[1] if found else "unknown"
