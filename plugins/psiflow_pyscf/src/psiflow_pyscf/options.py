"""The options of the reference."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from psiflow_core.components import Reference


class PySCFOptions(Reference):
    """The level of theory, and the convergence of its self-consistent field."""

    method: Literal["hf", "dft", "mp2"] = "dft"
    """Hartree-Fock, density-functional theory, or second-order perturbation theory on Hartree-Fock."""
    functional: str = Field("pbe", min_length=1)
    """The density functional by libxc's or its usual name (`pbe`, `b3lyp`, `r2scan`, `wb97m-v`), or exchange
    and correlation with a comma between them (`lda,vwn`). Used by method `dft` only. `b3lyp` is Gaussian's,
    with VWN3; `b3lyp5` has VWN5."""
    basis: str = Field("def2-svp", min_length=1)
    """The Gaussian basis set, with the effective core potentials that belong to it. Sets for density fitting are
    refused, and so are sets without core functions that have no core potential either."""
    density_fitting: bool = False
    """Fit the electron density for the Coulomb and exchange integrals: faster with large basis sets. For ethanol
    (PBE/def2-SVP) it shifts atomization energies by 0.4 meV per atom, and differences between structures by 0.03."""
    dispersion: Literal["d3bj", "d4"] | None = None
    """Grimme's D3 with Becke-Johnson damping (two-body terms) or D4, as fitted to the functional."""
    frozen_core: bool = True
    """Leave the core electrons out of the MP2 correlation. Used by method `mp2` only."""
    grid_level: int = Field(3, ge=0, le=9)
    """Fineness of the integration grid. Rotating a water molecule (PBE) changes energy and forces by up to
    0.03 meV and 0.8 meV/Å at level 2, 0.003 and 0.5 at 3, 0.003 and 0.05 at 4."""
    conv_tol: PositiveFloat = 1e-9
    """Largest change of the energy in the last iteration. [Eh]"""
    conv_tol_grad: PositiveFloat = 1e-5
    """Largest norm of the orbital gradient; the error of the forces is of this order. [Eh]"""
    max_cycle: PositiveInt = 60
    """Largest number of iterations of each rung of the fall-back ladder: plain DIIS, DIIS from atomic densities,
    damping with a level shift, second order."""
    check_stability: bool = False
    """Check that the converged orbitals of a singlet are a minimum among restricted orbitals, and leave saddle
    points. Costs as much as one or two self-consistent fields. Open shells are always checked, because saddle points
    do occur (B2 in HF/STO-3G: 2 eV), and so are fields that only the second-order rung has converged."""

    @field_validator("functional", "basis")
    @classmethod
    def _lower(cls, given: str) -> str:
        name = given.strip().lower()
        if not name:
            raise ValueError("it is blank; write a name")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> PySCFOptions:
        if self.method == "mp2" and self.density_fitting:
            raise ValueError("PySCF has no forces for density-fitted MP2; set density_fitting=False")
        if self.method == "mp2" and self.dispersion:
            raise ValueError("MP2 already includes dispersion; set dispersion=None")
        if "-d3" in self.functional or "-d4" in self.functional:
            raise ValueError("name the dispersion correction in the option dispersion, not in the functional")
        return self
