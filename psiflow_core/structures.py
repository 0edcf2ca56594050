"""Structures and their labels: units, checks, content hash, and the plain data they travel as.

A structure is an `ase.Atoms` (Å, amu, ASE's unit of time); its total charge [e] is ``info["charge"]``
(default 0), its spin multiplicity 2S+1 is ``info["spin"]`` (default 1); initial magnetic moments [μB] travel
with it, constraints do not. A label is in eV and Å.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols, ground_state_magnetic_moments
from numpy.typing import NDArray

from psiflow_core.errors import StructureError

Array = NDArray[np.float64]
Plain = dict[str, Any]
"""What crosses process borders: numbers, text, lists and dictionaries, as JSON knows them."""

KEPT_ARRAYS = {"momenta": (-1, 3), "masses": (-1,)}
"""Arrays that travel with a structure where it has them, and their shapes; masses other than the elements' own."""

MOMENTS = "initial_magmoms"
"""ASE's array of initial magnetic moments, shape (atoms,) or, not collinear, (atoms, 3). [μB]"""

UNPAIRED = {"Ce": 1 - 1, "Es": 4 - 1}
"""Unpaired electrons of free atoms for which ASE's table has a number that theirs cannot have.

Their ground levels are 4f 5d 6s² ¹G°₄ and 5f¹¹ 7s² ⁴I°₁₅⸝₂: Martin, Musgrove, Kotochigova and Sansonetti, "Ground
Levels and Ionization Energies for the Neutral Atoms", NIST.
"""

CLOSEST = 0.3
"""Atoms nearer to each other than this are taken for a mistake in the input. [Å]"""


@dataclass(frozen=True)
class Label:
    """What a reference says of a structure."""

    energy: float
    """Total energy. [eV]"""
    forces: Array
    """Minus the gradient of the energy, shape (atoms, 3). [eV/Å]"""
    stress: Array | None = None
    """ASE's sign and Voigt order (xx, yy, zz, yz, xz, xy), shape (6,); None without a cell. [eV/Å³]"""

    def to_plain(self) -> Plain:
        return {
            "energy": float(self.energy),
            "forces": np.asarray(self.forces, float).tolist(),
            "stress": None if self.stress is None else np.asarray(self.stress, float).tolist(),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Label:
        stress = plain["stress"]
        forces = np.array(plain["forces"], float).reshape(-1, 3)
        return cls(float(plain["energy"]), forces, None if stress is None else np.array(stress, float))


def charge_of(atoms: Atoms) -> int:
    """The total charge. [e]

    Raises:
        StructureError: it is not a whole number.
    """
    return _whole(atoms, "charge", 0)


def spin_of(atoms: Atoms) -> int:
    """The spin multiplicity 2S+1.

    Raises:
        StructureError: it is not a whole number.
    """
    return _whole(atoms, "spin", 1)


def with_label(atoms: Atoms, label: Label) -> Atoms:
    """A copy of the structure that carries the label where ASE, and its file formats, look for it."""
    labelled = atoms.copy()
    results: dict[str, Any] = {"energy": label.energy, "forces": label.forces}
    if label.stress is not None:
        results["stress"] = label.stress
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def label_of(atoms: Atoms) -> Label:
    """The label that a structure carries.

    Raises:
        StructureError: it carries none.
    """
    results = getattr(atoms.calc, "results", {})
    if "energy" not in results or "forces" not in results:
        raise StructureError(f"{atoms.get_chemical_formula()} has no label: energy and forces are needed")
    stress = results.get("stress")
    return Label(
        float(results["energy"]),
        np.asarray(results["forces"], float),
        None if stress is None else np.asarray(stress, float),
    )


def isolated_atom(symbol: str) -> Atoms:
    """One atom in vacuum with the spin multiplicity of its ground state (ASE's table, amended by `UNPAIRED`).

    Raises:
        StructureError: the element is beyond nobelium, where the table ends.
    """
    atoms = Atoms(symbol)
    number = int(atoms.numbers[0])
    table = ground_state_magnetic_moments
    unpaired = UNPAIRED.get(symbol, table[number] if number < len(table) else np.nan)
    if not np.isfinite(unpaired):
        raise StructureError(
            f"the spin of a free {symbol} atom is not known (no entry in ASE's table), so it cannot be labelled; "
            "use structures of elements up to No (Z = 102)"
        )
    atoms.info["charge"], atoms.info["spin"] = 0, round(unpaired) + 1
    return atoms


def digest(atoms: Atoms) -> str:
    """The content hash of a structure: SHA-256 over all that its label depends on, and nothing else.

    That is species, positions, charge, spin, periodicity, the cell where it is periodic, and initial magnetic
    moments where any is not zero (they decide which spin order a crystal's label is for); momenta, names, tags
    and calculators do not count.

    Raises:
        StructureError: charge or spin are not whole numbers.
    """
    pbc = np.asarray(atoms.pbc, bool)
    cell = np.where(pbc[:, None], np.asarray(atoms.cell), 0.0)
    hasher = hashlib.sha256()
    for array in (
        atoms.numbers.astype("<i8"),
        pbc.astype("<i8"),
        np.array([charge_of(atoms), spin_of(atoms)], "<i8"),
    ):
        hasher.update(array.tobytes() + b"|")
    for array in (atoms.positions, cell, *_moments(atoms)):
        hasher.update((np.ascontiguousarray(array, "<f8") + 0.0).tobytes() + b"|")  # + 0.0: no minus zero
    return hasher.hexdigest()


def to_plain(atoms: Atoms) -> Plain:
    """The structure as JSON data, exact to the last bit.

    Momenta, masses, initial magnetic moments other than zero, and a label go along where it has them.
    """
    plain: Plain = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": np.asarray(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": {key: _plain_value(value) for key, value in atoms.info.items() if _is_plain(value)},
    }
    for name in KEPT_ARRAYS:
        if atoms.has(name):
            plain[name] = atoms.get_array(name).tolist()
    for moments in _moments(atoms):
        plain[MOMENTS] = moments.tolist()
    if {"energy", "forces"} <= set(getattr(atoms.calc, "results", {})):
        plain["label"] = label_of(atoms).to_plain()
    return plain


