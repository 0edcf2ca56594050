"""The sampler with random displacements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from ase import Atoms
from pydantic import Field, NonNegativeFloat, model_validator

from psiflow_core.builtin._walker_state import random_stream, read_state, write_state
from psiflow_core.components import Monitor, Sampler, SamplingTask, Segment, Walker
from psiflow_core.constraints import fixed_atoms
from psiflow_core.errors import StructureError
from psiflow_core.sampling.observer import Observer
from psiflow_core.structures import Plain, displaced, from_plain, to_plain

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


class RandomDisplacement(Sampler):
    """Structures around the start: each step is one of them, displaced at random and independently.

    No forces are asked for, so the frames have none. The walker's state keeps the structure it started from. Fixed
    atoms stay where they are, and so does the cell of a structure that has any.
    """

    name: ClassVar[str] = "random-displacement"

    amplitude: NonNegativeFloat = 0.1
    """Each coordinate moves by a number drawn evenly from ± this. [Å]"""
    strain: float = Field(default=0.0, ge=0, lt=0.5)
    """Each component of the strain of a periodic structure is drawn evenly from ± this. [1]"""

    @model_validator(mode="after")
    def _displaces(self) -> Self:
        if not self.amplitude and not self.strain:
            raise ValueError("amplitude and strain are both zero, so that nothing would move; give one of them a value")
        return self

    def check(self, structures: Sequence[Atoms]) -> None:
        for number, atoms in enumerate(structures):
            if not self.amplitude and (fixed_atoms(atoms).any() or not atoms.pbc.any()):
                raise StructureError(
                    f"structure {number} ({atoms.get_chemical_formula()}) has fixed atoms or is not periodic, so that "
                    "it is not strained, and amplitude=0 moves no atom; set an amplitude"
                )

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        self.check([walker.structure])
        state = read_state(self.name, walker)
        rng = random_stream(state, task.seed)
        origin = _origin(state, walker.structure)
        atoms = origin.copy()
        observer = Observer(walker, task, monitor)
        while not observer.over:
            moved = displaced(origin, self.amplitude, self.strain, rng)
            atoms.set_cell(moved.cell, scale_atoms=False)
            atoms.positions = moved.positions
            observer.see(observer.steps + 1, atoms)
        after = {"rng": rng.bit_generator.state, "origin": to_plain(origin)}
        return observer.segment(atoms, write_state(self.name, after))


def _origin(state: Plain, structure: Atoms) -> Atoms:
    """The walker's starting structure; the present one if other atoms are fixed now."""
    origin = from_plain(state["origin"]) if "origin" in state else _at_rest(structure)
    return origin if np.array_equal(fixed_atoms(origin), fixed_atoms(structure)) else _at_rest(structure)


def _at_rest(atoms: Atoms) -> Atoms:
    still = atoms.copy()
    still.arrays.pop("momenta", None)
    return still
