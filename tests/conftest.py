"""Where tests find the environments that the Makefile has made, and keep compiled code, which is not the user's."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from psiflow_core.environments import environment

os.environ.setdefault(environment.FOLDER, str(Path(sys.prefix) / "environments"))

compiled = tempfile.mkdtemp(prefix="psiflow-compiled-")
os.environ["PSIFLOW_COMPILED"] = compiled
atexit.register(shutil.rmtree, compiled, ignore_errors=True)


@pytest.fixture(autouse=True)
def _compiled_code_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test compiles because others have spent the time that pays for it."""
    with pytest.MonkeyPatch.context() as patch:  # one of its own: the tests' is undone before their other fixtures
        patch.setenv("PSIFLOW_COMPILED", str(tmp_path_factory.getbasetemp() / f"compiled-{uuid.uuid4().hex[:8]}"))
        yield
