"""How the checks of samplers make a segment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from psiflow_core.components import CalculatorPredictor, Monitor, PredictorCalculator, SamplingTask, Segment, Walker
from psiflow_core.structures import from_plain, to_plain
from psiflow_core.testing.traces import Traces, left_by
from psiflow_core.testing.work import WorkContract


class SegmentContract(WorkContract):
    """The start of walkers, the forces that move them, and the traces of a segment."""

    moves: ClassVar[bool] = True
    """Whether there are momenta at the end."""
    random: ClassVar[bool] = True
    """Whether another seed gives another trajectory."""
    tolerance: ClassVar[float] = 0.0
    """How far one long segment and two short ones may be apart; 0 asks for equality bit by bit. [Å]"""

    @pytest.fixture
    def structure(self) -> Atoms:
        """Where walkers start; override it where EMT's copper crystal does not do."""
        copper = bulk("Cu", cubic=True)
        copper.rattle(0.1, seed=1)
        return copper

    def forces(self) -> Calculator:
        """A new calculator for one walker; override it together with `structure`."""
        return PredictorCalculator(CalculatorPredictor(EMT()))

    @pytest.fixture
    def traces(self, structure: Atoms, tmp_path: Path) -> Traces:
        def work(folder: Path) -> None:
            self.sample(Walker(structure), SamplingTask(8, seed=1, check_every=4, stride=4))

        found: Traces = self.once("traces", lambda: left_by(work, tmp_path))
        return found

    def sample(self, walker: Walker, task: SamplingTask, monitor: Monitor | None = None) -> Segment:
        segment: Segment = self.build().sample(walker, self.forces(), task, monitor or content)
        return segment


def content(step: int, atoms: Atoms) -> str | None:
    return None


def array_of(atoms: Atoms, name: str) -> Any:
    return {"positions": atoms.positions, "cell": np.asarray(atoms.cell), "momenta": atoms.get_momenta()}[name]


def through_json(walker: Walker) -> Walker:
    """The walker as it arrives in the next task, in another process."""
    plain = json.loads(json.dumps(to_plain(walker.structure)))
    return Walker(from_plain(plain), walker.state, walker.step)
