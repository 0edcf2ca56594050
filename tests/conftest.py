"""Where the environments are that the Makefile has made for tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from psiflow_core.environments import environment

os.environ.setdefault(environment.FOLDER, str(Path(sys.prefix) / "environments"))
