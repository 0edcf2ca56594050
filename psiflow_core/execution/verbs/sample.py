"""Trajectories of walkers, moved by a trained potential."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from ase import Atoms

from psiflow_core.checks import check
from psiflow_core.components import Component, Spec
from psiflow_core.environments.catalogue import spec_of
from psiflow_core.errors import OptionError
from psiflow_core.execution.tasks.sample import (
    WalkerStart,
    keep_walker,
)
from psiflow_core.execution.verbs.dispatcher import Dispatcher
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.inputs import Tolerance, awaited, component, model_of
from psiflow_core.execution.verbs.relax import Relaxation
from psiflow_core.execution.verbs.trajectories import LostWalker, Plan, Trajectories
from psiflow_core.labels.given import structures
from psiflow_core.sampling.monitor import Limits
from psiflow_core.sampling.sample import Trajectory, starting_bias
from psiflow_core.sampling.segments import Segments, derive_seed


@dataclass(frozen=True)
class Runs(Sequence[Trajectory]):
    """Trajectories, in the order of their walkers, without the failed ones."""

    trajectories: tuple[Trajectory, ...]
    failures: tuple[LostWalker, ...] = ()

    def __len__(self) -> int:
        return len(self.trajectories)

    def __iter__(self) -> Iterator[Trajectory]:
        return iter(self.trajectories)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trajectory]: ...
    def __getitem__(self, index: int | slice) -> Trajectory | Sequence[Trajectory]:
        return self.trajectories[index]

    @property
    def most_uncertain(self) -> list[Atoms]:
        """For each trajectory with committee checks, the structure with the largest disagreement."""
        return [one.most_uncertain.structure for one in self.trajectories if one.most_uncertain is not None]


def sample(
    dispatcher: Dispatcher,
    model: Any,
    sampler: Spec | Component | str,
    walkers: Any,
    segment: Segments,
    bias: Any,
    limits: Limits,
    seed: int,
    tolerate: float | int,
) -> Handle[Runs, Trajectory]:
    """As `Context.sample`."""
    plan = Plan(component("sampler", sampler, "sampler"), segment, bias, limits, seed)
    tolerance = Tolerance(tolerate)
    given = walkers if isinstance(walkers, Handle) else _starts(walkers)
    handle: Handle[Runs, Trajectory] = Handle("sample")
    dispatcher.start(_runs(dispatcher, model, given, plan, tolerance, handle), handle)
    return handle


async def _runs(
    dispatcher: Dispatcher,
    model: Any,
    given: Any,
    plan: Plan,
    tolerance: Tolerance,
    handle: Handle[Runs, Trajectory],
) -> Runs:
    members = tuple(model_of(await awaited(model), "model").members)
    starts = _starts(await awaited(given)) if isinstance(given, Handle) else given
    walkers = [_walker(dispatcher, number, len(starts), one, plan) for number, one in enumerate(starts)]
    trajectories = Trajectories(dispatcher, members, plan, handle)
    ended = await trajectories.of(walkers)
    failures = tuple(one for one in ended if isinstance(one, LostWalker))
    tolerance.refuse([str(lost) for lost in failures], len(walkers), "walkers")
    return Runs(tuple(one for one in ended if isinstance(one, Trajectory)), failures)


def _starts(given: Any) -> list[Atoms | Trajectory]:
    """The starts of walkers: structures, or trajectories to continue.

    Raises:
        OptionError: the argument is empty, or mixes files and trajectories.
        StructureError: a structure is unsound.
    """
    several = list(given) if isinstance(given, Iterable) and not isinstance(given, Atoms | str | Path) else [given]
    plain = [one.structure if isinstance(one, Relaxation) else one for one in several]
    if not plain:
        raise OptionError("walkers: there is none; give structures, or trajectories to continue")
    if not any(isinstance(one, Trajectory) for one in plain):
        return [*structures(plain, "walkers")]
    if not all(isinstance(one, Atoms | Trajectory) for one in plain):
        raise OptionError("walkers: files and trajectories are mixed; read the files with ase.io.read")
    fresh = [one for one in plain if isinstance(one, Atoms)]
    if fresh:
        check(fresh, "walkers structure")
    return plain


def _walker(dispatcher: Dispatcher, number: int, of: int, given: Atoms | Trajectory, plan: Plan) -> WalkerStart:
    if isinstance(given, Trajectory):
        file = keep_walker(dispatcher.places.walkers, given.segment.walker, given.remembered)
        seed = derive_seed(plan.seed, "walker", number, given.walker.step)
        return WalkerStart(walker=number, seed=seed, file=file, bias=tuple(map(spec_of, given.biases)))
    start = given.copy()
    start.calc = None
    bias = tuple(map(spec_of, starting_bias(plan.bias, number, of, start, plan.segment.steps)))
    return WalkerStart(walker=number, seed=derive_seed(plan.seed, "walker", number), structure=start, bias=bias)
