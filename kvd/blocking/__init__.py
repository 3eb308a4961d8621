"""The blocking client, for scripts and notebooks: no reactor, no Twisted.

::

    from kvd.blocking import Client

    with Client("localhost", 8765) as client:
        client.put("key1", "value1")
        with client.transaction() as txn:
            txn.put("key2", txn.get("key1"))
"""

from kvd.blocking.client import Client
from kvd.blocking.commands import Commands
from kvd.blocking.pipeline import Pipeline
from kvd.blocking.transaction import Transaction
from kvd.receipts import Outcome
from kvd.requests import Page

__all__ = ["Client", "Commands", "Outcome", "Page", "Pipeline", "Transaction"]
