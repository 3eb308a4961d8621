"""What stands behind ``kvd verify``: the record of what clients did, and the checks that judge it.

Nothing here talks to a server. :func:`kvd.verify.check.check` takes a history and gives a verdict.
"""
