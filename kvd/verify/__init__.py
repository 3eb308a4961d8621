"""The engine of ``kvd verify``: clients that load a server, the record of what they did, and the checks that judge it.

:class:`kvd.verify.driver.Driver` loads a server. :func:`kvd.verify.check.check` takes a history and gives a verdict.
"""
