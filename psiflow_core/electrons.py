"""The number of electrons of a structure and their spin, under any of the names in use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from psiflow_core.errors import StructureError

CHARGES = "initial_charges"
"""ASE's array of initial charges, shape (atoms,). [e]"""

MOMENTS = "initial_magmoms"
"""ASE's array of initial magnetic moments, shape (atoms,) or, not collinear, (atoms, 3). [μB]"""

NEARLY = 0.05
"""Sums of initial charges or moments are rounded to a whole number that is as near as this."""

LARGEST = 10**6
"""A charge or multiplicity beyond this is not a number of electrons."""

HELD = 4
"""The largest negative charge per atom: carbides have C⁴⁻, and no ion has more. [e]"""


@dataclass(frozen=True)
class Quantity:
    """The total charge, or the spin multiplicity."""

    key: str
    """Its name in ``info``."""
    default: int
    names: frozenset[str]
    """Other names for it, in small letters and without `_`."""
    arrays: tuple[str, ...]
    """Arrays with this sum."""


CHARGE = Quantity(
    "charge",
    0,
    frozenset({"charge", "totalcharge", "totcharge", "netcharge", "systemcharge", "molecularcharge", "formalcharge"}),
    (CHARGES, "formal_charges", "formal_charge"),
)
"""`total_charge` is MACE's name, `molecular_charge` QCSchema's, `tot_charge` Quantum ESPRESSO's."""

SPIN = Quantity(
    "spin",
    1,
    frozenset({"spin", "multiplicity", "spinmultiplicity", "totalspin", "molecularmultiplicity", "mult", "spinmult"}),
    (MOMENTS,),
)
"""2S+1 under each of these names: `total_spin` is MACE's (``mace.data``, default 1), `spin` that of OMol25."""

UNCLEAR = {
    "q": "if it is the charge, write info['charge']",
    "nelec": "write info['charge'], the protons minus the electrons",
    "nelectrons": "write info['charge'], the protons minus the electrons",
    "uhf": "it counts unpaired electrons: write info['spin'] = uhf + 1",
    "unpaired": "write info['spin'], the unpaired electrons plus 1",
    "unpairedelectrons": "write info['spin'], the unpaired electrons plus 1",
    "numunpaired": "write info['spin'], the unpaired electrons plus 1",
    "nunpaired": "write info['spin'], the unpaired electrons plus 1",
    "2s": "write info['spin'] = 2S + 1",
    "2s1": "write info['spin'] = 2S + 1",
    "nalpha": "write info['spin'], the unpaired electrons plus 1",
    "nbeta": "write info['spin'], the unpaired electrons plus 1",
    "totalmagnetization": "write info['spin'], the moment in μB plus 1",
    "totmagnetization": "write info['spin'], the moment in μB plus 1",
    "totalmagneticmoment": "write info['spin'], the moment in μB plus 1",
    "magneticmoment": "write info['spin'], the moment in μB plus 1",
    "initialcharges": "write atoms.set_initial_charges(…)",
    "initialcharge": "write atoms.set_initial_charges(…)",
    "initialmagmom": "write atoms.set_initial_magnetic_moments(…)",
    "initialmagmoms": "write atoms.set_initial_magnetic_moments(…)",
    "initialmagneticmoments": "write atoms.set_initial_magnetic_moments(…)",
    "spins": "write atoms.set_initial_magnetic_moments(…)",
}
"""Names with different meanings in different programs, or for related numbers, and the way out."""

ALLUDES = re.compile(r"charge|^chg|chg$|spin|multiplicit|magneti[sz]ation|magmom|magneticmoment|electrons|unpaired")
"""Parts of other names for the charge, spin or number of electrons, such as `charge_state` or `mol_spin`."""

SETTINGS = {"nspin", "ispin"}
"""Names for the spin channels of a calculation, which are not a multiplicity."""


def charge_of(atoms: Atoms) -> int:
    """The total charge; 0 if the structure does not give it. [e]

    It is ``info["charge"]``, or the value under another name of `CHARGE`, or the rounded sum of ASE's initial charges.
    `electronic_problem` checks that this sum is whole and agrees with a given number.

    Raises:
        StructureError: it is not a whole number, or two names have different values.
    """
    return _settled(atoms, CHARGE)


