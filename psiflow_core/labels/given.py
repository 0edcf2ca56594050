"""Structures and labels that a user gives to a campaign: all forms of input, and checks of the labels."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms, units

from psiflow_core.checks import check, shortest_period
from psiflow_core.errors import CampaignError, StructureError
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.foreign import labelled, same_label
from psiflow_core.labels.reading import read
from psiflow_core.labels.store import trustworthy
from psiflow_core.structures import Label, charge_of, digest, label_of

Structures: TypeAlias = Dataset | Atoms | Sequence[Atoms | str | Path] | str | Path

ALONE = 6.0
"""An atom is free if its images are farther away than this. The longest shortest period of a crystal with one atom is
that of caesium, 5.2 Å. [Å]"""

HIGHEST_STRESS = 500 * units.GPa
"""The largest sensible stress: at the centre of the Earth it is 364 GPa. [eV/Å³]"""

STRONGEST_BINDING = 12.0
"""The largest binding energy of a structure: tungsten, the most strongly bound element, has 8.9 eV (Kittel), and
local functionals bind up to a fifth more strongly. Data whose median lies as far above the free atoms are refused,
too. [eV/atom]"""

SAME_ATOM = 0.1
"""Energies of a free atom by the same level of theory agree to this: another spin or basis differs by more. [eV]"""


OTHER_ZERO = (
    "give data of this reference, or the reference of these data, or shift the energies by a constant for each atom of "
    "an element; computed labels are kept"
)


def structures(given: Structures, what: str) -> list[Atoms]:
    """Checked structures from a user's input; those of `data` have one label each, all others none.

    Raises:
        StructureError: the input holds no structures, a file cannot be read, a structure is unsuitable, or it is
            unclear which numbers of the data are the label.
    """
    checked: list[Atoms] = []
    for where, some in _parts(given, what):
        check(some, where, labelled=what == "data", moving=what == "start")
        checked += [labelled(one, f"{where} {n}") if what == "data" else one.copy() for n, one in enumerate(some)]
    if not checked and what == "start":
        check(checked, f"{what} structure")
    return checked


def is_free_atom(structure: Atoms) -> bool:
    """Whether it is one atom far from its images, or marked so: MACE and GAP have ``config_type=IsolatedAtom``."""
    marked = str(structure.info.get("config_type", "")).replace("_", "").lower() == "isolatedatom"
    return len(structure) == 1 and (marked or shortest_period(structure) > ALONE)


def check_data(data: Sequence[Atoms], highest_force: float) -> None:
    """Refuse labels that are unsuitable for training.

    Args:
        data: labelled structures.
        highest_force: the force at which walkers are stopped. [eV/Å]

    Raises:
        StructureError: a label is unsuitable; the message gives its numbers.
    """
    seen: dict[str, tuple[int, Label]] = {}
    for number, structure in enumerate(data):
        label = label_of(structure)
        where = f"data {number} ({structure.get_chemical_formula()})"
        if not trustworthy(label, structure):
            raise StructureError(f"{where}: its energy, forces or stress are not finite, or have a wrong shape")
        problem = _wild(label, highest_force)
        if problem:
            raise StructureError(f"{where}: {problem}")
        first, other = seen.setdefault(digest(structure), (number, label))
        if not same_label(label, other):
            raise StructureError(
                f"{where}: data {first} is the same structure with other energy, forces or stress (energies "
                f"{other.energy:.6f} and {label.energy:.6f} eV); leave one of them out"
            )


def check_zero(data: Sequence[Atoms], atomic_energies: dict[str, float]) -> None:
    """Refuse data whose zero of energy differs from that of the reference's free atoms.

    Args:
        data: labelled structures, free atoms among them.
        atomic_energies: energies of the reference's free atoms, by symbol. [eV]

    Raises:
        CampaignError: they differ; the message has the numbers and the way out.
    """
    for number, structure in enumerate(data):
        if is_free_atom(structure) and not charge_of(structure):
            symbol = structure.get_chemical_formula()
            given, own = label_of(structure).energy, atomic_energies[symbol]
            if abs(given - own) > SAME_ATOM:
                raise CampaignError(
                    f"data {number}: the free {symbol} atom has {given:.3f} eV in the data and {own:.3f} eV with the "
                    f"reference: the data are of another level of theory, basis or spin; {OTHER_ZERO}"
                )
    bindings = [_binding(one, atomic_energies) for one in data if not is_free_atom(one)]
    if not bindings:
        return
    lowest, middle = int(np.argmin(bindings)), float(np.median(bindings))
    if bindings[lowest] < -STRONGEST_BINDING or middle > STRONGEST_BINDING:
        raise CampaignError(
            f"the data have another zero of energy: their median lies {_side(middle)} the free atoms of the reference, "
            f"and their lowest {_side(bindings[lowest])} them, but no compound is bound by more than "
            f"{STRONGEST_BINDING:g} eV/atom; {OTHER_ZERO}"
        )


def _parts(given: Any, what: str) -> Iterable[tuple[str, list[Atoms]]]:
    """Structures grouped by their source, with its name."""
    if isinstance(given, str | Path):
        yield str(given), _file(given, what)
        return
    if isinstance(given, Dataset) and what == "data":
        _refuse_unlabelled(given)
    if isinstance(given, Atoms):
        yield f"{what} structure", [given]
        return
    if not isinstance(given, Iterable) or isinstance(given, dict | bytes):
        raise _not_structures(given, what)
    several = list(given)
    for one in several:
        if not isinstance(one, Atoms | str | Path):
            raise _not_structures(one, what)
    atoms = [one for one in several if isinstance(one, Atoms)]
    if len(atoms) == len(several):
        yield from [(f"{what} structure", atoms)] if atoms else []
        return
    for number, one in enumerate(several):
        if isinstance(one, Atoms):
            yield f"{what} structure {number}, structure", [one]
        else:
            yield str(one), _file(one, what)


def _file(path: str | Path, what: str) -> list[Atoms]:
    return list(Dataset.load(path)) if what == "data" else read(path)


def _refuse_unlabelled(data: Dataset) -> None:
    missing = len(data.unlabelled)
    if missing:
        raise StructureError(f"data: {missing} of {len(data)} structures have no label; give data.labelled")


def _not_structures(given: object, what: str) -> StructureError:
    form = "an ASE Atoms, a Dataset, the path of a file, or a list of structures and paths"
    return StructureError(f"{what}: {reprlib.repr(given)} holds no structure; give {form}")


def _wild(label: Label, highest_force: float) -> str | None:
    """Why a label is too extreme to learn from; None if it is not."""
    forces = np.linalg.norm(label.forces, axis=1)
    atom = int(np.argmax(forces))
    if forces[atom] > highest_force:
        return (
            f"the force on atom {atom} is {forces[atom]:.4g} eV/Å, but walkers are stopped at {highest_force:g} eV/Å "
            "(walking.limits.force); leave the structure out, or raise the limit"
        )
    stress = 0.0 if label.stress is None else float(np.abs(label.stress).max())
    if stress > HIGHEST_STRESS:
        return (
            f"its stress is {stress:.4g} eV/Å³, {stress / units.GPa:.0f} GPa, but at most "
            f"{HIGHEST_STRESS / units.GPa:.0f} GPa is accepted: is it in kbar or GPa? 1 GPa is 0.006242 eV/Å³"
        )
    return None


def _binding(structure: Atoms, atomic_energies: dict[str, float]) -> float:
    """Energy relative to free atoms, negative if bound; each unit of charge counts as one more atom. [eV/atom]"""
    free = sum(atomic_energies[symbol] for symbol in structure.symbols)
    return (label_of(structure).energy - free) / (len(structure) + abs(charge_of(structure)))


def _side(binding: float) -> str:
    return f"{abs(binding):.1f} eV/atom {'below' if binding < 0 else 'above'}"
