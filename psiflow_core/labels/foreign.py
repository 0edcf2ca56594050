"""Labels from other programs: the choice of the numbers in a structure that are its label.

Data sets hold energies and forces of several levels of theory, under names of their authors' choice. ASE's own names
(`energy` or `free_energy`, `forces`, `stress`) are read; other names must be given. Nothing is ignored silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from psiflow_core.errors import StructureError
from psiflow_core.labels.exact import OWN
from psiflow_core.structures import Array, Label, energy_in, results_of, with_label

SAME_ENERGY = 1e-4
"""Energies that differ by less are the same: codes converge to about 1e-5 eV. [eV]"""

SAME_FORCE = 1e-3
"""Forces that differ by less are the same. [eV/Å]"""

SAME_STRESS = 1e-4
"""Stresses that differ by less are the same. [eV/Å³]"""

WORDS = {
    "energy": {"energy", "energies", "etot", "toten", "e"},
    "forces": {"force", "forces", "gradient", "gradients", "grad"},  # a gradient is minus the forces
    "stress": {"stress", "stresses"},
    "virial": {"virial", "virials"},
}
"""Words in the name of a number that make it an energy, forces, a stress or a virial."""

OTHER_QUANTITIES = {
    *("kinetic", "formation", "atomization", "atomisation", "binding", "cohesive", "cohesion", "interaction", "hull"),
    *("adsorption", "reaction", "activation", "barrier", "dispersion", "correlation", "exchange", "per", "gap", "band"),
    *("fermi", "homo", "lumo", "zero", "zpe", "thermal", "correction", "error", "errors", "rmse", "mae", "std", "var"),
    *("variance", "deviation", "uncertainty", "weight", "weights", "cutoff", "unit", "units", "shift", "offset"),
    *("strain", "surface", "nuclear", "repulsion", "solvation", "ionization", "ionisation", "affinity", "excitation"),
    *("relative", "delta", "scale", "mean", "bias", "field", "max", "norm", "above", "atomic", "local", "constant"),
}
"""Words in a name that exclude a total energy and forces on atoms."""

NO_FORCE = np.zeros((1, 3))
"""The force on a single atom, free or in a crystal of its images: data sets give the energy alone. [eV/Å]"""

GRADIENT = {"gradient", "gradients", "grad"}
"""Words in a name that mean the gradient: minus the forces."""

PLAIN = ("energy", "free_energy", "forces", "stress")
"""ASE's names for the parts of a label."""


@dataclass(frozen=True)
class Names:
    """The names of a label's parts in a file."""

    energy: str
    forces: str
    stress: str | None = None
    virial: str | None = None
    """Minus stress times volume: the convention of extended XYZ, of QUIP and MACE. [eV]"""


def as_given(atoms: Atoms, where: str, names: Names | None = None) -> Atoms:
    """A copy with its label, or without one if nothing in it could be a label.

    Args:
        atoms: the structure.
        where: the beginning of an error; the formula follows.
        names: the names of the label; every structure must then have one.

    Raises:
        StructureError: it is unclear which numbers are the label, or a part of the label is missing.
    """
    if names is None and not _speaks_of_label(atoms):
        return atoms.copy()
    return labelled(atoms, where, names)


def labelled(atoms: Atoms, where: str, names: Names | None = None) -> Atoms:
    """A copy with one label, and without any other number that could be a label.

    Args:
        atoms: the structure.
        where: the beginning of an error; the formula follows.
        names: the names of the label; without them ASE's names, if no other number could be a label.

    Raises:
        StructureError: there is no label, or it is unclear which numbers are the label.
    """
    try:
        label = _chosen(atoms, names) if names else _only(atoms)
    except StructureError as error:
        raise StructureError(f"{where} ({atoms.get_chemical_formula()}): {error}") from None
    others = {name for kind in WORDS for name in _alike(atoms, kind)}
    alone = atoms.copy()
    for name in others:
        alone.info.pop(name, None)
        if name in alone.arrays:
            del alone.arrays[name]
    return with_label(alone, label)


def same_label(one: Label, other: Label) -> bool:
    """Whether two labels of a structure agree within the noise of a calculation."""
    if abs(one.energy - other.energy) > SAME_ENERGY or not _near(one.forces, other.forces, SAME_FORCE):
        return False
    if one.stress is None or other.stress is None:
        return one.stress is other.stress
    return _near(one.stress, other.stress, SAME_STRESS)


