"""The options of the sampler."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Sampler

Ensemble = Literal["nve", "nvt", "npt", "minimise"]
Thermostat = Literal["langevin", "nose-hoover"]
Shape = Literal["isotropic", "anisotropic", "flexible"]


class OpenMMOptions(Sampler):
    """Ensemble, thermostat, barostat and minimisation."""

    ensemble: Ensemble = "nvt"
    """Constant energy (`nve`), temperature (`nvt`), or temperature and pressure (`npt`); `minimise` finds a
    minimum of the energy in a fixed cell."""
    timestep: PositiveFloat = 0.5
    """Time step; 0.5 resolves the motion of hydrogen, 2 that of heavier atoms. [fs]"""
    temperature: PositiveFloat | None = None
    """Temperature of the heat bath; with `nve`, of the initial momenta only. [K]"""
    pressure: float | None = None
    """Pressure of `npt`. [bar]"""
    thermostat: Thermostat | None = None
    """The heat bath of `nvt` and `npt`. `langevin`, the default, acts on each atom independently and is safe for
    molecules and gases. `nose-hoover` is deterministic, keeps the centre of mass at rest and suits condensed phases:
    a small isolated molecule may never reach equilibrium with it."""
    friction: PositiveFloat = 2.0
    """Rate at which the thermostat exchanges heat; with `nose-hoover`, its collision frequency. [1/ps]"""
    barostat: Shape | None = None
    """The changes of the cell in `npt`: its size (`isotropic`, the default), the lengths of its three vectors
    (`anisotropic`), or size and shape (`flexible`, for solids only: nothing keeps a liquid's cell in shape)."""
    barostat_frequency: PositiveInt = 25
    """Steps between two trial changes of the cell. Each change costs one more call of the potential. [steps]"""
    tolerance: PositiveFloat = 0.05
    """`minimise` has converged when no force on a free atom is larger. [eV/Å]"""

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

    def target_temperature(self) -> float | None:
        return self.temperature if self.ensemble in ("nvt", "npt") else None

    @property
    def is_langevin(self) -> bool:
        """Whether a heat bath acts on each atom independently, and so moves the centre of mass, too."""
        return self.target_temperature() is not None and self.thermostat != "nose-hoover"
