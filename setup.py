"""Compiles the typed core with mypyc where there is a compiler; the same files are plain Python where there is none.

Everything else about the distribution stands in setup.cfg.
"""

import sys
from glob import glob

from setuptools import setup

CORE = [
    "kvd/accounts.py",
    "kvd/interfaces.py",
    "kvd/wire.py",
    *sorted(glob("kvd/core/[!_]*.py")),
    *sorted(glob("kvd/stores/*/[!_]*.py")),
]

extensions = []
# Not for an editable install: later edits of these files would go unnoticed beside what was compiled.
if "bdist_wheel" in sys.argv:
    from mypyc.build import mypycify

    extensions = mypycify(
        ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports", *CORE],
        opt_level="3",
        group_name="kvd.core",
    )
    for extension in extensions:
        extension.optional = True

setup(ext_modules=extensions)
