"""Structures and their labels: units, content hash, and conversion to plain data.

A structure is an `ase.Atoms` (Å, amu, ASE's unit of time); its total charge [e] is ``info["charge"]``
(default 0), its spin multiplicity 2S+1 is ``info["spin"]`` (default 1); `electrons` lists the other names for them.
Initial charges [e], magnetic moments [μB] and fixed atoms are part of the structure. A label is in eV and Å.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols, ground_state_magnetic_moments
from numpy.typing import NDArray

from psiflow_core.constraints import fix, fixed_atoms
from psiflow_core.electrons import CHARGES, array_of, electrons, says_electrons
from psiflow_core.electrons import MOMENTS as MOMENTS
from psiflow_core.electrons import charge_of as charge_of
from psiflow_core.electrons import spin_of as spin_of
from psiflow_core.errors import StructureError

Array = NDArray[np.float64]
Plain = dict[str, Any]
"""JSON data for other processes and files: numbers, text, lists and dictionaries."""

KEPT_ARRAYS = {"momenta": (-1, 3), "masses": (-1,)}
"""Optional arrays of a structure that are kept, and their shapes; masses only if they differ from the elements'."""

ELECTRONIC = (CHARGES, MOMENTS)
"""Arrays of a structure that are kept if any of their numbers is not zero: a label may depend on them."""

UNPAIRED = {"Ce": 1 - 1, "Es": 4 - 1}
"""Unpaired electrons of the free atoms for which ASE's table has an impossible number.

Their ground levels are 4f 5d 6s² ¹G°₄ and 5f¹¹ 7s² ⁴I°₁₅⸝₂: Martin, Musgrove, Kotochigova and Sansonetti, "Ground
Levels and Ionization Energies for the Neutral Atoms", NIST.
"""


@dataclass(frozen=True)
class Label:
    """The result of a reference for a structure."""

    energy: float
    """Total energy whose negative gradient is the forces; with smeared occupations this is the free energy. [eV]"""
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


def with_label(atoms: Atoms, label: Label) -> Atoms:
    """A copy of the structure with the label in a calculator, where ASE and its file formats look for it."""
    labelled = atoms.copy()
    results: dict[str, Any] = {"energy": label.energy, "forces": label.forces}
    if label.stress is not None:
        results["stress"] = label.stress
    labelled.calc = SinglePointCalculator(labelled, **results)
    return labelled


def results_of(atoms: Atoms) -> dict[str, Any]:
    """The results of the structure's calculator; empty if the structure was moved or changed since."""
    calculator = atoms.calc
    results = {name: value for name, value in getattr(calculator, "results", {}).items() if value is not None}
    if results and hasattr(calculator, "check_state"):
        return {} if calculator.check_state(atoms) else results
    return results


def energy_in(results: dict[str, Any]) -> Any:
    """The energy that is consistent with the forces: the free energy, if there is one."""
    return results["free_energy"] if "free_energy" in results else results["energy"]


def is_labelled(atoms: Atoms) -> bool:
    """Whether the structure has a label for `label_of`."""
    results = results_of(atoms)
    return "forces" in results and not {"energy", "free_energy"}.isdisjoint(results)


