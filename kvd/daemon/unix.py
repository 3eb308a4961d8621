"""UNIX sockets that a daemon left behind when it was killed."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress


def clear_stale_socket(path: str) -> None:
    """Remove a socket on which nobody listens, and Twisted's lock beside it.

    The lock names the process that made it; but that number may belong to another process by now, in a container even
    to this one. So somebody is asked instead of looked up: a socket that answers is left alone.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # not ours to remove; to bind it fails, and says why
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
    except FileNotFoundError:
        if os.path.islink(f"{path}.lock"):
            _remove(f"{path}.lock")
    except ConnectionRefusedError:
        _remove(path)
        _remove(f"{path}.lock")
    except OSError:  # it may not be looked at, or its queue is full: somebody listens
        return


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