def from_plain(plain: Plain) -> Atoms:
    """The inverse of `to_plain`."""
    atoms = Atoms(
        numbers=plain["numbers"],
        positions=np.array(plain["positions"], float).reshape(-1, 3),
        cell=plain["cell"],
        pbc=plain["pbc"],
        info=dict(plain["info"]),
    )
    for name, shape in KEPT_ARRAYS.items():
        if name in plain:
            atoms.set_array(name, np.array(plain[name], float).reshape(shape))
    if MOMENTS in plain:
        atoms.set_array(MOMENTS, np.array(plain[MOMENTS], float))
    return with_label(atoms, Label.from_plain(plain["label"])) if "label" in plain else atoms


def check(structures: Sequence[Atoms], where: str = "structure") -> None:
    """Refuse structures that nothing should be computed for.

    Raises:
        StructureError: the first one that is empty, constrained, not finite, impossible in charge or spin, or
            has overlapping atoms, by its number in the sequence.
    """
    if not structures:
        raise StructureError(f"{where}: there is no structure in it")
    for number, atoms in enumerate(structures):
        problem = _problem(atoms) or _electronic_problem(atoms) or _overlap(atoms)
        if problem:
            raise StructureError(f"{where} {number} ({atoms.get_chemical_formula()}): {problem}")


def displaced(atoms: Atoms, amplitude: float, strain: float, random: np.random.Generator) -> Atoms:
    """A copy with each coordinate moved by up to ± ``amplitude`` [Å], and, where periodic, strained.

    Each component of the symmetric strain is drawn evenly from ± ``strain``.
    """
    moved = atoms.copy()
    moved.positions += random.uniform(-amplitude, amplitude, (len(atoms), 3))
    if strain and atoms.pbc.any():
        components = np.triu(random.uniform(-strain, strain, (3, 3)))
        symmetric = components + np.triu(components, 1).T  # no rotation
        moved.set_cell(moved.cell @ (np.eye(3) + symmetric), scale_atoms=True)
    return moved


