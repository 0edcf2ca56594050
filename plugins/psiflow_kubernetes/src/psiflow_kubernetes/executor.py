"""The executor `kubernetes`."""

from __future__ import annotations

from typing import ClassVar

from psiflow_core.components import Pool
from psiflow_core.execution.blocks import Scheduler
from psiflow_kubernetes.options import KubernetesOptions


class Kubernetes(KubernetesOptions):
    """Workers in pods, one pod for each block.

    A pod asks for `cores`, `gpus` and `memory`, and may not use more. It is never restarted: a pod that was evicted
    or preempted has ended, and psiflow starts another one. The driver runs where pods can connect to it: in a pod of
    the same cluster, or on a host that their network reaches.
    """

    name: ClassVar[str] = "kubernetes"
    engine: ClassVar[str] = "kubernetes"

    def scheduler(self, pool: Pool) -> Scheduler:
        from psiflow_kubernetes._engine import Pods

        return Pods(self)
