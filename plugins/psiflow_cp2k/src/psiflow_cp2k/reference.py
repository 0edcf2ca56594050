"""The reference `cp2k`: its options, and what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from ase import Atoms
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from psiflow_core.components import LabelTask, Reference
from psiflow_core.structures import Label

LEVEL = (
    "functional", "dispersion", "basis", "basis_of", "basis_file", "potential_file", "cutoff", "rel_cutoff", "kpoints",
    "smearing", "eps_scf", "eps_default",
)  # fmt: skip
"""Options that a section `force_eval` takes the place of."""


class CP2K(Reference):
    """Density-functional theory for crystals, liquids and molecules, in Gaussians and plane waves.

    The level is given by name (`functional`, `basis`, `cutoff`, …) or as a section of CP2K's own input
    (`force_eval`). What belongs to the structure is psiflow's to write, and taken out of a given section: cell,
    coordinates, charge and multiplicity (``info["charge"]``, ``info["spin"]``), spin polarization where the
    multiplicity is not 1 or atoms have initial magnetic moments, the boundary conditions of electrostatics, and what
    is printed.

    Crystals and liquids (periodic in all directions) have a stress. Molecules and isolated atoms are put in the
    middle of a cubic box without periodicity. Slabs and wires: use a periodic cell with vacuum.

    Forces are the gradient of the energy for a fixed grid (0.05 meV/Å, H2O); the grid itself is the largest error:
    see `cutoff`. The net force of a molecule, which the grid makes, is taken off all its atoms alike: what is left
    is the gradient of the energy of the molecule in the middle of its box.

    Metals: with `smearing` the energy is the free energy E − TS that CP2K minimizes, whose gradient forces and stress
    are.
    """

    name: ClassVar[str] = "cp2k"
    program: ClassVar[str] = "cp2k"

    force_eval: str | None = None
    """A section `&FORCE_EVAL` of CP2K's input, or the path of a file with one, which is read when the option is
    given. A section `&GLOBAL` beside it is kept, others are not. Replaces the options of the level below."""
    functional: Literal["pbe", "revpbe", "pbesol", "blyp", "bp", "lda"] = "pbe"
    """The density functional, with the pseudopotentials (GTH) that were made for it."""
    dispersion: Literal["d3bj", "d3"] | None = "d3bj"
    """Grimme's D3 with Becke-Johnson or with zero damping, as fitted to the functional; pairs up to 15 Å."""
    basis: str = Field("TZVP-MOLOPT-GTH", min_length=1)
    """The basis set of all elements, by its name in `basis_file`. `TZVP-MOLOPT-GTH` is there for H, C, N, O, F, Si,
    P, S, Cl; `DZVP-MOLOPT-SR-GTH` for most others."""
    basis_of: dict[str, str] = Field(default_factory=dict)
    """Other basis sets for single elements: `{Na: DZVP-MOLOPT-SR-GTH}`."""
    basis_file: str = Field("BASIS_MOLOPT", min_length=1)
    """The file of basis sets in CP2K's data folder, or a path."""
    potential_file: str = Field("GTH_POTENTIALS", min_length=1)
    """The file of pseudopotentials in CP2K's data folder, or a path."""
    cutoff: PositiveFloat = 800.0
    """Plane-wave cut-off of the finest grid. The largest error of a force in water, against 1200 Ry: 165 meV/Å at 300,
    158 at 400, 93 at 600, 12 at 800, 7 at 1000. [Ry]"""
    rel_cutoff: PositiveFloat = 60.0
    """Cut-off that decides which of the grids a Gaussian is put on. [Ry]"""
    kpoints: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1)
    """Monkhorst-Pack grid of periodic structures; (1, 1, 1) is Γ alone."""
    smearing: PositiveFloat | None = None
    """Electronic temperature of a Fermi-Dirac distribution, for metals; None occupies the lowest orbitals. Isolated
    atoms and molecules are never smeared. [K]"""
    eps_scf: PositiveFloat = 1e-6
    """Convergence of the self-consistent field; the error of forces is of this order. [Eh]"""
    eps_default: PositiveFloat = 1e-12
    """Accuracy of all parts of the Hamiltonian. [Eh]"""
    box: PositiveFloat | None = None
    """Edge of the cubic box of molecules and atoms; None makes it twice the distance of the outermost atom from
    the centre, and twice `vacuum`, in whole Å. [Å]"""
    vacuum: PositiveFloat = 4.0
    """Distance from the atoms of a molecule to the faces of its box. [Å]"""
    max_scf: PositiveInt = 150
    """Iterations that each rung of the fall-back ladder may take."""
    start_from_last: bool = True
    """Start from the orbitals of the last label of this worker, where that was of a closed-shell structure of
    the same atoms, each within 0.5 Å. Changes a label by less than `eps_scf` does: 0.005 meV/Å at 1e-6."""
    command: str = Field("cp2k.psmp", min_length=1)
    """The words that start CP2K: a program, a path, `apptainer exec cp2k.sif cp2k.psmp`."""
    launch: str | None = None
    """The words before `command` where there is more than one rank: `srun --overlap -n {ranks}`. None is
    `mpirun -n {ranks}` on the worker's own node, with as many ranks as the pool has cores, whatever number of tasks
    a scheduler has granted: CP2K does not see the scheduler's variables then."""
    before: str | None = None
    """Shell commands that are run first: `module load CP2K/2024.1`."""
    data: str | None = None
    """CP2K's data folder; None leaves it to CP2K (`CP2K_DATA_DIR`, or the one it was built with)."""
    threads: PositiveInt = 1
    """Threads of each rank. Ranks are the pool's cores by threads."""
    patience: NonNegativeInt = 5
    """Time for CP2K to end when it is asked to, before it is killed. [s]"""

    @field_validator("force_eval")
    @classmethod
    def _read(cls, given: str | None) -> str | None:
        from psiflow_cp2k._level import as_read

        return None if given is None else as_read(given)

    @field_validator("basis_file", "potential_file", "data")
    @classmethod
    def _in_full(cls, given: str | None) -> str | None:
        """CP2K runs in a folder of each label's own, where a relative path would be another."""
        relative = given is not None and "/" in given and Path(given).exists()
        return str(Path(given).absolute()) if given is not None and relative else given

    @field_validator("launch")
    @classmethod
    def _fillable(cls, given: str | None) -> str | None:
        try:
            (given or "").format(ranks=1, threads=1)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"only {{ranks}} and {{threads}} can stand in braces ({error!r})") from None
        return given

    @model_validator(mode="after")
    def _consistent(self) -> CP2K:
        fields = type(self).model_fields
        twice = [name for name in LEVEL if getattr(self, name) != fields[name].get_default(call_default_factory=True)]
        if self.force_eval and twice:
            raise ValueError(
                f"force_eval takes the place of {', '.join(twice)}; say it there, and leave the option out"
            )
        if self.functional == "lda" and self.dispersion and not self.force_eval:
            raise ValueError("D3 was not fitted to functional 'lda'; set dispersion=None")
        return self

    def check(self, structures: Sequence[Atoms]) -> None:
        from psiflow_cp2k import _checks

        for structure in structures:
            _checks.check_structure(structure)
        _checks.check_level(self, structures)

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        from psiflow_cp2k import _engine

        return _engine.label(self, structure, task)
