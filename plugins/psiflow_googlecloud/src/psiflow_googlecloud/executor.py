"""The executor `googlecloud`."""

from __future__ import annotations

from typing import ClassVar

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import Scheduler
from psiflow_googlecloud.options import GoogleCloudOptions


class GoogleCloud(GoogleCloudOptions):
    """Workers on instances of Google Compute Engine, one instance for each block.

    An instance ends when its block ends, when its driver has gone, and after its walltime. A notice that Google takes
    a spot instance back reaches the work, which ends at the next place where it can go on elsewhere. The driver's
    `address` must be reachable from the instances.
    """

    name: ClassVar[str] = "googlecloud"
    engine: ClassVar[str] = "google.cloud.compute_v1"

    def scheduler(self, pool: Pool) -> Scheduler:
        from psiflow_googlecloud._engine import Instances

        return Instances(self)
