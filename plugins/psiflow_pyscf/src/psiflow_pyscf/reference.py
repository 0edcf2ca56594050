"""The reference `pyscf`: its options, and what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from ase import Atoms
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from psiflow_core.components import LabelTask, Reference
from psiflow_core.structures import Label


class PySCF(Reference):
    """Molecules in a Gaussian basis: Hartree-Fock, any density functional of libxc, MP2.

    Charge and multiplicity are each structure's own (``info["charge"]``, ``info["spin"]``). A singlet is
    computed spin-restricted, everything else spin-unrestricted: stretch a bond of a singlet until it breaks
    and the restricted energy is too high there, as in any code.

    Forces are analytic and hold the response of the integration grid and of the fitting basis: they are the
    gradient of the energy that is returned, to 0.05 meV/Å (H2O). Two things remain. Screened hybrids (HSE) miss
    it by up to 0.5 meV/Å. And the energy itself depends on how the grid lies in the molecule:
    `grid_level` says by how much.

    A self-consistent field is a stationary point, and not always the lowest one: see `check_stability`. Where
    states are degenerate (the OH radical, most atoms) it is any of them, and forces are less sharp there. Of several
    minima the first that the ladder meets is taken: for a transition metal it need not be the ground state.
    """

    name: ClassVar[str] = "pyscf"
    engine: ClassVar[str] = "psiflow_pyscf._pyscf"

    method: Literal["hf", "dft", "mp2"] = "dft"
    """Hartree-Fock, density-functional theory, or second-order perturbation theory on Hartree-Fock."""
    functional: str = Field("pbe", min_length=1)
    """The density functional by libxc's or its usual name (`pbe`, `b3lyp`, `r2scan`, `wb97m-v`), or exchange
    and correlation with a comma between them (`lda,vwn`). Read for method `dft` alone. `b3lyp` is Gaussian's,
    with VWN3; `b3lyp5` is the one with VWN5."""
    basis: str = Field("def2-svp", min_length=1)
    """The Gaussian basis set, with the effective core potentials that belong to it. Sets for density fitting are
    refused, and so are those that leave out the core of an element without a potential in its place."""
    density_fitting: bool = False
    """Fit the electron density for the Coulomb and exchange integrals: quicker in large basis sets. Shifts
    atomization energies of ethanol (PBE/def2-SVP) by 0.4 meV per atom, its structures against each other by 0.03."""
    dispersion: Literal["d3bj", "d4"] | None = None
    """Grimme's D3 with Becke-Johnson damping (two-body terms) or D4, as fitted to the functional."""
    frozen_core: bool = True
    """Leave the core electrons out of the MP2 correlation. Read for method `mp2` alone."""
    grid_level: int = Field(3, ge=0, le=9)
    """Fineness of the integration grid. Turning a water molecule (PBE) changes energy and forces by up to
    0.03 meV and 0.8 meV/Å at level 2, 0.003 and 0.5 at 3, 0.003 and 0.05 at 4."""
    conv_tol: PositiveFloat = 1e-9
    """Largest change of the energy in the last iteration. [Eh]"""
    conv_tol_grad: PositiveFloat = 1e-5
    """Largest norm of the orbital gradient; the error of the forces is of this order. [Eh]"""
    max_cycle: PositiveInt = 60
    """Iterations that each rung of the fall-back ladder may take: plain DIIS, DIIS from atomic densities,
    damping with a level shift, second order."""
    check_stability: bool = False
    """Check that the converged orbitals of a singlet are a minimum among restricted orbitals, and descend from
    a saddle point until they are; costs one to two more self-consistent fields. Open shells are always checked,
    because there it happens (B2 in HF/STO-3G: 2 eV), and so is what only the second-order rung converged."""

    @field_validator("functional", "basis")
    @classmethod
    def _lower(cls, given: str) -> str:
        name = given.strip().lower()
        if not name:
            raise ValueError("it is blank; write a name")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> PySCF:
        if self.method == "mp2" and self.density_fitting:
            raise ValueError("PySCF has no forces for density-fitted MP2; set density_fitting=False")
        if self.method == "mp2" and self.dispersion:
            raise ValueError("MP2 holds dispersion by itself; set dispersion=None")
        if "-d3" in self.functional or "-d4" in self.functional:
            raise ValueError("name the dispersion correction in the option dispersion, not in the functional")
        return self

    def check(self, structures: Sequence[Atoms]) -> None:
        from psiflow_pyscf import _checks

        _checks.check_level(self)
        for structure in structures:
            _checks.check_structure(self, structure)

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        from psiflow_pyscf import _engine

        return _engine.label(self, structure, task)
