"""The executor `lsf`."""

from __future__ import annotations

from typing import ClassVar

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import Scheduler
from psiflow_lsf.options import LSFOptions


class LSF(LSFOptions):
    """Workers in jobs of IBM Spectrum LSF, version 10.1 or later.

    Jobs are not rerunnable: a job that LSF ended stays ended, and psiflow submits another one. LSF knows a job for an
    hour after its end (`CLEAN_PERIOD`); of an older one, psiflow only knows that it has ended.
    """

    name: ClassVar[str] = "lsf"
    program: ClassVar[str] = "bsub"

    def scheduler(self, pool: Pool) -> Scheduler:
        from psiflow_lsf._engine import Queue

        return Queue(self)
