"""The ``kvd`` command."""
