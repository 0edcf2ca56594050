"""The executor `aws`."""

from __future__ import annotations

from typing import ClassVar

from psiflow_aws.options import AWSOptions
from psiflow_core.components import Pool
from psiflow_core.execution.blocks import Scheduler


class AWS(AWSOptions):
    """Workers on instances of Amazon EC2, one instance for each block.

    An instance terminates itself when its block ends, when its driver has gone, and after its walltime. A notice that
    EC2 takes a spot instance back reaches the work, which ends at the next place where it can go on elsewhere. The
    driver's `address` must be reachable from the instances.
    """

    name: ClassVar[str] = "aws"
    engine: ClassVar[str] = "boto3"

    def scheduler(self, pool: Pool) -> Scheduler:
        from psiflow_aws._engine import Instances

        return Instances(self)