def spin_of(atoms: Atoms) -> int:
    """The spin multiplicity 2S+1; 1 if the structure does not give it.

    It is ``info["spin"]``, or the value under another name of `SPIN`, or, for a molecule, the size of the sum of ASE's
    initial magnetic moments plus 1. The moments of a crystal are its spin order; its reference decides the total.

    Raises:
        StructureError: it is not a whole number, or two names have different values.
    """
    return _settled(atoms, SPIN)


def electrons(atoms: Atoms) -> dict[str, int]:
    """Charge and spin multiplicity, each if the structure gives it, by their names in ``info``.

    Raises:
        StructureError: as `charge_of` and `spin_of`.
    """
    return {quantity.key: _settled(atoms, quantity) for quantity in (CHARGE, SPIN) if _has(atoms, quantity)}


def _has(atoms: Atoms, quantity: Quantity) -> bool:
    """Whether the structure gives this quantity, by a name or an array."""
    return bool(_given(atoms, quantity) or _sums(atoms, quantity))


def says_electrons(name: str) -> bool:
    """Whether this is a name of the charge or of the spin."""
    return any(_letters(name) in quantity.names for quantity in (CHARGE, SPIN))


def array_of(atoms: Atoms, name: str) -> NDArray[np.float64] | None:
    """Initial charges or moments, if any of them is not zero."""
    values = atoms.arrays.get(name)
    return None if values is None or not values.any() else np.asarray(values, float)


def electronic_problem(atoms: Atoms, labelled: bool = False) -> str | None:
    """Why no reference can compute a structure with this number of electrons or this spin; None if there is no problem.

    Args:
        atoms: the structure.
        labelled: it is not to be computed: then only unclear or contradictory numbers are a problem.
    """
    try:
        charge, spin = charge_of(atoms), spin_of(atoms)
        unclear = _contradiction(atoms, CHARGE) or _contradiction(atoms, SPIN) or _unclear(atoms)
    except StructureError as error:
        return str(error)
    if unclear or labelled:
        return unclear
    protons, most = int(atoms.numbers.sum()), HELD * len(atoms)
    if not -most <= charge < protons:
        return (
            f"its charge is {charge}, which leaves {protons - charge} electrons to {protons} protons; it can be "
            f"{-most} to {protons - 1}; set info['charge']"
        )
    counted = _has(atoms, SPIN) or not atoms.pbc.any()  # a crystal without a given spin: its reference decides it
    count = protons - charge
    if counted and not (1 <= spin <= count + 1 and (count + spin) % 2):
        kind = "an odd one" if count % 2 == 0 else "an even one"
        return (
            f"{count} electrons cannot have spin multiplicity {spin}, but {kind} up to {count + 1}; "
            "set info['spin'] (2S+1) and info['charge']"
        )
    return _contradicted_by_results(atoms)


def _settled(atoms: Atoms, quantity: Quantity) -> int:
    """The given number; without one, the sum of its array; without an array, its default."""
    given = _given(atoms, quantity)
    if len(set(given.values())) > 1:
        raise StructureError(_differ(quantity, given))
    sums = [total for total in _sums(atoms, quantity).values() if np.isfinite(total)]
    return next(iter(given.values()), round(sums[0]) if sums else quantity.default)


def _given(atoms: Atoms, quantity: Quantity) -> dict[str, int]:
    """The numbers given in ``info`` for this quantity, by their place."""
    return {
        f"info['{name}']": _whole(f"info['{name}']", value)
        for name, value in atoms.info.items()
        if _letters(name) in quantity.names
    }


def _sums(atoms: Atoms, quantity: Quantity) -> dict[str, float]:
    """The sums of arrays; for moments the size of their sum. A crystal's moments are an order, not a multiplicity."""
    if quantity is SPIN and atoms.pbc.any():
        return {}
    sums = {}
    for name in quantity.arrays:
        values = array_of(atoms, name)
        if values is not None:
            total = np.linalg.norm(values.sum(axis=0)) if quantity is SPIN else values.sum()
            sums[name] = float(total) + quantity.default  # no charge is 0, no moment is 1
    return sums


