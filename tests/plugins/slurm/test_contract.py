"""What holds for every executor holds for jobs of SLURM."""

from __future__ import annotations

import pytest
from psiflow_slurm.executor import Slurm

from psiflow_core.testing import ExecutorContract


@pytest.mark.usefixtures("cluster")
class TestSlurm(ExecutorContract):
    component = Slurm
    options = {"cores": 2, "poll": 0.5}  # noqa: RUF012
    shell = ("setup",)
    refusal = 5.0
