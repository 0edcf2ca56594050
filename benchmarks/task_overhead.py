"""What a task costs through psiflow's `Context`, over a bare Parsl app: tasks per second of doing nothing.

    python benchmarks/task_overhead.py [--tasks 1000] [--rounds 5]

Both use a HighThroughputExecutor of two workers on loopback with encryption, with the same options, started
once; the rounds alternate, and the ratio is taken within a round.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import parsl
from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel

from psiflow_core.builtin.executors import Local
from psiflow_core.components import Pool
from psiflow_core.environments.catalogue import executor
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.perform import perform


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="psiflow-bench-"))
    bare = bare_kernel(folder)
    app = parsl.python_app(perform, data_flow_kernel=bare, cache=False)
    with Context(executor("local", workers=2), folder=folder / "context") as context:
        through_parsl(app, 50), through_context(context, 50)  # both pools are up
        rates = [
            (through_parsl(app, arguments.tasks), through_context(context, arguments.tasks))
            for _ in range(arguments.rounds)
        ]
    bare.cleanup()
    table = np.array(rates)
    ratio = np.median(table[:, 0] / table[:, 1])
    print(f"bare Parsl app   {np.median(table[:, 0]):7.0f} tasks/s")
    print(f"Context          {np.median(table[:, 1]):7.0f} tasks/s")
    print(f"bare / Context   {ratio:7.2f}   (rounds: {', '.join(f'{a / b:.2f}' for a, b in rates)})")


def bare_kernel(folder: Path) -> DataFlowKernel:
    """Parsl by itself, with the executor that `Context` uses."""
    pool = Local(workers=2).build(Pool("bare", folder / "bare", (sys.executable,), os.getpid()))
    return DataFlowKernel(
        Config(
            executors=[pool],
            initialize_logging=False,
            run_dir=str(folder / "parsl"),
            strategy_period=0.5,
            usage_tracking=0,
        )
    )


def through_parsl(app: object, tasks: int) -> float:
    start = time.perf_counter()
    for future in [app("idle", {}, {}) for _ in range(tasks)]:  # type: ignore[operator]
        future.result()
    return tasks / (time.perf_counter() - start)


def through_context(context: Context, tasks: int) -> float:
    desk = context.desk()
    start = time.perf_counter()
    for number in range(tasks):
        desk.submit(str(number), IdleRequest())
    done = 0
    while done < tasks:
        done += sum(1 for _ in desk.completed())
    return tasks / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