def _only(atoms: Atoms) -> Label:
    """The label under ASE's names, if no other number in the structure could be a label."""
    results = results_of(atoms)
    by_hand = not results and not _is_stale(atoms)
    written = {name: value for name, value in (_numbers(atoms) if by_hand else results).items() if name in PLAIN}
    if len(atoms) == 1:
        written.setdefault("forces", NO_FORCE)
    if "forces" not in written or {"energy", "free_energy"}.isdisjoint(written):
        raise StructureError(_unlabelled(atoms))
    energy, forces = _energy(energy_in(written), "energy"), _forces(written["forces"], atoms, "forces")
    for kind, value, tolerance in (("energy", energy, SAME_ENERGY), ("forces", forces, SAME_FORCE)):
        others = {name: other for name, other in _alike(atoms, kind).items() if not (by_hand and name in PLAIN)}
        rivals = [name for name, other in others.items() if not _near(value, other, tolerance)]
        if rivals:
            raise StructureError(
                f"it has {', '.join(rivals)} in addition to {kind}, and they differ; name the label: "
                f"{_way(atoms, rivals[0])}, or with energy='energy', forces='forces'"
            )
    return Label(energy, forces, _known_stress(atoms, written.get("stress")))


def _known_stress(atoms: Atoms, given: Any) -> Array | None:
    """The stress under ASE's name, or from the virial, if no other number contradicts it."""
    stress = None if given is None else _voigt(given, "stress")
    if not atoms.pbc.any():
        if stress is not None and stress.any():
            raise StructureError("it has a stress but is not periodic; set its pbc, or remove the stress")
        return None
    stresses = {name: _voigt(value, name) for name, value in _alike(atoms, "stress").items()}
    for name, value in _alike(atoms, "virial").items():
        stresses[name] = -_voigt(value, name) / _volume(atoms)
    if stress is None:
        plain = [name for name in stresses if name.lower() in WORDS["virial"]]
        stress = stresses[plain[0]] if plain else None
    for name, value in stresses.items():
        if stress is None or not _near(stress, value, SAME_STRESS):
            why = "which is not read" if stress is None else "which is neither its stress nor -volume times its stress"
            raise StructureError(f"it has {name}, {why}; name the label's stress or virial: {_way(atoms, name)}")
    return stress


def _chosen(atoms: Atoms, names: Names) -> Label:
    """The label under the given names."""
    numbers = _numbers(atoms)
    if len(atoms) == 1:
        numbers.setdefault(names.forces, NO_FORCE)
    wanted = [name for name in (names.energy, names.forces, names.stress, names.virial) if name is not None]
    missing = [name for name in wanted if name not in numbers]
    if missing:
        raise StructureError(f"it has no {', '.join(missing)}; {_present(atoms)}")
    if names.stress and names.virial:
        raise StructureError("stress and virial are the same quantity: name one of them")
    energy = _energy(numbers[names.energy], names.energy)
    forces = _forces(numbers[names.forces], atoms, names.forces)
    if names.stress:
        return Label(energy, forces, _voigt(numbers[names.stress], names.stress))
    if names.virial:
        return Label(energy, forces, -_voigt(numbers[names.virial], names.virial) / _volume(atoms))
    if atoms.pbc.any():
        _refuse_forgotten(atoms, names.energy)
    return Label(energy, forces)


def _refuse_forgotten(atoms: Atoms, energy: str) -> None:
    """Refuse to leave out a stress or virial of the energy's level of theory."""
    alike = [*_alike(atoms, "stress"), *_alike(atoms, "virial"), *({"stress"} & set(results_of(atoms)))]
    for name in alike:
        if _level(name) == _level(energy):
            kind = "virial" if WORDS["virial"] & set(_words(name)) else "stress"
            raise StructureError(f"it also has {name}: name it with {kind}='{name}', or remove it")


def _numbers(atoms: Atoms) -> dict[str, Any]:
    """All named numbers: the calculator's results, and the entries of info and arrays."""
    return {**atoms.arrays, **atoms.info, **results_of(atoms)}


def _alike(atoms: Atoms, kind: str) -> dict[str, Any]:
    """Other energies, forces, stresses or virials of the structure, by name; a gradient is turned into forces."""
    alike = {}
    for name, value in {**atoms.arrays, **atoms.info}.items():
        if str(name).startswith(OWN) or isinstance(value, bool | str):
            continue
        array = np.asarray(value)
        words = set(_words(str(name)))
        fits = {"energy": array.size == 1, "forces": array.shape == (len(atoms), 3)}.get(kind, array.size in (6, 9))
        if array.dtype.kind in "iuf" and fits and words & WORDS[kind] and not words & OTHER_QUANTITIES:
            sign = -1.0 if words & GRADIENT else 1.0
            alike[str(name)] = sign * (array.reshape(()) if kind == "energy" else array).astype(float)
    return alike


