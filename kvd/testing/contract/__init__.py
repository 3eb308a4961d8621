"""What every store must do, through the real protocol: a suite that a store's author runs on theirs.

::

    from kvd.testing.contract import StoreContract

    class TestRocks(StoreContract):
        def make_store(self, clock):
            return RocksStore(...)

It needs pytest. Each test has a server, a store and a clock of its own; time passes only while a reply is
awaited, and where a test moves it.
"""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from kvd.interfaces import Store
from kvd.testing.contract.anomalies import Anomalies
from kvd.testing.contract.data import Data
from kvd.testing.contract.ends import Ends
from kvd.testing.contract.errors import Errors
from kvd.testing.contract.order import Order
from kvd.testing.contract.receipts import Receipts
from kvd.testing.contract.savepoints import Savepoints
from kvd.testing.contract.transactions import Transactions
from kvd.testing.conversations import Server


class StoreContract(Data, Order, Errors, Transactions, Savepoints, Receipts, Ends, Anomalies):
    """The suite. A class that derives from it runs it on the store that it makes."""

    def make_store(self, clock: Clock) -> Store:
        """A new and empty store.

        :param clock: the time; a store that answers later does so when this says.
        """
        raise TypeError("a subclass says which store")

    @pytest.fixture
    def server(self) -> Server:
        """A server on a new store, with any number of clients in memory."""
        clock = Clock()
        return Server(self.make_store(clock), clock)
