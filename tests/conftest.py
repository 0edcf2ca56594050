"""Where tests find the environments that the Makefile has made, and keep compiled code, which is not the user's."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from psiflow_core.environments import environment

os.environ.setdefault(environment.FOLDER, str(Path(sys.prefix) / "environments"))

compiled = tempfile.mkdtemp(prefix="psiflow-compiled-")
os.environ["PSIFLOW_COMPILED"] = compiled
atexit.register(shutil.rmtree, compiled, ignore_errors=True)
