"""The ``kvd`` command as a process: bytes in, bytes out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.daemon import LIMIT, Daemon
from tests.support.scripted_server import ScriptedServer

KVD = str(Path(sys.executable).with_name("kvd"))

Done = subprocess.CompletedProcess[bytes]


def to(server: Daemon | ScriptedServer) -> str:
    """The option that names a server."""
    return f"--connect=127.0.0.1:{server.port}"


def kvd(*arguments: str | Path, stdin: bytes = b"") -> Done:
    """Run the command to its end."""
    return subprocess.run([KVD, *map(str, arguments)], input=stdin, capture_output=True, timeout=LIMIT)


def begun(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Run the command, with pipes; in a ``with`` statement, and with :func:`ended`."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([KVD, *map(str, arguments)], bufsize=0, **{**streams, **options})


def ended(process: subprocess.Popen[bytes]) -> Done:
    """Wait for the end of a command that was begun; read what it says."""
    out, errors = process.communicate(timeout=LIMIT)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


def complaint(done: Done, status: int = 2) -> str:
    """The one line that a command ended with."""
    assert done.returncode == status, done
    said = done.stderr.decode()
    assert re.fullmatch(r"kvd: .*\n", said), done
    return said


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The most bytes that a process has taken so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
