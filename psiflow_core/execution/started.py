"""A pool that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psiflow_core.environments.environment import Environment
from psiflow_core.errors import PoolFailed, WorkerLost

if TYPE_CHECKING:
    from psiflow_core.execution.blocks._htex import WorkerProcesses
    from psiflow_core.execution.blocks._threads import DriverThreads


@dataclass(frozen=True)
class Started:
    """A running pool."""

    executor: WorkerProcesses | DriverThreads
    environment: Environment
    folder: Path
    number: int
    """Number of restarts."""
    running: set[object] = field(default_factory=set)
    """One object for each task that was sent and has not ended: Parsl takes a task in a thread of its own, later."""

    def dead(self) -> WorkerLost | None:
        """The error if the interchange has died: Parsl would wait for its tasks for ever."""
        process = getattr(self.executor, "interchange_proc", None)
        if process is None or process.poll() is None:
            return None
        words = f"the interchange of pool '{self.executor.label}' has died (exit code {process.returncode})"
        said = self.executor.last_words()
        return WorkerLost(f"{words}: {said}" if said else words)

    def failed(self) -> PoolFailed | None:
        """The error if the pool has given up because its workers do not start."""
        given_up = getattr(self.executor, "bad_state_is_set", False)
        reason = self.executor.executor_exception if given_up else None
        return reason if isinstance(reason, PoolFailed) else None
