"""PySCF, imported without this machine's configuration file.

``~/.pyscf_conf.py`` can redefine functionals and thresholds: equal options would give different labels. PySCF first
reads the file that ``PYSCF_CONFIG_FILE`` names; here that is this package's empty marker file. This module is the
component's `engine`, so that a worker that checks for PySCF imports it in the same way.
"""

from __future__ import annotations

import os
from pathlib import Path

from psiflow_core.errors import EngineMissing

__all__ = ["__version__"]

os.environ["PYSCF_CONFIG_FILE"] = str(Path(__file__).with_name("py.typed"))

try:
    from pyscf import __version__
except ImportError as error:
    raise EngineMissing(f"PySCF cannot be imported ({error}); install it: pip install pyscf") from error
