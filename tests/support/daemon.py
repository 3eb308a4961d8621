"""A real ``twistd kvd`` for tests: on loopback, on a free port, bounded in time, and surely gone at the end."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LIMIT = 20.0
"""Seconds after which a test gives up waiting for anything."""

LIFETIME = 120
"""Seconds after which a foreground daemon ends by itself, should the test run that started it be killed."""

TWISTD = str(Path(sys.executable).with_name("twistd"))


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Return once the condition is true.

    :param what: what is waited for, for the message of the failure.
    """
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT:.0f} s in vain for {what}"
        time.sleep(0.01)


class Client:
    """A socket that speaks in lines. Every wait ends after :data:`LIMIT` seconds.

    :param address: (host, port) of a TCP port, or the path of a UNIX socket.
    """

    def __init__(self, address: tuple[str, int] | Path) -> None:
        if isinstance(address, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(LIMIT)
            self.socket.connect(str(address))
        else:
            self.socket = socket.create_connection(address, LIMIT)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def line(self) -> str:
        """The next line that the server sends, without its end; nothing if it closes."""
        return self._file.readline().decode("ascii").rstrip("\n")

    def ask(self, request: str) -> str:
        """Send a request, and return the reply to it."""
        self.send(request.encode() + b"\n")
        return self.line()

    def rest(self) -> bytes:
        """All that the server sends until it closes."""
        return self._file.read()

    def end(self) -> None:
        """Send no more; what the server sends can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self.socket.close()


class Outcome(NamedTuple):
    """How a process ended that should not have stayed."""

    status: int
    """The exit status; the negative number of the signal that ended it."""

    said: str
    """What it wrote to standard error."""


class Daemon:
    """A daemon that a test has started.

    :param directory: where it runs, and has its log and pid file.
    :param options: of kvd.
    :param twistd: options of twistd, which stand before the word kvd.
    :param daemonize: let twistd put itself into the background, as it does without ``-n``.
    :param through: what to start it with, as ``["nohup"]``.
    :param inherit: file descriptors that it inherits.
    :param lifetime: seconds after which it ends by itself if it is in the foreground.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        twistd: tuple[str, ...] = (),
        daemonize: bool = False,
        through: tuple[str, ...] = (),
        inherit: tuple[int, ...] = (),
        lifetime: int = LIFETIME,
    ) -> None:
        self.directory = directory
        self.pid_file = directory / "kvd.pid"
        self.log_file = directory / "kvd.log"
        self.addresses: list[tuple[str, int] | Path] = []
        self._clients: list[Client] = []
        command = [*through, TWISTD, *([] if daemonize else ["-n"])]
        command += ["--pidfile", str(self.pid_file), "--logfile", str(self.log_file), *twistd, "kvd", *options]
        # The daemon and all of its forks hold the other end of this pipe: it ends when the last of them is gone.
        self._alive, theirs = os.pipe()
        self._errors = directory / "stderr"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(theirs, *inherit),
                preexec_fn=None if daemonize else lambda: _end_by_itself(lifetime),
            )
        os.close(theirs)
        self._daemonized = daemonize

    # Its life.

    def started(self) -> Daemon:
        """Wait until it listens."""
        if self._daemonized:
            assert self.process.wait(LIMIT) == 0, self.said()
        wait_for(lambda: " listens on " in self.log() or self.process.poll(), "the daemon to listen")
        found = re.search(r" listens on (.*); store ", self.log())
        assert found, self.said() + self.log()
        for shown in found[1].split(", "):
            self.addresses.append(_address(shown))
        return self

    def refused(self) -> Outcome:
        """Wait until it has ended, all of it, because it could not start."""
        status = self.process.wait(LIMIT)
        assert self._gone_within(LIMIT), "the daemon lives on"
        return Outcome(status, self.said())

    @property
    def pid(self) -> int:
        """The id of the daemon's process."""
        return int(self.pid_file.read_text())

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon's process."""
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, wait until it is gone, and return its exit status (0 if it was daemonized)."""
        self.send_signal(number)
        return self.stopped()

    def stopped(self) -> int:
        """Wait until it is gone, and return its exit status (0 if it was daemonized)."""
        assert self._gone_within(LIMIT), "the daemon does not stop"
        return self.process.wait(LIMIT)

    def runs(self) -> bool:
        """Whether any process of the daemon is there."""
        return not self._gone_within(0)

    def _gone_within(self, seconds: float) -> bool:
        return bool(select.select([self._alive], [], [], seconds)[0])

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, whatever state it is in."""
        for client in self._clients:
            client.close()
        if self.runs():
            if self.process.poll() is None:
                self.process.kill()
            if self.pid_file.exists():
                self.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT)
        gone = self._gone_within(LIMIT)
        os.close(self._alive)
        assert gone, "the daemon can't be stopped"

    # What it says.

    @property
    def port(self) -> int:
        """Its first TCP port."""
        return next(address[1] for address in self.addresses if isinstance(address, tuple))

    def client(self, address: tuple[str, int] | Path | None = None) -> Client:
        """A new connection, to its first TCP port if no address is given; closed in the end."""
        client = Client(("127.0.0.1", self.port) if address is None else address)
        self._clients.append(client)
        return client

    def log(self) -> str:
        """What stands in its log."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def said(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text()


def _end_by_itself(lifetime: int) -> None:
    signal.alarm(lifetime)  # it outlives exec


def _address(shown: str) -> tuple[str, int] | Path:
    if shown.startswith("unix socket "):
        return Path(shown.removeprefix("unix socket "))
    host, _, port = shown.rpartition(":")
    return host.strip("[]"), int(port)
