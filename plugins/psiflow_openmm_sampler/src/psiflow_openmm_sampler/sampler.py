"""The sampler `openmm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ase import Atoms

from psiflow_core.checks import check_cell
from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.errors import EngineMissing
from psiflow_openmm_sampler.options import OpenMMOptions

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


class OpenMM(OpenMMOptions):
    """Molecular dynamics and energy minimisation with OpenMM.

    With unchanged options, a walker continues exactly: two segments of N steps equal one of 2N to the last bit, also
    in another process, if the potential is reproducible to the last bit. A continued segment draws from the random
    stream of the one before; its own seed is not used. A walker whose structure or options have changed (by a
    temperature ramp, for instance) starts from its positions and momenta with new random streams. Minimisation keeps
    no state: each segment begins with a new L-BFGS.

    Fixed atoms stay exactly in place, and have no momenta and no part in the temperature. A minimisation has converged
    when the forces on the other atoms are small. `npt` is refused for structures with fixed atoms.
    """

    name: ClassVar[str] = "openmm"
    engine: ClassVar[str] = "openmm"

    def check(self, structures: Sequence[Atoms]) -> None:
        _require_openmm()
        if self.ensemble == "npt":
            check_cell(structures, "ensemble='npt'", "'nvt'")

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        self.check([walker.structure])
        from psiflow_openmm_sampler import _dynamics, _minimisation

        run = _minimisation.run if self.ensemble == "minimise" else _dynamics.run
        return run(self, walker, forces, task, monitor)


def _require_openmm() -> None:
    try:
        from psiflow_openmm_sampler import _engine  # noqa: F401
    except ImportError as error:
        raise EngineMissing(
            f"sampler 'openmm' cannot import OpenMM ({error}); run: pip install 'openmm>=8.5'"
        ) from error
