"""What a user gives a campaign: structures in every way in which they may be given, and labels that can be believed."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms, units

from psiflow_core.checks import check, shortest_period
from psiflow_core.errors import CampaignError, StructureError
from psiflow_core.foreign_labels import labelled, same_label
from psiflow_core.reading import read
from psiflow_core.structures import Label, charge_of, digest, label_of
from psiflow_core.tasks import trustworthy

Structures: TypeAlias = Atoms | Sequence[Atoms | str | Path] | str | Path

ALONE = 6.0
"""An atom is free if its images are farther away: no crystal of one atom has so long a shortest period
(caesium, 5.2 Å). [Å]"""

HIGHEST_STRESS = 500 * units.GPa
"""Nothing that is worth a label is under more: at the centre of the Earth it is 364 GPa. [eV/Å³]"""

STRONGEST_BINDING = 12.0
"""No structure lies farther below its free atoms: tungsten, the most strongly bound element, lies 8.9 eV (Kittel),
and local functionals bind by up to a fifth more. Nor is there a reason to learn what lies, in the median, as far
above them. [eV/atom]"""

SAME_ATOM = 0.1
"""A free atom of the reference and one of the data agree to this: another spin or another basis makes more. [eV]"""


OTHER_ZERO = (
    "give data of this reference, or the reference of these data, or shift their energies, for each atom of an element "
    "by the same number; labels that were computed are kept"
)


def structures(given: Structures, what: str) -> list[Atoms]:
    """Structures from what a user may give for them, checked; those of `data` carry one label each, others none.

    Raises:
        StructureError: it is none of it, a file cannot be read, a structure is unsound, or it is not clear which
            label of the data is meant.
    """
    found: list[Atoms] = []
    for where, some in _parts(given, what):
        check(some, where, labelled=what == "data")
        found += [labelled(one, f"{where} {n}") if what == "data" else one.copy() for n, one in enumerate(some)]
    if not found and what == "start":
        check(found, f"{what} structure")
    return found


def is_free_atom(structure: Atoms) -> bool:
    """Whether it is one atom far from its images, or said to be: MACE and GAP have ``config_type=IsolatedAtom``."""
    said = str(structure.info.get("config_type", "")).replace("_", "").lower() == "isolatedatom"
    return len(structure) == 1 and (said or shortest_period(structure) > ALONE)


def check_data(data: Sequence[Atoms], highest_force: float) -> None:
    """Refuse labels that nothing can be learned from.

    Args:
        highest_force: walkers are stopped at it. [eV/Å]

    Raises:
        StructureError: the first one, with its numbers.
    """
    seen: dict[str, tuple[int, Label]] = {}
    for number, structure in enumerate(data):
        label = label_of(structure)
        where = f"data {number} ({structure.get_chemical_formula()})"
        if not trustworthy(label, structure):
            raise StructureError(f"{where}: its energy, forces or stress are not finite, or not of its shape")
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
    """Refuse data whose zero of energy is not that of the reference's free atoms.

    Args:
        data: labelled structures, free atoms among them.
        atomic_energies: of the reference's free atoms, by symbol. [eV]

    Raises:
        CampaignError: with the numbers, and the way out.
    """
    for number, structure in enumerate(data):
        if is_free_atom(structure) and not charge_of(structure):
            symbol = structure.get_chemical_formula()
            given, own = label_of(structure).energy, atomic_energies[symbol]
            if abs(given - own) > SAME_ATOM:
                raise CampaignError(
                    f"data {number}: the free {symbol} atom of the data has {given:.3f} eV, that of the reference "
                    f"{own:.3f} eV: the data are of another level of theory, basis or spin; {OTHER_ZERO}"
                )
    bindings = [_binding(one, atomic_energies) for one in data if not is_free_atom(one)]
    if not bindings:
        return
    lowest, middle = int(np.argmin(bindings)), float(np.median(bindings))
    if bindings[lowest] < -STRONGEST_BINDING or middle > STRONGEST_BINDING:
        raise CampaignError(
            f"the data have another zero of energy: they lie {_side(middle)} the free atoms of the reference, and at "
            f"the lowest {_side(bindings[lowest])} them, where no compound is bound by more than {STRONGEST_BINDING:g} "
            f"eV/atom; {OTHER_ZERO}"
        )


def _parts(given: Any, what: str) -> Iterable[tuple[str, list[Atoms]]]:
    """Structures that came together, and where from."""
    if isinstance(given, str | Path):
        yield str(given), read(given)
        return
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
            yield str(one), read(one)


def _not_structures(given: object, what: str) -> StructureError:
    form = "an ASE Atoms, the path of a file, or a list of these"
    return StructureError(f"{what}: {reprlib.repr(given)} holds no structure; give {form}")


def _wild(label: Label, highest_force: float) -> str | None:
    """What no sound calculation of a structure worth learning gives."""
    forces = np.linalg.norm(label.forces, axis=1)
    atom = int(np.argmax(forces))
    if forces[atom] > highest_force:
        return (
            f"the force on atom {atom} is {forces[atom]:.4g} eV/Å, and walkers are stopped at {highest_force:g} "
            "(walking.limits.force); leave the structure out, or raise the limit"
        )
    stress = 0.0 if label.stress is None else float(np.abs(label.stress).max())
    if stress > HIGHEST_STRESS:
        return (
            f"its stress is {stress:.4g} eV/Å³, {stress / units.GPa:.0f} GPa, and nothing above "
            f"{HIGHEST_STRESS / units.GPa:.0f} GPa is learned: is it in kbar or GPa? 1 GPa is 0.006242 eV/Å³"
        )
    return None


def _binding(structure: Atoms, atomic_energies: dict[str, float]) -> float:
    """Energy against free atoms, negative where it is bound; a charge is worth one atom's more. [eV/atom]"""
    free = sum(atomic_energies[symbol] for symbol in structure.symbols)
    return (label_of(structure).energy - free) / (len(structure) + abs(charge_of(structure)))


def _side(binding: float) -> str:
    return f"{abs(binding):.1f} eV/atom {'below' if binding < 0 else 'above'}"
