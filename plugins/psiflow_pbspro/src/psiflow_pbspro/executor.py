"""The executor `pbspro`."""

from __future__ import annotations

from typing import ClassVar

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import Scheduler
from psiflow_pbspro.options import PBSProOptions


class PBSPro(PBSProOptions):
    """Workers in jobs of PBS Professional or OpenPBS.

    Jobs are not rerunnable: a job that PBS ended stays ended, and psiflow submits another one. Keep the job history
    of the server (`job_history_enable`): without it, PBS forgets a job at its end, and its exit status with it.
    """

    name: ClassVar[str] = "pbspro"
    program: ClassVar[str] = "qsub"

    def scheduler(self, pool: Pool) -> Scheduler:
        from psiflow_pbspro._engine import PBS

        return PBS(self)
