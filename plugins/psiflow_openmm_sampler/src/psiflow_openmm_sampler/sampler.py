"""The options of the sampler, and the contract that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from ase import Atoms
from pydantic import PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Monitor, Sampler, SamplingTask, Segment, Walker
from psiflow_core.errors import EngineMissing, StructureError

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

Ensemble = Literal["nve", "nvt", "npt", "minimise"]
Thermostat = Literal["langevin", "nose-hoover"]
Shape = Literal["isotropic", "anisotropic", "flexible"]


class OpenMM(Sampler):
    """Molecular dynamics and energy minimisation with OpenMM.

    A walker that goes on with the options it had goes on exactly: two segments of N steps give the bits of
    one of 2N, in another process too, if the potential itself repeats to the bit. A continued segment draws
    from the random stream of the one before, and its own seed is not used. A walker whose structure or
    options have changed since (a temperature ramp, for instance) starts from its positions and momenta with
    new random streams. Minimisation keeps no state: each segment begins with a fresh L-BFGS.
    """

    name: ClassVar[str] = "openmm"
    engine: ClassVar[str] = "openmm"

    ensemble: Ensemble = "nvt"
    """What is kept: energy (`nve`), temperature (`nvt`), temperature and pressure (`npt`); `minimise` goes
    down to a minimum of the energy in a fixed cell."""
    timestep: PositiveFloat = 0.5
    """Time step; 0.5 resolves the motion of hydrogen, 2 that of heavier atoms. [fs]"""
    temperature: PositiveFloat | None = None
    """Temperature of the heat bath; with `nve`, that of the first momenta only. [K]"""
    pressure: float | None = None
    """Pressure of `npt`. [bar]"""
    thermostat: Thermostat | None = None
    """How heat is exchanged. `langevin`, which is meant by leaving this out, acts on every atom by itself and
    is safe for molecules and gases; `nose-hoover` is deterministic, keeps the centre of mass at rest and suits
    condensed phases: an isolated small molecule may never reach equilibrium with it."""
    friction: PositiveFloat = 2.0
    """Rate at which the thermostat exchanges heat, its collision frequency with `nose-hoover`. [1/ps]"""
    barostat: Shape | None = None
    """What `npt` changes of the cell: its size (`isotropic`, which is meant by leaving this out), the lengths
    of its three vectors (`anisotropic`), or everything (`flexible`, for solids: nothing keeps the shape of a
    liquid's cell)."""
    barostat_frequency: PositiveInt = 25
    """Steps between two trial changes of the cell, each of which costs one more call of the potential.
    [steps]"""
    tolerance: PositiveFloat = 0.05
    """`minimise` has converged when no atom's force is larger. [eV/Å]"""

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        thermal, cell = self.ensemble in ("nvt", "npt"), self.ensemble == "npt"
        if thermal and self.temperature is None:
            raise ValueError(f"ensemble '{self.ensemble}' needs a temperature; set temperature=300.0, for instance")
        if cell and self.pressure is None:
            raise ValueError("ensemble 'npt' needs a pressure; set pressure=1.0, for instance")
        if not thermal and self.thermostat is not None:
            raise ValueError(f"ensemble '{self.ensemble}' has no thermostat; leave thermostat out, or use 'nvt'")
        if not cell and (self.pressure is not None or self.barostat is not None):
            raise ValueError(
                f"ensemble '{self.ensemble}' keeps its cell; leave pressure and barostat out, or use 'npt'"
            )
        if self.ensemble == "minimise" and self.temperature is not None:
            raise ValueError("ensemble 'minimise' has no temperature; leave temperature out")
        return self

    def check(self, structures: Sequence[Atoms]) -> None:
        _engine_is_there()
        for number, atoms in enumerate(structures):
            where = f"structure {number} ({atoms.get_chemical_formula()})"
            if self.ensemble == "npt" and not atoms.pbc.all():
                raise StructureError(f"{where} is not periodic in three directions, so it has no pressure; use 'nvt'")
            if atoms.constraints:
                raise StructureError(f"{where} has constraints, which 'openmm' does not keep; remove them")

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        self.check([walker.structure])
        from psiflow_openmm_sampler import _dynamics, _minimisation

        run = _minimisation.run if self.ensemble == "minimise" else _dynamics.run
        return run(self, walker, forces, task, monitor)

    def target_temperature(self) -> float | None:
        return self.temperature if self.ensemble in ("nvt", "npt") else None

    def degrees_of_freedom(self, atoms: int) -> int:
        """Momenta that share the kinetic energy: Langevin's heat bath moves the centre of mass too."""
        free = self.target_temperature() is not None and self.thermostat != "nose-hoover"
        return 3 * atoms if free or atoms == 1 else 3 * atoms - 3


def _engine_is_there() -> None:
    try:
        from psiflow_openmm_sampler import _engine  # noqa: F401
    except ImportError as error:
        raise EngineMissing(
            f"sampler 'openmm' cannot import OpenMM ({error}); run: pip install 'openmm>=8.5'"
        ) from error
