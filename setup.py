"""Compiles the typed core with mypyc where there is a compiler; the same files are plain Python where there is none.

Everything else about the distribution stands in setup.cfg.
"""

import sys

from setuptools import setup

CORE = [
    "kvd/arguments.py",
    "kvd/command.py",
    "kvd/commands.py",
    "kvd/connection.py",
    "kvd/handlers.py",
    "kvd/interfaces.py",
    "kvd/limits.py",
    "kvd/lines.py",
    "kvd/session.py",
    "kvd/stores/history.py",
    "kvd/stores/memory.py",
    "kvd/stores/split.py",
    "kvd/transaction.py",
    "kvd/wire.py",
]

extensions = []
# Not for an editable install: later edits of these files would go unnoticed beside what was compiled.
if "bdist_wheel" in sys.argv:
    from mypyc.build import mypycify

    extensions = mypycify(["--config-file=", "--ignore-missing-imports", *CORE], opt_level="3", group_name="kvd.core")
    for extension in extensions:
        extension.optional = True

setup(ext_modules=extensions)
