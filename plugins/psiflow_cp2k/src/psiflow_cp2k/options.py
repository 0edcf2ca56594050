"""The options of the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from psiflow_core.components import Reference

LEVEL = (
    "functional", "dispersion", "basis", "basis_of", "basis_file", "potential_file", "cutoff", "rel_cutoff", "kpoints",
    "smearing", "eps_scf", "eps_default",
)  # fmt: skip
"""Options that a section `force_eval` replaces."""


class CP2KOptions(Reference):
    """The level of theory, its self-consistent field, and how CP2K is started."""

    force_eval: str | None = None
    """A section `&FORCE_EVAL` of CP2K's input, or the path of a file with one; the file is read when the option is
    given. A section `&GLOBAL` next to it is kept, all others are dropped. Replaces all options of the level of
    theory: `functional` to `eps_default`."""
    functional: Literal["pbe", "revpbe", "pbesol", "blyp", "bp", "lda"] = "pbe"
    """The density functional, with its GTH pseudopotentials."""
    dispersion: Literal["d3bj", "d3"] | None = "d3bj"
    """Grimme's D3 with Becke-Johnson or with zero damping, as fitted to the functional; pairs up to 15 Å."""
    basis: str = Field("TZVP-MOLOPT-GTH", min_length=1)
    """The basis set of all elements, by its name in `basis_file`. `TZVP-MOLOPT-GTH` exists for H, C, N, O, F, Si,
    P, S, Cl; `DZVP-MOLOPT-SR-GTH` for most others."""
    basis_of: dict[str, str] = Field(default_factory=dict)
    """Basis sets of single elements, in place of `basis`: `{Na: DZVP-MOLOPT-SR-GTH}`."""
    basis_file: str = Field("BASIS_MOLOPT", min_length=1)
    """The file of basis sets in CP2K's data folder, or a path."""
    potential_file: str = Field("GTH_POTENTIALS", min_length=1)
    """The file of pseudopotentials in CP2K's data folder, or a path."""
    cutoff: PositiveFloat = 800.0
    """Plane-wave cut-off of the finest grid. Largest force error in water, compared with 1200 Ry: 165 meV/Å at 300,
    158 at 400, 93 at 600, 12 at 800, 7 at 1000. [Ry]"""
    rel_cutoff: PositiveFloat = 60.0
    """Cut-off that decides on which grid a Gaussian is placed. [Ry]"""
    kpoints: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 1, 1)
    """Monkhorst-Pack grid of periodic structures; (1, 1, 1) is Γ only."""
    smearing: PositiveFloat | None = None
    """Electronic temperature of a Fermi-Dirac distribution, for metals; None occupies the lowest orbitals. Isolated
    atoms and molecules are never smeared. [K]"""
    eps_scf: PositiveFloat = 1e-6
    """Convergence of the self-consistent field; the error of forces is of this order. [Eh]"""
    eps_default: PositiveFloat = 1e-12
    """Accuracy of all parts of the Hamiltonian. [Eh]"""
    box: PositiveFloat | None = None
    """Edge of the cubic box of molecules and atoms; None: twice the distance of the outermost atom from the
    centre plus twice `vacuum`, rounded up to whole Å. [Å]"""
    vacuum: PositiveFloat = 4.0
    """Distance from the atoms of a molecule to the faces of its box. [Å]"""
    max_scf: PositiveInt = 150
    """Largest number of iterations of each rung of the fall-back ladder."""
    start_from_last: bool = True
    """Start from the orbitals of this worker's last label, if that was a closed-shell structure of the same atoms,
    each within 0.5 Å. Changes a label by less than `eps_scf` does: 0.005 meV/Å at 1e-6."""
    command: str = Field("cp2k.psmp", min_length=1)
    """The words that start CP2K: a program, a path, `apptainer exec cp2k.sif cp2k.psmp`."""
    launch: str | None = None
    """The words before `command` if there is more than one rank: `srun --overlap -n {ranks}`. None:
    `mpirun -n {ranks}` on the worker's own node, with as many ranks as the pool has cores. CP2K then does not see the
    scheduler's variables, so that the number of granted tasks does not matter."""
    before: str | None = None
    """Shell commands that run first: `module load CP2K/2024.1`."""
    data: str | None = None
    """CP2K's data folder; None leaves it to CP2K (`CP2K_DATA_DIR`, or the one it was built with)."""
    threads: PositiveInt = 1
    """Threads of each rank. The number of ranks is the pool's cores divided by this."""
    patience: NonNegativeInt = 5
    """Time that CP2K has to end when it is asked to; then it is killed. [s]"""

    @field_validator("force_eval")
    @classmethod
    def _read(cls, given: str | None) -> str | None:
        from psiflow_cp2k._given import as_read

        return None if given is None else as_read(given)

    @field_validator("basis_file", "potential_file", "data")
    @classmethod
    def _in_full(cls, given: str | None) -> str | None:
        """CP2K runs in each label's own folder, where a relative path would mean another file."""
        relative = given is not None and "/" in given and Path(given).exists()
        return str(Path(given).absolute()) if given is not None and relative else given

    @field_validator("launch")
    @classmethod
    def _fillable(cls, given: str | None) -> str | None:
        try:
            (given or "").format(ranks=1, threads=1)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"only {{ranks}} and {{threads}} are allowed in braces ({error!r})") from None
        return given

    @model_validator(mode="after")
    def _consistent(self) -> CP2KOptions:
        fields = type(self).model_fields
        twice = [name for name in LEVEL if getattr(self, name) != fields[name].get_default(call_default_factory=True)]
        if self.force_eval and twice:
            raise ValueError(f"force_eval replaces {', '.join(twice)}; set it in the section, and leave the option out")
        if self.functional == "lda" and self.dispersion and not self.force_eval:
            raise ValueError("D3 was not fitted to functional 'lda'; set dispersion=None")
        return self
