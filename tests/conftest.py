"""Where the environments are that the Makefile has made for tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from psiflow_core import environments

os.environ.setdefault(environments.FOLDER, str(Path(sys.prefix) / "environments"))