def label_of(atoms: Atoms) -> Label:
    """The label of a structure; its energy is that of `energy_in`.

    Raises:
        StructureError: it has none, was changed since it was computed, or its values are not numbers.
    """
    results = results_of(atoms)
    if not is_labelled(atoms):
        computed = getattr(atoms.calc, "results", {})
        why = ": it was moved or changed after it was computed" if computed and not results else ""
        raise StructureError(f"{atoms.get_chemical_formula()} has no label{why or ': energy and forces are needed'}")
    stress = results.get("stress")
    try:
        given = None if stress is None else np.asarray(stress, float)
        return Label(float(energy_in(results)), np.asarray(results["forces"], float), given)
    except (TypeError, ValueError):
        raise StructureError(f"the label of {atoms.get_chemical_formula()} has values that are not numbers") from None


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
    """The content hash of a structure: SHA-256 over exactly the data on which its label depends.

    These are species, positions, charge, spin, periodicity, periodic cell vectors, and initial charges and magnetic
    moments that are not all zero (they decide the spin order of a crystal's label). Momenta, names, tags and
    calculators do not count. Fixed atoms do not count either: a label has the forces on all atoms, so it is the same
    whether or not atoms are fixed.

    Raises:
        StructureError: charge or spin is not a whole number, or two of their names disagree.
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
    charges, moments = array_of(atoms, CHARGES), array_of(atoms, MOMENTS)
    for array in (atoms.positions, cell, *(known for known in (moments,) if known is not None)):
        hasher.update((np.ascontiguousarray(array, "<f8") + 0.0).tobytes() + b"|")  # + 0.0: no minus zero
    if charges is not None:
        hasher.update(b"charges" + (np.ascontiguousarray(charges, "<f8") + 0.0).tobytes())
    return hasher.hexdigest()


def moving_digest(atoms: Atoms) -> str:
    """The content hash including fixed atoms, if there are any: walkers from the structure depend on them."""
    fixed, key = np.flatnonzero(fixed_atoms(atoms)).tolist(), digest(atoms)
    return sha256([key, fixed]) if fixed else key


def to_plain(atoms: Atoms) -> Plain:
    """The structure as JSON data, exact to the last bit.

    Momenta, masses, fixed atoms, initial charges and magnetic moments other than zero, and a label are included if
    the structure has them. Charge and spin are renamed to ``charge`` and ``spin``.

    Raises:
        StructureError: charge or spin is not a whole number, or two of their names disagree.
    """
    plain: Plain = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": np.asarray(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
        "info": {
            **{key: _plain_value(value) for key, value in atoms.info.items() if _is_plain(value, key)},
            **electrons(atoms),
        },
    }
    fixed = fixed_atoms(atoms)
    if fixed.any():
        plain["fixed"] = np.flatnonzero(fixed).tolist()
    for name in KEPT_ARRAYS:
        if atoms.has(name):
            plain[name] = atoms.get_array(name).tolist()
    for name in ELECTRONIC:
        values = array_of(atoms, name)
        if values is not None:
            plain[name] = values.tolist()
    if is_labelled(atoms):
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
    for name in ELECTRONIC:
        if name in plain:
            atoms.set_array(name, np.array(plain[name], float))
    if "fixed" in plain:
        fix(atoms, plain["fixed"])
    return with_label(atoms, Label.from_plain(plain["label"])) if "label" in plain else atoms


def bare(atoms: Atoms) -> Atoms:
    """A copy with the data that decide its label, masses and fixed atoms; without momenta, label, names and tags."""
    plain = to_plain(atoms)
    for name in ("momenta", "label"):
        plain.pop(name, None)
    return from_plain(plain | {"info": electrons(atoms)})


def displaced(atoms: Atoms, amplitude: float, strain: float, random: np.random.Generator) -> Atoms:
    """A copy with each coordinate moved by up to ± ``amplitude`` [Å] and, if periodic, a strained cell.

    Each component of the symmetric strain is drawn uniformly from ± ``strain``. Fixed atoms do not move. The cell of a
    structure with fixed atoms does not change either, because a strain would move them.
    """
    moved, fixed = atoms.copy(), fixed_atoms(atoms)
    moved.positions += random.uniform(-amplitude, amplitude, (len(atoms), 3)) * ~fixed[:, None]
    if strain and atoms.pbc.any() and not fixed.any():
        components = np.triu(random.uniform(-strain, strain, (3, 3)))
        symmetric = components + np.triu(components, 1).T  # no rotation
        moved.set_cell(moved.cell @ (np.eye(3) + symmetric), scale_atoms=True)
    return moved


def species(structures: Iterable[Atoms]) -> list[str]:
    """The chemical symbols of the structures, ordered by atomic number."""
    numbers = sorted({int(z) for atoms in structures for z in atoms.numbers})
    return [chemical_symbols[z] for z in numbers]


def canonical(plain: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal data give equal bytes, in every process."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(plain: Any) -> str:
    """The SHA-256 of plain data."""
    return hashlib.sha256(canonical(plain)).hexdigest()


def _is_plain(value: Any, key: str) -> bool:
    """Whether an entry of ``info`` is kept as it is; names of charge and spin are handled by `electrons`."""
    if says_electrons(key):
        return False
    if isinstance(value, float | np.floating):
        return bool(np.isfinite(value))
    return isinstance(value, str | bool | int | np.integer | np.bool_)


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
