"""How ``--store NAME:…`` finds stores.

A store is offered by a literal in a file of the ``twisted/plugins/`` directory of any package::

    from kvd.plugins import StorePlugin

    rocks = StorePlugin("rocks", "rockskvd.store:rocks", "keeps everything in RocksDB", extra="rockskvd[fast]")

The module is imported when the store is used.
"""

from __future__ import annotations

import importlib
from typing import Any

from twisted.plugin import IPlugin, getPlugins
from zope.interface import Attribute, Interface, implementer


class IStorePlugin(Interface):
    """A store that can be named in ``--store``."""

    name: str = Attribute("What stands before the colon.")
    summary: str = Attribute("One line for the help.")

    def load() -> Any:
        """The :data:`kvd.interfaces.StoreFactory`. :raise ImportError: something must be installed first."""


@implementer(IPlugin, IStorePlugin)
class StorePlugin:
    """Names a store's factory without importing it.

    :param name: what stands before the colon in ``--store``.
    :param factory: a :data:`kvd.interfaces.StoreFactory`, as ``module:function``.
    :param summary: one line for the help.
    :param extra: what to install for it, for the message if the import fails.
    """

    def __init__(self, name: str, factory: str, summary: str, extra: str = "") -> None:
        self.name = name
        self.summary = summary
        self._factory = factory
        self._extra = extra

    def load(self) -> Any:
        """Import the factory."""
        module, _, function = self._factory.partition(":")
        try:
            return getattr(importlib.import_module(module), function)
        except ImportError as error:
            hint = f"; install {self._extra}" if self._extra else ""
            raise ImportError(f"the {self.name} store can't be loaded: {error}{hint}") from error


def known_stores() -> dict[str, Any]:
    """All stores that are installed, by name."""
    return {plugin.name: plugin for plugin in getPlugins(IStorePlugin)}
