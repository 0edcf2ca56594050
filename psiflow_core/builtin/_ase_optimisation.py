"""A segment of geometry optimisation by ASE's optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from psiflow_core.builtin._walker_state import read_state, write_state
from psiflow_core.builtin.ase_options import AseOptions
from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.sampling.observer import Observer
from psiflow_core.structures import Plain

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from ase.optimize.optimize import Optimizer


def run(options: AseOptions, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
    """Relax the walker for one segment, until it has converged, or until the monitor stops it.

    Raises:
        StructureError: the walker's state belongs to another sampler.
    """
    atoms = walker.structure.copy()
    atoms.calc = forces
    moved, memory = _resumed(options, atoms, read_state(options.name, walker))
    optimiser = _remembering(options.algorithm)(moved, logfile=None)
    optimiser.recall(memory)
    moves: Iterator[bool] = optimiser.irun(fmax=options.fmax, steps=task.steps)
    observer = Observer(walker, task, monitor)
    observer.finished = bool(next(moves))  # before the first step
    if observer.finished:
        observer.look(atoms)
    while not observer.over:
        observer.see(observer.steps + 1, atoms, finished=next(moves))
    after = {"motion": options.motion, "memory": optimiser.memory, "end": _pull(moved)}
    if options.relax_cell:
        after["cell"] = moved.orig_cell
    return observer.segment(atoms.copy(), write_state(options.name, after))


def _resumed(options: AseOptions, atoms: Atoms, state: Plain) -> tuple[Any, Any]:
    """The optimiser's object and its memory; the memory is empty if the potential has changed."""
    if state.get("motion") == options.motion:
        moved = _moved(options, atoms, state.get("cell"))
        if _alike(state["end"], _pull(moved), len(atoms)):
            return moved, state["memory"]
    # The potential has changed: the memory of the old one could send the optimiser uphill.
    return _moved(options, atoms, None), None


def _moved(options: AseOptions, atoms: Atoms, cell: Any) -> Any:
    """The optimiser's object: the atoms, or atoms and cell combined, strained from the initial cell."""
    if not options.relax_cell:
        return atoms
    from ase.filters import FrechetCellFilter

    moved = FrechetCellFilter(atoms, scalar_pressure=options.external_pressure)
    if cell is not None:
        moved.orig_cell = cell
    return moved


def _remembering(algorithm: str) -> Callable[..., Optimizer]:
    """ASE's optimiser with restart data in memory: ASE would write them to a file at each step."""
    from ase.optimize import BFGS, FIRE, LBFGS

    base = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}[algorithm]

    class Remembering(base):  # type: ignore[valid-type, misc]
        memory: Any = None
        extra = ("a", "Nsteps") if algorithm == "fire" else ()  # missing in ASE's restart of FIRE

        def dump(self, data: Any) -> None:
            self.memory = {"restart": data, **{name: getattr(self, name) for name in self.extra}}

        def load(self) -> Any:
            return self.memory["restart"]

        def recall(self, memory: Any) -> None:
            self.memory = memory
            if memory is not None:
                self.read()
                for name in self.extra:
                    setattr(self, name, memory[name])

    return Remembering


def _pull(moved: Any) -> Plain:
    """The fingerprint of a potential: energy [eV] and forces [eV/Å] of the optimiser's object."""
    return {"energy": float(moved.get_potential_energy()), "forces": moved.get_forces(apply_constraint=True)}


def _alike(before: Plain, now: Plain, atoms: int) -> bool:
    """Whether two fingerprints are of the same potential, up to the noise of single precision."""
    largest = np.abs(before["forces"]).max()
    same_forces = np.abs(now["forces"] - before["forces"]).max() <= 1e-3 * largest
    return bool(same_forces and abs(now["energy"] - before["energy"]) <= 1e-5 * atoms)