def _contradiction(atoms: Atoms, quantity: Quantity) -> str | None:
    """Why an array is inconsistent. Next to a given number, the array's sum is an estimate that must round to it."""
    number, given = _settled(atoms, quantity), _given(atoms, quantity)
    for name, total in _sums(atoms, quantity).items():
        if not given and abs(total - round(total)) > NEARLY:
            return f"its {name} do not add up to a whole number; correct them, or del atoms.arrays['{name}']"
        if abs(total - number) >= 0.5:
            return _differ(quantity, {**given, f"the sum of {name}": round(total, 2)})
    return None


def _differ(quantity: Quantity, given: Mapping[str, float]) -> str:
    values = ", ".join(f"{name} is {value:g}" for name, value in given.items())
    return f"it has several values for {quantity.key} that differ ({values}); keep the right one"


def _whole(name: str, value: Any) -> int:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not float(value).is_integer():
        raise StructureError(f"{name} is {value!r}, not a whole number; set it to a whole number")
    if abs(value) > LARGEST:
        raise StructureError(f"{name} is {value!r}, but no structure has so many electrons; set the right number")
    return int(value)


def _unclear(atoms: Atoms) -> str | None:
    """A number that may be the charge or spin, but is not clearly so."""
    for place, content in (("info", atoms.info), ("arrays", atoms.arrays)):
        for name, value in content.items():
            known = name in (CHARGES, MOMENTS) and place == "arrays"
            way = _way_out(_letters(name), value)
            if way and not known and not _is_zero(value) and not _agrees(atoms, _letters(name), value):
                return f"{place}['{name}'] may decide its label, but is not read; {way}, and remove it"
    return None


def _way_out(letters: str, value: Any) -> str | None:
    """The replacement for a number that may be the charge or spin; None if it is neither."""
    if letters in UNCLEAR:
        return UNCLEAR[letters]
    number = np.asarray(value)
    whole = number.size == 1 and number.dtype.kind in "iuf" and float(number.reshape(())).is_integer()
    if not whole or letters in CHARGE.names | SPIN.names | SETTINGS or not ALLUDES.search(letters):
        return None
    return "write info['charge'] if it is the charge, info['spin'] (2S+1) if it is the spin"


def _agrees(atoms: Atoms, letters: str, value: Any) -> bool:
    """Whether the number agrees with the known charge or spin of the structure."""
    if np.size(value) != 1 or np.asarray(value).dtype.kind not in "iuf":
        return False
    if "unpaired" in letters or "magn" in letters or "magmom" in letters or letters == "uhf":
        known = spin_of(atoms) - 1
    elif "spin" in letters or "multiplicit" in letters or letters == "2s1":
        known = spin_of(atoms)
    elif letters.startswith(("nelec", "numelec", "electrons", "numberofelec")):
        known = int(atoms.numbers.sum()) - charge_of(atoms)
    else:
        known = charge_of(atoms)
    return bool(np.all(np.asarray(value) == known)) and letters not in ("q", "nalpha", "nbeta")


def _contradicted_by_results(atoms: Atoms) -> str | None:
    """Whether the structure's own calculation had another charge or, for a molecule, another spin."""
    results = getattr(atoms.calc, "results", {})
    charge = charge_of(atoms)
    computed = float(np.sum(results.get("charges", charge)))
    if np.isfinite(computed) and abs(computed - round(computed)) < NEARLY and round(computed) != charge:
        return (
            f"its charge is {charge}, but the charges in its calculator's results add up to {computed:.2f}; "
            "set info['charge'], or remove them"
        )
    unpaired = spin_of(atoms) - 1
    moment = float(np.linalg.norm(np.asarray(results.get("magmom", unpaired), float)))
    if not atoms.pbc.any() and abs(moment - unpaired) >= 0.5:
        return (
            f"its spin multiplicity is {unpaired + 1}, but the magnetic moment in its calculator's results is "
            f"{moment:.2f} μB; set info['spin'] (2S+1)"
        )
    return None


def _is_zero(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "iuf" and not np.any(value)


def _letters(name: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())
