"""Tasks of many workers: psiflow's pools beside bare Parsl, and the driver's own work with simulated workers.

    python benchmarks/scale.py [--workers 16] [--tasks 10000] [--rounds 3]
        [--queues 10x1000 100x10000 1000x100000] [--campaigns 10x1000 100x10000 1000x100000] [--carried 200]

The first table is real: worker processes on this machine, tasks that do nothing, encrypted connections. Both pools are
started once, rounds alternate, and ratios are taken within a round. All tasks of a round are given at once. Delay is
the time of a single task on idle workers. The processor time is the driver's. So is the memory, which is traced in a
round of its own: the largest growth while tasks wait, and what is left of it after the last task.

The second table has simulated workers, which end a task as soon as they have it: it is the queue in the driver. The
third has simulated campaigns, journal included, from the first label to so many, with as many walkers as workers.
Growth is linear if the last column is 1. Times of these two are the processor's.

The last lines are the way of files to a node without the driver's files, over an encrypted connection of this machine:
a model, and labels of 10 kB each. The processor time is the driver's, for a GiB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import growth
import numpy as np
import parsl
import psutil
from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.providers import LocalProvider

from psiflow_core.builtin.executors import Local
from psiflow_core.components import Spec
from psiflow_core.environments.catalogue import executor
from psiflow_core.environments.environment import Environment
from psiflow_core.execution.context import Context
from psiflow_core.execution.pools import Pools, Started
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.manifest import ManifestFile, TrainingLabels
from psiflow_core.execution.tasks.perform import carry_out
from psiflow_core.execution.tasks.train import TrainingRequest
from psiflow_core.execution.transport.depot import Depot
from psiflow_core.execution.workers import Workers

MIB = 2**20

SIZES = ["10x1000", "100x10000", "1000x100000"]

Run = Callable[[int], None]
"""Runs so many tasks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queues", nargs="*", default=SIZES, metavar="WORKERSxTASKS")
    parser.add_argument("--campaigns", nargs="*", default=SIZES, metavar="WORKERSxLABELS")
    parser.add_argument("--carried", type=int, default=200, metavar="MIB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="psiflow-bench-") as folder:
        if arguments.rounds:
            real(Path(folder), arguments.workers, arguments.tasks, arguments.rounds)
        sizes = [numbers(size) for size in arguments.queues]
        table("workers    tasks", sizes, (queue(*size) for size in sizes))
        sizes = [numbers(size) for size in arguments.campaigns]
        table("workers   labels", sizes, (campaign(Path(folder), *size) for size in sizes))
        carried(Path(folder) / "carried", arguments.carried)


def numbers(size: str) -> tuple[int, int]:
    workers, tasks = size.split("x")
    return int(workers), int(tasks)


def real(folder: Path, workers: int, tasks: int, rounds: int) -> None:
    """Rates, delays, processor time and memory of real workers, through bare Parsl and through a context."""
    kernel = bare_kernel(folder, workers)
    app = parsl.python_app(carry_out, data_flow_kernel=kernel, cache=False)
    with Context(executor("local", workers=workers), folder=folder / "context") as context:
        ways: dict[str, Run] = {"bare Parsl": lambda n: through_parsl(app, n), "psiflow": lambda n: through(context, n)}
        for run in ways.values():
            run(10 * workers)  # both pools are up
        measured = np.array([[measure(run, tasks) for run in ways.values()] for _ in range(rounds)])
        delays = np.array([[delay(run) for run in ways.values()] for _ in range(20 * rounds)])
        memory = [traced(run, tasks) for run in ways.values()]
    kernel.cleanup()
    print(f"{workers} workers, {tasks} tasks a round, {rounds} rounds; for each 10,000 tasks:")
    print("              tasks/s   delay [ms]   CPU [s]   memory [MiB]   left [MiB]")
    for number, name in enumerate(ways):
        rate, cpu = np.median(measured[:, number], axis=0)
        largest, left = (1e4 / tasks * value for value in memory[number])
        wait = 1e3 * np.median(delays[:, number])
        print(f"{name:12s} {rate:8.0f} {wait:12.1f} {1e4 * cpu:9.2f} {largest:14.1f} {left:12.1f}")
    ratios = measured[:, 1, 0] / measured[:, 0, 0]
    print(f"psiflow / bare Parsl: {np.median(ratios):.2f}   (rounds: {', '.join(f'{one:.2f}' for one in ratios)})")


def bare_kernel(folder: Path, workers: int) -> DataFlowKernel:
    """Parsl by itself, with as many workers, started likewise."""
    python, module = sys.executable, "parsl.executors.high_throughput"
    provider = LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1)
    pool = HighThroughputExecutor(
        label="bare",
        launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", f"{python} -m {module}.process_worker_pool"),
        interchange_launch_cmd=[python, "-m", f"{module}.interchange"],
        provider=provider,
        address="127.0.0.1",
        loopback_address="127.0.0.1",
        cores_per_worker=1e-6,
        max_workers_per_node=workers,
        encrypted=True,
        heartbeat_period=2,
        heartbeat_threshold=15,
        worker_logdir_root=str(folder / "bare"),
    )
    quiet = {"initialize_logging": False, "run_dir": str(folder / "parsl"), "usage_tracking": 0}
    return DataFlowKernel(Config(executors=[pool], strategy="none", **quiet))


