"""The sampler that runs on ASE alone: molecular dynamics and geometry optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ase import Atoms

from psiflow_core.builtin.ase_options import AseOptions
from psiflow_core.checks import check_cell
from psiflow_core.components import Monitor, SamplingTask, Segment, Walker

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


class AseSampler(AseOptions):
    """Molecular dynamics (NVE, NVT, NPT) and geometry optimisation with ASE's integrators and optimisers.

    Two segments of N steps equal one of 2N bit by bit, in every ensemble, if the forces do. The random stream
    goes on from the walker's state; the seed of a task starts it where there is no state yet. An optimiser
    keeps its memory of the surface as long as energy and forces are those at which it left off; under another
    potential it starts afresh. Under NPT the state holds the force on the cell, which lags half a step behind
    the atoms: after a change of potential between segments that half step is still the old one's.

    Fixed atoms stay exactly where they are, have no momenta and no share of the temperature, and an optimisation has
    converged when the forces on the others are small. A cell that changes is refused where atoms are fixed.
    """

    name: ClassVar[str] = "ase"

    def check(self, structures: Sequence[Atoms]) -> None:
        if self.relax_cell:
            check_cell(structures, "relax_cell", "relax_cell=False")
        elif self.ensemble == "npt":
            check_cell(structures, "ensemble='npt'", "'nvt'")

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        self.check([walker.structure])
        from psiflow_core.builtin import _ase_dynamics, _ase_optimisation

        move = _ase_optimisation.run if self.ensemble == "optimise" else _ase_dynamics.run
        return move(self, walker, forces, task, monitor)
