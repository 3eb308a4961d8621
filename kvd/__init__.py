"""kvd: a key/value daemon with interactive, strictly serializable transactions.

The daemon is ``twistd kvd``. For scripts there is ``kvd.Client``, the blocking client of :mod:`kvd.blocking`; for
programs that run on Twisted ``kvd.connect``, of :mod:`kvd.client`; and for a shell the ``kvd`` command.
``docs/reading.md`` walks through the code in reading order.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvd.blocking import Client
    from kvd.client import connect

__version__ = "0.1.0"

__all__ = ["Client", "__version__", "connect"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Only when they are asked for: scripts shall not load Twisted, and nobody shall load both.
        if name == "Client":
            from kvd.blocking import Client

            return Client
        if name == "connect":
            from kvd.client import connect

            return connect
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