def through_parsl(app: Callable[..., Future[str]], tasks: int) -> None:
    for future in [app("idle", "{}", "{}") for _ in range(tasks)]:
        future.result()


def through(context: Workers, tasks: int) -> None:
    desk = context.desk()
    for number in range(tasks):
        desk.submit(str(number), IdleRequest())
    done = 0
    while done < tasks:
        for outcome in desk.completed():
            assert outcome.failure is None, outcome.failure
            done += 1


def measure(run: Run, tasks: int) -> tuple[float, float]:
    """Tasks per second, and the driver's processor time for each task. [s]"""
    gc.collect()
    start, used = time.perf_counter(), time.process_time()
    run(tasks)
    return tasks / (time.perf_counter() - start), (time.process_time() - used) / tasks


def delay(run: Run) -> float:
    """The time of one task. [s]"""
    start = time.perf_counter()
    run(1)
    return time.perf_counter() - start


def traced(run: Run, tasks: int) -> tuple[float, float]:
    """The largest growth of the memory of Python's objects, and what is left of it. [MiB]"""
    gc.collect()
    tracemalloc.start()
    run(tasks)
    largest = tracemalloc.get_traced_memory()[1]
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return largest / MIB, left / MIB


def table(heading: str, sizes: Sequence[tuple[int, int]], spent: Iterable[tuple[float, float]]) -> None:
    """Time and memory of simulations, and the growth of the time with the second number of a size."""
    if not sizes:
        return
    print(f"{heading}   CPU [s]   for 10,000 [s]   memory [MiB]   for 10,000 [MiB]   time / linear")
    before = None
    for (workers, count), (seconds, memory) in zip(sizes, spent, strict=True):
        for_each = seconds / count
        each, share = 1e4 * for_each, 1e4 / count * memory
        line = f"{workers:7d} {count:8d} {seconds:9.2f} {each:16.2f} {memory:14.1f} {share:18.1f}"
        print(line + ("" if before is None else f" {for_each / before:15.2f}"), flush=True)
        before = for_each


class SimulatedPools(Pools):
    """The pool of simulated workers; tasks are sent to them as to any others."""

    def __init__(self, workers: int) -> None:
        super().__init__({"all": Local(workers=workers)}, None)
        self._workers = SimulatedWorkers(workers)

    def _running_kernel(self) -> Any:
        return self._workers

    def _build(self, name: str, environment: Environment, number: int = 0) -> Started:
        return Started(cast(Any, self._workers), environment, Path(), number)

    def close(self) -> None:
        self._workers.cleanup()
        self.started.clear()