def _words(name: str) -> list[str]:
    """The words of a name, in small letters: of `REF_energy`, `energyDFT` or `dft-Energy`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def _level(name: str) -> frozenset[str]:
    """The words of a name without the quantity: usually the level of theory."""
    return frozenset(_words(name)).difference(*WORDS.values(), {"free", "total", "tot"})


def _way(atoms: Atoms, like: str) -> str:
    """The call that chooses a label, with names of the same level of theory."""
    same = {kind: [name for name in (*_alike(atoms, kind), kind) if _level(name) == _level(like)] for kind in WORDS}
    words = [f"{kind}='{same[kind][0]}'" if same[kind] else f"{kind}=…" for kind in ("energy", "forces")]
    given = next((kind for kind in ("stress", "virial") if set(_alike(atoms, kind)) & set(same[kind])), None)
    words += [f"{given}='{same[given][0]}'"] if given else []
    return f"psiflow.Dataset.load(path, {', '.join(words)})"


def _present(atoms: Atoms) -> str:
    names = sorted({*_numbers(atoms)} - {"numbers", "positions"}, key=str)
    return f"it has only {', '.join(map(str, names))}" if names else "it has only atoms"


def _unlabelled(atoms: Atoms) -> str:
    if _is_stale(atoms):
        return "it has no label: it was moved or changed after it was computed; compute it again, or leave it out"
    plain = {"energy", "forces"} & set(results_of(atoms))
    forces = [_level(name) for name in (*_alike(atoms, "forces"), *(plain - {"energy"}))]
    energies = [*_alike(atoms, "energy"), *(plain - {"forces"})]
    energies = [name for name in energies if _level(name) in forces]
    some = bool(energies or forces or _alike(atoms, "energy"))
    way = _way(atoms, energies[0]) if energies else "psiflow.Dataset.load(path, energy=…, forces=…)"
    choose = f"; if they are the label: {way}" if energies else f"; choose by name: {way}" if some else ""
    return f"it has no label: energy and forces are needed, but {_present(atoms)}{choose}"


def _speaks_of_label(atoms: Atoms) -> bool:
    """Whether any number in a structure may be its energy or forces."""
    computed = {"energy", "free_energy", "forces"} & set(results_of(atoms))
    return bool(computed) or _is_stale(atoms) or any(_alike(atoms, kind) for kind in ("energy", "forces"))


def _is_stale(atoms: Atoms) -> bool:
    return bool(getattr(atoms.calc, "results", {})) and not results_of(atoms)


def _energy(value: Any, name: str) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise StructureError(f"{name} is {value!r}, but an energy is one number [eV]")
    return float(array.reshape(()))


def _forces(value: Any, atoms: Atoms, name: str) -> Array:
    array = np.asarray(value)
    if GRADIENT & set(_words(name)):
        raise StructureError(
            f"{name} is named a gradient, but forces are minus the gradient; write them: "
            f"atoms.arrays['{name.lower().replace('gradient', 'force')}'] = -atoms.arrays['{name}']"
        )
    if array.shape != (len(atoms), 3) or array.dtype.kind not in "iuf":
        raise StructureError(f"{name} has shape {array.shape}, but forces have ({len(atoms)}, 3) [eV/Å]")
    return array.astype(float)


def _voigt(value: Any, name: str) -> Array:
    """Stress or virial as xx, yy, zz, yz, xz, xy."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.shape not in ((6,), (9,), (3, 3)):
        raise StructureError(f"{name} has shape {array.shape}, but a stress or virial has (6,), (9,) or (3, 3)")
    if array.shape == (6,):
        return array.astype(float)
    full = array.reshape(3, 3).astype(float)
    if not np.allclose(full, full.T, rtol=1e-3, atol=1e-3 * float(np.abs(full).max())):
        raise StructureError(f"{name} is not symmetric, but a stress or virial must be")
    return np.asarray(full_3x3_to_voigt_6_stress(full), float)


def _volume(atoms: Atoms) -> float:
    """The volume for the virial; the vacuum of a slab's cell counts, as in ASE's stress. [Å³]"""
    if not atoms.pbc.any() or atoms.cell.rank < 3:
        raise StructureError(
            "it has a virial but no volume: it is not periodic, or has no cell; set pbc and cell, or remove it"
        )
    return float(atoms.get_volume())


def _near(one: Any, other: Any, tolerance: float) -> bool:
    first, second = np.asarray(one), np.asarray(other)
    return first.shape == second.shape and bool(np.allclose(first, second, rtol=0, atol=tolerance, equal_nan=True))
