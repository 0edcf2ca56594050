"""PySCF itself, imported the way a label needs it: deaf to this machine's configuration file.

``~/.pyscf_conf.py`` can redefine functionals and thresholds, so that equal options would give unequal labels.
PySCF looks first at the file that ``PYSCF_CONFIG_FILE`` names; it is given this package's empty marker.
This module is the component's `engine`, so that a worker that looks for PySCF imports it this way too.
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
