"""Starts Parsl's manager of one node's workers, with what is known only there.

``python -m psiflow_core.execution.blocks._node BLOCK CORES ARGUMENTS…``: the manager's name holds its block and its
host, and Parsl's errors of lost tasks carry it. GPUs are counted among those that the block may use. No task is sent
shortly before the block ends. Workers divide the cores of the node among them (`psiflow_core.processes.cores`), unless
CORES is 0.
"""

from __future__ import annotations

import math
import os
import platform
import sys

from psiflow_core.execution.blocks import _awake
from psiflow_core.execution.blocks._keys import with_local_files
from psiflow_core.execution.blocks.places import manager_name
from psiflow_core.processes.block import SPARE, remaining
from psiflow_core.processes.cores import GRANTED

POOL = "parsl.executors.high_throughput.process_worker_pool"

VISIBLE = "CUDA_VISIBLE_DEVICES"

NODE_NAMES = ("SLURMD_NODENAME",)
"""Variables of batch systems with their own name of a node, by which they can avoid it."""


def own_gpu(accelerator: str, visible: str | None) -> str:
    """The visible GPU of a worker, counted among the GPUs that the block may use.

    Args:
        accelerator: its number, and `,-1`, as `Blocks.accelerators` gives it.
        visible: the block's own value of CUDA_VISIBLE_DEVICES.
    """
    number, ends, rest = accelerator.partition(",")
    given = [one.strip() for one in (visible or "").split(",") if one.strip()]
    return f"{given[int(number)]}{ends}{rest}" if int(number) < len(given) else accelerator


def drain(left: float) -> str:
    """Parsl's time until a node gets no more tasks, and ends when idle; its block ends in so many seconds. [s]"""
    return "None" if math.isinf(left) else str(max(1, int(left - SPARE)))


def main() -> None:
    block, cores, *arguments = with_local_files(sys.argv[1:])
    if int(cores):
        os.environ[GRANTED] = cores
    host = next((os.environ[name] for name in NODE_NAMES if name in os.environ), platform.node())
    name = manager_name(block, host)
    platform.node = lambda: name
    if "--available-accelerators" in arguments:
        first = arguments.index("--available-accelerators") + 1
        arguments[first:] = [own_gpu(one, os.environ.get(VISIBLE)) for one in arguments[first:]]
    arguments = ["--drain_period", drain(remaining()), *arguments]
    sys.argv[1:] = [POOL, "--uid", name, "--block_id", block, *arguments]
    _awake.main()


if __name__ == "__mp_main__":  # a worker, which this process has started
    _awake.import_parsl()

if __name__ == "__main__":
    main()
