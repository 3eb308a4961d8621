"""What plugs in: stores, named in ``--store NAME:…``, and wire protocols, named in ``--listen NAME=…``.

A package offers one by a literal in a file of its ``twisted/plugins/`` directory::

    from kvd.plugins import ProtocolPlugin, StorePlugin

    rocks = StorePlugin("rocks", "rockskvd.store:rocks", "keeps everything in RocksDB", extra="rockskvd[fast]")
    gopher = ProtocolPlugin("gopher", "rockskvd.gopher:gopher", "serves keys as a Gopher menu")

The module is imported when the store or the protocol is used.
"""

from __future__ import annotations

import importlib
from typing import Any

from twisted.plugin import IPlugin, getPlugins
from zope.interface import Attribute, Interface, implementer


class INamed(Interface):
    """What the two have in common."""

    name: str = Attribute("What the option calls it.")
    summary: str = Attribute("One line for the help.")


class IStorePlugin(INamed):
    """A store that can be named in ``--store``."""

    def load() -> Any:
        """The :data:`kvd.interfaces.StoreFactory`.

        :raise ImportError: something must be installed first.
        """


class IProtocolPlugin(INamed):
    """A wire protocol that can be named in ``--listen``."""

    def load() -> Any:
        """A function that takes the :class:`kvd.daemon.service.StoreService` and returns an ``IProtocolFactory``.

        For a protocol that is a stream of requests, that is a :class:`kvd.daemon.stream.StreamFactory` on a
        :class:`kvd.core.codec.Codec`: turns, limits, back-pressure and transactions are then those of all protocols.
        Any other factory opens its own sessions with ``StoreService.open_session``.

        :raise ImportError: something must be installed first.
        """


class _Plugin:
    """Names a function without importing it.

    :param name: what the option calls it.
    :param factory: the function, as ``module:function``.
    :param summary: one line for the help.
    :param extra: what to install for it, for the message if the import fails.
    """

    kind = ""

    def __init__(self, name: str, factory: str, summary: str, extra: str = "") -> None:
        self.name = name
        self.summary = summary
        self._factory = factory
        self._extra = extra

    def load(self) -> Any:
        """Import the function."""
        module, _, function = self._factory.partition(":")
        try:
            return getattr(importlib.import_module(module), function)
        except ImportError as error:
            hint = f"; install {self._extra}" if self._extra else ""
            raise ImportError(f"the {self.name} {self.kind} can't be loaded: {error}{hint}") from error


@implementer(IPlugin, IStorePlugin)
class StorePlugin(_Plugin):
    """Offers a store."""

    kind = "store"


@implementer(IPlugin, IProtocolPlugin)
class ProtocolPlugin(_Plugin):
    """Offers a wire protocol."""

    kind = "protocol"


def known(interface: Any) -> dict[str, Any]:
    """All plugins of a kind that are installed, by name.

    :param interface: :class:`IStorePlugin` or :class:`IProtocolPlugin`.
    """
    return {plugin.name: plugin for plugin in getPlugins(interface)}
