"""Sampling with an existing potential, outside any campaign: walkers in this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ase import Atoms
from ase.calculators.calculator import Calculator

from psiflow_core import answers
from psiflow_core.answers import Answering
from psiflow_core.checks import check
from psiflow_core.components import (
    Bias,
    Memory,
    Place,
    Predictor,
    Resources,
    Sampler,
    SamplingTask,
    Segment,
    Spec,
    Walker,
    term,
)
from psiflow_core.components.predictor import Addend
from psiflow_core.errors import OptionError
from psiflow_core.potentials.trained import TrainedPotential
from psiflow_core.registry.engines import require_engine
from psiflow_core.registry.plugins import build
from psiflow_core.sampling.bias import WalkerBias
from psiflow_core.sampling.monitor import Checked, Limits, refuse_hot
from psiflow_core.sampling.schemes import Biased, Incremental, biases_at
from psiflow_core.sampling.segments import Segments, derive_seed
from psiflow_core.sampling.walk import Visited, sample_together

SOUND = Limits(deviation=1e6, lost=1e6)
"""Stops walkers that are too hot, too close or under too large forces; a committee may disagree without limit."""


@dataclass(frozen=True)
class Trajectory:
    """A walker and where it has been. Given to `sample` again, it goes on as if it had not ended."""

    segment: Segment
    biases: Sequence[Bias]
    """What acted on it."""
    remembered: Sequence[Memory]
    """What each of them remembers of it: hills, for instance."""
    most_uncertain: Checked | None = None
    """Among the structures that the monitor looked at and found sound, the one about which the committee disagreed
    most; None if there was none."""

    @property
    def walker(self) -> Walker:
        """Where it ended."""
        return self.segment.walker

    @property
    def structure(self) -> Atoms:
        """The last one, momenta included."""
        return self.segment.walker.structure

    @property
    def frames(self) -> list[Atoms]:
        """What was kept, `stride` steps apart, with the energy and the forces that moved the walker: bias included."""
        return self.segment.frames


def sample(
    potential: Addend,
    sampler: Spec,
    start: Atoms | Trajectory | Sequence[Atoms | Trajectory],
    steps: int,
    *,
    bias: Any = (),
    stride: int | None = None,
    check_every: int = 10,
    limits: Limits = SOUND,
    seed: int = 0,
    device: str = "cpu",
) -> list[Trajectory]:
    """Move walkers, one for each start, by a sampler; their forces are predicted together.

    Args:
        potential: what moves them: a `TrainedPotential`, an ASE calculator, any predictor, or a sum of these and of
            biases: ``0.3 * one + 0.7 * other``.
        sampler: as `psiflow.sampler` makes it; its plugin has to be in this environment.
        start: structures, and trajectories that go on under the biases that they had.
        steps: of each walker.
        bias: of walkers that start: biases, an `Umbrella` that spreads them over a variable, or a list of these.
        stride: steps between two frames that are kept; None keeps none.
        check_every: steps between two looks of the monitor, which are also when biases remember.
        limits: when the monitor stops a walker; its reason is in `Trajectory.segment.stopped`.

    Raises:
        OptionError, StructureError: an argument is wrong, or does not fit the structures.
        EngineMissing: the sampler's engine cannot be imported here.
        WalkerExploded: energy or forces are not finite.
        WrongAnswer: the sampler or the potential does not keep its contract.
    """
    segment = Segments(steps=steps, check_every=check_every, stride=stride)
    given = _given(start)
    moving = _sampler(sampler, given, limits)
    walkers = [one.walker if isinstance(one, Trajectory) else Walker(one.copy()) for one in given]
    biases = _biased(given, walkers, bias, steps, moving)
    predictor = _predictor(potential, device)
    tasks = [
        SamplingTask(
            segment.steps,
            derive_seed(seed, "walker", number),
            segment.check_every,
            segment.stride,
            Resources(device=device),
        )
        for number in range(len(walkers))
    ]
    visits = sample_together(moving, walkers, tasks, predictor, predictor, limits, biases, answers.named(sampler))
    return [_trajectory(visit, bias) for visit, bias in zip(visits, biases, strict=True)]


def _trajectory(visit: Visited, bias: WalkerBias) -> Trajectory:
    if visit.error is not None:
        raise visit.error
    assert visit.segment is not None
    return Trajectory(visit.segment, bias.biases, bias.memories, visit.most_uncertain)


def _given(start: Any) -> list[Atoms | Trajectory]:
    """The starts, one or several."""
    several = start if isinstance(start, Iterable) and not isinstance(start, Atoms | str) else [start]
    given = list(several)
    for one in given:
        if not isinstance(one, Atoms | Trajectory):
            raise OptionError(f"start: {one!r} is neither an ASE Atoms nor a Trajectory; read files with ase.io.read")
    return given


def _sampler(sampler: Spec, given: Sequence[Atoms | Trajectory], limits: Limits) -> Sampler:
    """The sampler, once it has accepted the structures."""
    if not isinstance(sampler, Spec) or sampler.kind != "sampler":
        raise OptionError(f"sampler: {sampler!r} is none; make one with psiflow.sampler(name, …)")
    structures = [one.structure if isinstance(one, Trajectory) else one for one in given]
    check(structures, "start", moving=True)
    moving = cast(Sampler, build(sampler))
    require_engine(moving)
    who = answers.named(sampler)
    answers.check(moving, structures, who)
    fresh = [one for one in given if isinstance(one, Atoms)]
    refuse_hot(fresh, answers.temperature(moving, who), limits.temperature_quantile)
    return moving


def _predictor(potential: Addend, device: str) -> Predictor:
    predictor = term(potential).predictor(device)
    if isinstance(potential, TrainedPotential):
        return predictor
    kind = "calculator" if isinstance(potential, Calculator) else "predictor"
    return Answering(predictor, f"{kind} {type(potential).__name__}")


def starting_bias(bias: Any, number: int, of: int, structure: Atoms, steps: int) -> list[Bias]:
    """The biases of a walker that starts.

    Args:
        bias: of all walkers: biases, schemes, or a list of these.
        number: the walker's.
        of: how many walkers there are.
        steps: of the trajectory.

    Raises:
        OptionError: a bias does not fit the structure, or needs a campaign.
    """
    terms = Biased(bias=bias).bias
    if any(isinstance(term, Incremental) for term in terms):
        raise OptionError("bias 'incremental' needs a campaign, for it goes on with segments; use 'moving'")
    found = biases_at(Place(number, of, 0, 0, steps), terms)
    for one in found:
        one.check([structure])
    return found


def _biased(
    given: Sequence[Atoms | Trajectory], walkers: Sequence[Walker], bias: Any, steps: int, sampler: Sampler
) -> list[WalkerBias]:
    """The bias on each walker: the one that it had before, or the one that is given."""
    temperature = sampler.target_temperature()
    found = []
    for number, (one, walker) in enumerate(zip(given, walkers, strict=True)):
        if isinstance(one, Trajectory):
            found.append(WalkerBias(one.biases, walker, [memory.to_plain() for memory in one.remembered], temperature))
            continue
        mine = starting_bias(bias, number, len(walkers), walker.structure, steps)
        for one_bias in mine:
            one_bias.try_out([walker.structure], temperature)
        found.append(WalkerBias(mine, walker, [], temperature))
    return found