class SimulatedWorkers:
    """Workers that end a task as soon as they have it, in a thread; also in the place of Parsl's kernel."""

    label = "all"

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._sent: SimpleQueue[Future[str] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def add_executors(self, executors: Sequence[object]) -> None:
        """Nothing is started."""

    def submit(self, *task: object, **how: object) -> Future[str]:
        future: Future[str] = Future()
        self._sent.put(future)
        return future

    def free(self, outstanding: int) -> int:
        return self._workers - outstanding

    def want(self, tasks: int) -> None:
        """There are no more workers than these."""

    def watch(self, changed: Callable[[], None]) -> None:
        """No workers come later."""

    def waiting(self) -> str:
        return ""

    def cleanup(self) -> None:
        self._sent.put(None)
        self._thread.join()

    def _work(self) -> None:
        outcome = json.dumps({"value": {"cores": 1}, "seconds": 0.0, "worker": "host:1"})
        while (future := self._sent.get()) is not None:
            future.set_result(outcome)


def queue(workers: int, tasks: int) -> tuple[float, float]:
    """Processor time [s] and largest memory [MiB] of the driver for tasks on simulated workers, all given at once."""
    context = Workers(executor("local", workers=workers))
    context._pools = SimulatedPools(workers)
    through(context, workers)  # imports are done
    seconds = measure(lambda n: through(context, n), tasks)[1] * tasks
    few = min(tasks, 10_000)
    memory = tasks / few * traced(lambda n: through(context, n), few)[0]
    context.close()
    return seconds, memory


def campaign(folder: Path, workers: int, labels: int) -> tuple[float, float]:
    """Processor time [s] and growth of the memory [MiB] of a driver from the first label to so many."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    simulated = growth.Campaign(folder / f"{workers}-{labels}.sqlite", workers, labels, {"all": workers})
    simulated.begin(1)
    start = time.process_time()
    while simulated.labels < labels:
        simulated.turn()
    seconds = time.process_time() - start
    memory = (psutil.Process().memory_info().rss - before) / MIB
    simulated.journal.close()
    return seconds, memory


def carried(folder: Path, size: int) -> None:
    """Carry a model, and labels, of so many MiB each to another process."""
    files, depot = folder / "tasks" / "train" / "training", Depot()
    request = TrainingRequest(
        potential=Spec("potential", "none", {}, "none", "1"),
        labels=ManifestFile.write(
            folder, "labels", TrainingLabels(training=(), validation=(), atomic_energies={}), folder
        ),
        seed=1,
        weights=folder / "models",
        folder=files.parent,
    )
    contents = {"a model": [size * MIB], "labels": [10_000] * (size * 100)}
    for what, sizes in contents.items():
        files.mkdir(parents=True)
        for number, length in enumerate(sizes):
            (files / str(number)).write_bytes(os.urandom(length))
        ticket = depot.ticket(request, ["127.0.0.1"])
        used = time.process_time()
        command = [sys.executable, "-c", FETCH, json.dumps(ticket.to_plain()), str(folder / "node")]
        seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        carried = sum(sizes) / MIB
        cpu = 1024 / carried * (time.process_time() - used)
        print(
            f"{what}: {carried / seconds:.0f} MiB/s and {len(sizes) / seconds:.0f} files/s; driver: {cpu:.1f} s of CPU"
        )
        shutil.rmtree(files)
    depot.close()


FETCH = """
import json, sys, time
from pathlib import Path
from psiflow_core.execution.transport.courier import courier_of
from psiflow_core.execution.transport.ticket import Ticket
ticket = Ticket.from_plain(json.loads(sys.argv[1]))
start = time.perf_counter()
files = courier_of(ticket).waybill(ticket.token).kept
courier_of(ticket).fetch(ticket.token, [(one, Path(sys.argv[2]) / one.path.name) for one in files])
print(time.perf_counter() - start)
"""


if __name__ == "__main__":
    main()
