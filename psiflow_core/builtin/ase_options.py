"""The options of the sampler that runs on ASE."""

from __future__ import annotations

from typing import Literal, Self

from ase import units
from pydantic import Field, PositiveFloat, model_validator

from psiflow_core.components import Sampler


class AseOptions(Sampler):
    """Ensemble, thermostat, barostat and optimiser."""

    ensemble: Literal["nve", "nvt", "npt", "optimise"] = "nvt"
    """What is kept constant, or `optimise` to go downhill to a minimum of the potential energy."""
    timestep: float = Field(default=0.5, gt=0, le=20)
    """Time step of molecular dynamics. [fs]"""
    temperature: PositiveFloat = 300.0
    """Of the thermostat; under NVE that of the first momenta only. [K]"""
    pressure: float | None = None
    """External pressure, under NPT and where an optimisation relaxes the cell; none is meant by leaving this
    out. [bar]"""
    thermostat: Literal["langevin", "bussi"] | None = None
    """`langevin` (BAOAB; the only one under NPT), which is meant by leaving this out, or `bussi` (stochastic
    rescaling of the velocities)."""
    friction: PositiveFloat = 5.0
    """Friction of Langevin's thermostat; the inverse of the time constant of Bussi's. [1/ps]"""
    barostat: Literal["isotropic", "flexible"] | None = None
    """Whether the cell breathes as a whole, which is meant by leaving this out, or in all its six strains."""
    barostat_time: PositiveFloat = 500.0
    """Time constant of the barostat. [fs]"""
    algorithm: Literal["lbfgs", "bfgs", "fire"] = "lbfgs"
    """Optimiser; `bfgs` needs fewest steps for a few atoms, `fire` is the most forgiving."""
    fmax: PositiveFloat = 0.01
    """The optimisation has converged when no force on a free atom is larger. With `relax_cell` the stress, less the
    pressure, times the volume per atom must not be larger either, its eV taken for eV/Å: 0.01 allows 0.08 GPa in
    silicon. [eV/Å]"""
    relax_cell: bool = False
    """Whether the optimisation relaxes the cell too."""

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.ensemble == "npt" and self.thermostat == "bussi":
            raise ValueError("thermostat='bussi' does not work with ensemble='npt'; use 'langevin'")
        if self.ensemble not in ("nvt", "npt") and self.thermostat is not None:
            raise ValueError(f"ensemble '{self.ensemble}' has no thermostat; leave thermostat out, or use 'nvt'")
        if self.ensemble != "npt" and self.barostat is not None:
            raise ValueError(f"ensemble '{self.ensemble}' has no barostat; leave barostat out, or use 'npt'")
        if self.pressure is not None and not (self.ensemble == "npt" or self.relax_cell):
            remedy = "set relax_cell=True" if self.ensemble == "optimise" else "use 'npt'"
            raise ValueError(f"ensemble '{self.ensemble}' keeps its cell; leave pressure out, or {remedy}")
        if self.relax_cell and self.ensemble != "optimise":
            raise ValueError("relax_cell needs ensemble='optimise'; a cell that moves at a temperature is 'npt'")
        return self

    def target_temperature(self) -> float | None:
        return self.temperature if self.ensemble in ("nvt", "npt") else None

    @property
    def shape(self) -> str:
        """How the cell changes under NPT."""
        return self.barostat or "isotropic"

    @property
    def external_pressure(self) -> float:
        """In ASE's units."""
        return (self.pressure or 0.0) * units.bar

    @property
    def is_langevin(self) -> bool:
        """Whether the thermostat acts on every atom by itself."""
        return self.ensemble == "npt" or (self.ensemble == "nvt" and self.thermostat != "bussi")

    @property
    def motion(self) -> list[str]:
        """What the state of a barostat or an optimiser belongs to; after a change it starts afresh."""
        if self.ensemble == "optimise":
            return [self.ensemble, self.algorithm, "cell" if self.relax_cell else "atoms"]
        return [self.ensemble, *([self.shape] if self.ensemble == "npt" else [])]
