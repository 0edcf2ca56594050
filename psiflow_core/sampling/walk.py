"""What every sampler is given: batched forces, and a monitor that stops a walker in time.

The walkers of one task run in threads, each with its own engine. Their force calls meet in a `Rendezvous`,
and one batched prediction serves them all; a sampler sees an ordinary ASE calculator.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ase import Atoms

from psiflow_core import answers
from psiflow_core.answers import Attendance
from psiflow_core.components import (
    Prediction,
    Predictor,
    PredictorCalculator,
    Sampler,
    SamplingTask,
    Segment,
    Walker,
)
from psiflow_core.components.potential import never
from psiflow_core.errors import WrongAnswer
from psiflow_core.processes.block import Pace
from psiflow_core.sampling.batching import Rendezvous
from psiflow_core.sampling.bias import WalkerBias
from psiflow_core.sampling.monitor import BLOCK_ENDS, Checked, Limits, Watch, remembering


@dataclass(frozen=True)
class Visited:
    """What one walker's segment came to."""

    segment: Segment | None
    """None if the sampler raised."""
    most_uncertain: Checked | None
    """Among the structures that were checked and found sound."""
    error: BaseException | None = None
    cut: bool = False
    """Whether the segment was shortened, because its block ends."""


def sample_together(
    sampler: Sampler,
    walkers: Sequence[Walker],
    tasks: Sequence[SamplingTask],
    driving: Predictor,
    committee: Predictor,
    limits: Limits,
    biases: Sequence[WalkerBias | None] = (),
    who: str = "",
    whole: bool = True,
) -> list[Visited]:
    """Move several walkers by one segment each, in threads, their force calls batched.

    Args:
        driving: the predictor whose forces move the walkers.
        committee: the predictor that the monitor asks.
        biases: of each walker; empty if none has any. They move it, and the monitor does not see them.
        who: the name of the sampler in messages.
        whole: whether a segment is not shortened when the block of this worker ends.

    A walker whose sampler raises, or gives a wrong answer, ends alone; its error is in its `Visited`.
    """
    rendezvous = Rendezvous(len(walkers))
    who = who or f"sampler '{sampler.name}'"
    temperature = answers.temperature(sampler, who)

    def move(number: int) -> Visited:
        ends = never if whole else Pace()
        watch = Watch(limits, lambda atoms: rendezvous.ask(number, committee, atoms), temperature, ends)

        def ask(atoms: Atoms) -> Prediction:
            return rendezvous.ask(number, driving, atoms)

        walker, task, bias = walkers[number], tasks[number], biases[number] if biases else None
        monitor = Attendance(remembering(watch, bias) if bias else watch, walker, task, who)
        forces = PredictorCalculator(driving, monitor.noting(bias.over(ask) if bias else ask))
        try:
            return _visit(sampler, walker, forces, task, monitor, watch, who)
        finally:
            rendezvous.leave(number)

    with ThreadPoolExecutor(max_workers=len(walkers)) as threads:
        try:
            visits = threads.map(move, range(len(walkers)))
            rendezvous.serve()
        except BaseException as error:  # the pool waits for its threads, and they would wait for answers
            rendezvous.give_up(error)
            raise
        return list(visits)


def _visit(
    sampler: Sampler,
    walker: Walker,
    forces: PredictorCalculator,
    task: SamplingTask,
    monitor: Attendance,
    watch: Watch,
    who: str,
) -> Visited:
    """One walker's segment, checked; an exception is returned, and the task makes a failure of it."""
    try:
        with answers.blamed(who):
            found = sampler.sample(replace(walker, structure=walker.structure.copy()), forces, task, monitor)
        segment = answers.segment(found, walker, task, monitor, who)
        cut = segment.stopped == BLOCK_ENDS
        return Visited(replace(segment, stopped=None) if cut else segment, watch.most_uncertain, cut=cut)
    except BaseException as error:
        fault = monitor.fault or error
        return Visited(None, None if isinstance(fault, WrongAnswer) else watch.most_uncertain, fault)
