"""`psiflow doctor --context`: the smallest job on each pool of a context, and what its workers see."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from psiflow_core.cli.diagnosis import chosen_components, engine
from psiflow_core.cli.machine import Finding
from psiflow_core.cli.sights import Sights
from psiflow_core.cli.values import options_of
from psiflow_core.components import Executor, Kind, Spec
from psiflow_core.environments import catalogue
from psiflow_core.errors import OptionError, PoolFailed
from psiflow_core.execution.blocks import Batch, Blocks
from psiflow_core.execution.blocks._record import RECORD, left
from psiflow_core.execution.context import Context
from psiflow_core.execution.context_file import Described, read_context
from psiflow_core.execution.desk import Desk
from psiflow_core.execution.tasks.request import WORK, Outcome, Work
from psiflow_core.execution.tasks.survey import Surveyed, SurveyRequest
from psiflow_core.registry.plugins import build

HOME = Path("~/.psiflow")
"""Where the examination has its folder if the context has none: the nodes of a cluster see it."""

LATE = 120.0
"""How long a file of a worker may take to be seen by the driver. [s]"""

PATIENCE = 120.0
"""How long workers of this machine may take to start. Those in a queue are waited for. [s]"""

HOLD = 10.0
"""How long a task stays, to be there with another one, where they cannot meet in a shared folder. [s]"""

Tell = Callable[[str], None]
"""Shows a text while a pool waits."""


@dataclass
class Asked:
    """One pool and its tasks."""

    name: str
    work: Work
    """A kind of work of the pool."""
    executor: Executor
    folder: Path
    seen: list[Surveyed] = field(default_factory=list)
    wait: float = 0.0
    """From the submission to the start of the first task. [s]"""
    failure: str = ""
    ended: int = 0

    @property
    def together(self) -> int:
        """Number of tasks that are tried at once, on one node."""
        workers = self.executor.workers_of_node() if isinstance(self.executor, Blocks) else self.executor.slots()
        return min(2, workers)

    @property
    def remote(self) -> bool:
        return isinstance(self.executor, Blocks) and self.executor.remote

    @property
    def nodes(self) -> int:
        """Nodes of a task."""
        return self.executor.nodes_per_task if isinstance(self.executor, Batch) else 1

    @property
    def complete(self) -> bool:
        return bool(self.failure) or self.ended == self.together

    def requests(self) -> Iterator[SurveyRequest]:
        meet = self.executor.shares_files()
        for number in range(self.together):
            yield SurveyRequest(
                folder=self.folder / str(number),
                of=self.work,
                number=number,
                together=self.together,
                meeting=self.folder / "meeting" if meet else None,
                hold=0.0 if meet else HOLD,
                nodes=self.nodes,
                closely=True,
            )

    def take(self, outcome: Outcome | PoolFailed, since: float) -> None:
        """Keep what a task has seen, or why it failed."""
        self.ended += 1
        if isinstance(outcome, PoolFailed):
            self.failure = str(outcome)
        elif outcome.failure is not None:
            self.failure = outcome.failure.message
        else:
            wait = time.monotonic() - since - outcome.seconds
            self.wait = min(self.wait, wait) if self.seen else wait
            self.seen.append(cast(Surveyed, outcome.value))

    def findings(self) -> Iterator[Finding]:
        if self.failure:
            fix = f"correct the options of executor '{self.executor.name}', or repair the cause that is given"
            yield Finding("bad", f"{self.name} workers", self.failure, fix)
            return
        late = _seen_after(self.folder, self.seen[0].mark)
        resources = self.executor.resources()
        yield from Sights(self.name, resources, self.seen, self.wait, late, self.nodes, self.remote).findings()


def described_by(file: Path | None, executor: str | None, options: Sequence[str]) -> Described | None:
    """The context in a file, or the one of a single executor; None without either.

    Raises:
        OptionError: both are given, options without an executor, or something in them is wrong.
        PluginNotFound, PluginBroken: an executor is not installed, or its plugin does not load.
    """
    if file is not None and executor is not None:
        raise OptionError("--context and --executor: give one of them")
    if options and executor is None:
        raise OptionError("--option belongs to an executor: also give --executor NAME")
    if executor is not None:
        return Described({"everything": catalogue.spec("executor", executor, options_of(options))})
    return None if file is None else read_context(file)


def examine_pools(described: Described, wanted: Mapping[Kind, str], tell: Tell) -> Iterator[Finding]:
    """A job on each pool, and the engines of its kinds of work; each finding as soon as it is known.

    Args:
        described: the context.
        wanted: the components to check, by kind; if empty, all components are checked.
        tell: called with a text while a pool waits, for its queue for instance.
    """
    components, missing = chosen_components(wanted)
    yield from missing
    root = described.places.get("folder", HOME.expanduser()) / "doctor"
    with _own_folder(root) as own, Context(described.everything, **{**described.arguments, "folder": root}) as context:
        pools = {pool.name: pool for pool in _pools(context, own)}
        yield from _answers(context.desk(), pools, context, tell)
        for one in components:
            if not pools[context.capacity.pool_of[WORK[one.component.kind]]].failure:
                yield engine(context, one)


def _pools(context: Context, folder: Path) -> Iterator[Asked]:
    """Every pool, with the first kind of work that it does."""
    specs = {pool: Spec.from_plain(plain) for pool, plain in context.describe().items()}
    for pool, spec in specs.items():
        work = next(work for work, its in context.capacity.pool_of.items() if its == pool)
        yield Asked(pool, cast(Work, work), cast(Executor, build(spec)), folder / pool)


def _answers(desk: Desk, pools: Mapping[str, Asked], context: Context, tell: Tell) -> Iterator[Finding]:
    """Submit the tasks of all pools, and give the findings about each pool as soon as its tasks have ended."""
    begun, told = time.monotonic(), ""
    shown: set[str] = set()
    for pool in pools.values():
        for request in pool.requests():
            desk.submit(pool.name, request)
    while len(shown) < len(pools):
        for name, outcome in desk.ended():
            pools[name].take(outcome, begun)
        late = time.monotonic() - begun > PATIENCE
        for pool in pools.values():
            if late and not pool.remote and not pool.complete:
                pool.failure = f"no answer within {PATIENCE:.0f} s: {context.waiting() or 'its workers do not start'}"
            if pool.complete and pool.name not in shown:
                shown.add(pool.name)
                yield from pool.findings()
        if (waiting := context.waiting()) and waiting != told:
            tell(told := waiting)


@contextmanager
def _own_folder(root: Path) -> Iterator[Path]:
    """A folder for the tasks of this examination. Afterwards it is deleted, with all that pools have left in the root.

    The root stays the same: the jobs of an examination that was killed are found, and cancelled, by the next one.
    """
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="tasks-", dir=root, ignore_cleanup_errors=True) as own:
            yield Path(own)
    finally:
        _tidy(root)


def _tidy(root: Path) -> None:
    """Delete the pools of this process, except for those whose jobs could not be cancelled."""
    alone = not any(root.glob("tasks-*"))
    for pool in [*(root / "pools").glob(f"*-{os.getpid()}*"), *([root / "pools" / "parsl"] if alone else [])]:
        if not (pool / RECORD).exists() or left(pool / RECORD) is None:
            shutil.rmtree(pool, ignore_errors=True)
    for folder in (root / "pools", root):
        with suppress(OSError):  # another examination uses it
            folder.rmdir()


def _seen_after(folder: Path, name: str) -> float | None:
    """How long the driver waits for the file of a worker; None if it does not come. [s]"""
    start = time.monotonic()
    while not any(folder.glob(f"*/{name}")):
        if time.monotonic() - start > LATE:
            return None
        time.sleep(0.1)
    return time.monotonic() - start
