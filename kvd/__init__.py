"""kvd: a key/value daemon with interactive, strictly serializable transactions.

The daemon is ``twistd kvd``; clients are :mod:`kvd.blocking` and the ``kvd`` command.
``docs/reading.md`` walks through the code in reading order.
"""

__version__ = "0.1.0"