def closest_pair(atoms: Atoms, cutoff: float) -> tuple[float, int, int] | None:
    """The nearest two atoms, periodic images included, if nearer than ``cutoff`` [Å]: (distance, i, j)."""
    from ase.neighborlist import neighbor_list

    first, second, distance = neighbor_list("ijd", atoms, cutoff)
    if len(distance) == 0:
        return None
    nearest = int(np.argmin(distance))
    return float(distance[nearest]), int(first[nearest]), int(second[nearest])


def read(path: str | Path) -> list[Atoms]:
    """All structures of a file in any format that ASE reads.

    Raises:
        StructureError: the file is missing, unreadable or empty.
    """
    import ase.io

    try:
        structures = ase.io.read(path, index=":")
    except Exception as error:  # ASE's readers raise whatever their parser met
        raise StructureError(_unreadable(Path(path), error)) from None
    if not structures:
        raise StructureError(f"{path} holds no structure")
    return list(structures)


def _unreadable(path: Path, error: Exception) -> str:
    """The readers' words are kept: nobody knows better what they met."""
    if not path.exists():
        return f"cannot read structures from {path.absolute()}: there is no such file; check the path"
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"cannot read structures from {path.absolute()} ({said}); give a file that ase.io.read reads, such as .xyz"


def species(structures: Iterable[Atoms]) -> list[str]:
    """The chemical symbols that occur, by atomic number."""
    numbers = sorted({int(z) for atoms in structures for z in atoms.numbers})
    return [chemical_symbols[z] for z in numbers]


def canonical(plain: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal data give equal bytes, in every process."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(plain: Any) -> str:
    """The SHA-256 of plain data."""
    return hashlib.sha256(canonical(plain)).hexdigest()


def _problem(atoms: Atoms) -> str | None:
    if len(atoms) == 0:
        return "it has no atoms"
    if not np.isfinite(atoms.positions).all() or not np.isfinite(np.asarray(atoms.cell)).all():
        return "its positions or cell are not finite (NaN or infinity)"
    if atoms.pbc.any() and not _spans(atoms):
        return "it is periodic but its cell vectors are missing or dependent"
    if not all(np.isfinite(moments).all() for moments in _moments(atoms)):
        return "its initial magnetic moments are not finite (NaN or infinity)"
    if atoms.constraints:
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        return f"it has constraints ({kinds}), which are not kept; remove them: atoms.set_constraint()"
    return None


def _electronic_problem(atoms: Atoms) -> str | None:
    try:
        electrons, spin = int(atoms.numbers.sum()) - charge_of(atoms), spin_of(atoms)
    except StructureError as error:
        return str(error)
    counted = "spin" in atoms.info or not atoms.pbc.any()  # the spin of a crystal is its reference's to settle
    if counted and (spin < 1 or (electrons + spin) % 2 == 0):
        return f"{electrons} electrons cannot have spin multiplicity {spin}; set info['spin'] (2S+1) and info['charge']"
    return None


def _overlap(atoms: Atoms) -> str | None:
    close = closest_pair(atoms, CLOSEST)
    if close:
        return f"atoms {close[1]} and {close[2]} are {close[0]:.3f} Å apart (nearest allowed: {CLOSEST} Å)"
    return None


def _whole(atoms: Atoms, key: str, default: int) -> int:
    value = atoms.info.get(key, default)
    if not isinstance(value, int | float | np.integer | np.floating) or not float(value).is_integer():
        raise StructureError(f"info['{key}'] is {value!r}, not a whole number; set it to one")
    return int(value)


def _moments(atoms: Atoms) -> list[Array]:
    """The initial magnetic moments if any is not zero: an array, or none."""
    moments = atoms.arrays.get(MOMENTS)
    return [] if moments is None or not moments.any() else [np.asarray(moments, float)]


def _spans(atoms: Atoms) -> bool:
    vectors = np.asarray(atoms.cell)[atoms.pbc]
    return bool(np.linalg.matrix_rank(vectors, tol=1e-6) == len(vectors))


def _is_plain(value: Any) -> bool:
    if isinstance(value, float | np.floating):
        return bool(np.isfinite(value))
    return isinstance(value, str | bool | int | np.integer | np.bool_)


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
