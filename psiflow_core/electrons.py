"""How many electrons a structure has and how their spins are paired: under whatever name it says so."""

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
"""Initial charges or moments whose sum is as near as this to a whole number have it for their sum: they are rounded."""

LARGEST = 10**6
"""A charge or multiplicity beyond this is no number of electrons."""

HELD = 4
"""Electrons that an atom can hold beyond its own: carbides have C⁴⁻, and nothing has more."""


@dataclass(frozen=True)
class Quantity:
    """The total charge, or the spin multiplicity."""

    key: str
    """Its name in ``info``."""
    default: int
    names: frozenset[str]
    """Names for the same number, in small letters and without `_`."""
    arrays: tuple[str, ...]
    """Arrays whose sum says it."""


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
"""Names that different programs give different meanings, or that say it in other units, and the way out."""

ALLUDES = re.compile(r"charge|^chg|chg$|spin|multiplicit|magneti[sz]ation|magmom|magneticmoment|electrons|unpaired")
"""What is in every other name of the charge, the spin or the number of electrons, as in `charge_state`, `mol_spin`."""

SETTINGS = {"nspin", "ispin"}
"""Spin channels of a calculation: no multiplicity."""


def charge_of(atoms: Atoms) -> int:
    """The total charge, 0 where nothing is said of it. [e]

    It is ``info["charge"]``, the same under a name of `CHARGE`, or the sum of ASE's initial charges, rounded; whether
    that is whole, and fits to what is told, is `electronic_problem`'s to say.

    Raises:
        StructureError: it is not a whole number, or two names say different ones.
    """
    return _settled(atoms, CHARGE)


def spin_of(atoms: Atoms) -> int:
    """The spin multiplicity 2S+1, 1 where nothing is said of it.

    It is ``info["spin"]``, the same under a name of `SPIN`, or, of a molecule, the size of the sum of ASE's initial
    magnetic moments, plus 1. A crystal's moments say how its spins are ordered, and its reference settles the rest.

    Raises:
        StructureError: it is not a whole number, or two names say different ones.
    """
    return _settled(atoms, SPIN)


def electrons(atoms: Atoms) -> dict[str, int]:
    """Charge and spin multiplicity, each if the structure says anything of it, under the names of ``info``.

    Raises:
        StructureError: as `charge_of` and `spin_of`.
    """
    return {quantity.key: _settled(atoms, quantity) for quantity in (CHARGE, SPIN) if _says(atoms, quantity)}


def _says(atoms: Atoms, quantity: Quantity) -> bool:
    """Whether anything is said of it, by a name or an array."""
    return bool(_told(atoms, quantity) or _sums(atoms, quantity))


def says_electrons(name: str) -> bool:
    """Whether this is a name of the charge or of the spin."""
    return any(_letters(name) in quantity.names for quantity in (CHARGE, SPIN))


def array_of(atoms: Atoms, name: str) -> NDArray[np.float64] | None:
    """Initial charges or moments if any is not zero."""
    values = atoms.arrays.get(name)
    return None if values is None or not values.any() else np.asarray(values, float)


def electronic_problem(atoms: Atoms, labelled: bool = False) -> str | None:
    """Why no reference can compute this number of electrons, or this spin.

    Args:
        labelled: it need not be computed; then only what cannot be understood is a problem.
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
    counted = _says(atoms, SPIN) or not atoms.pbc.any()  # a crystal that says nothing: its reference settles it
    count = protons - charge
    if counted and not (1 <= spin <= count + 1 and (count + spin) % 2):
        kind = "an odd one" if count % 2 == 0 else "an even one"
        return (
            f"{count} electrons cannot have spin multiplicity {spin}, but {kind} up to {count + 1}; "
            "set info['spin'] (2S+1) and info['charge']"
        )
    return _found_otherwise(atoms)


def _settled(atoms: Atoms, quantity: Quantity) -> int:
    """The number that is told; else the one that its arrays add up to."""
    told = _told(atoms, quantity)
    if len(set(told.values())) > 1:
        raise StructureError(_differ(quantity, told))
    sums = [total for total in _sums(atoms, quantity).values() if np.isfinite(total)]
    return next(iter(told.values()), round(sums[0]) if sums else quantity.default)


def _told(atoms: Atoms, quantity: Quantity) -> dict[str, int]:
    """What is said of it in ``info``, by where it is said."""
    return {
        f"info['{name}']": _whole(f"info['{name}']", value)
        for name, value in atoms.info.items()
        if _letters(name) in quantity.names
    }


def _sums(atoms: Atoms, quantity: Quantity) -> dict[str, float]:
    """What arrays add up to; moments by the size of their sum, and those of a crystal are an order, no multiplicity."""
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
    """Why an array cannot be meant so; beside a number that is told it is a guess, and has to round to it."""
    number, told = _settled(atoms, quantity), _told(atoms, quantity)
    for name, total in _sums(atoms, quantity).items():
        if not told and abs(total - round(total)) > NEARLY:
            return f"its {name} do not add up to a whole number; set ones that do, or del atoms.arrays['{name}']"
        if abs(total - number) >= 0.5:
            return _differ(quantity, {**told, f"the sum of {name}": round(total, 2)})
    return None


def _differ(quantity: Quantity, said: Mapping[str, float]) -> str:
    ways = ", ".join(f"{name} says {value:g}" for name, value in said.items())
    return f"its {quantity.key} is told in several ways that differ ({ways}); keep the right one"


def _whole(name: str, value: Any) -> int:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not float(value).is_integer():
        raise StructureError(f"{name} is {value!r}, not a whole number; set it to one")
    if abs(value) > LARGEST:
        raise StructureError(f"{name} is {value!r}, and no structure has so many electrons; set the right number")
    return int(value)


def _unclear(atoms: Atoms) -> str | None:
    """What may be charge or spin, and cannot be told to be."""
    for place, content in (("info", atoms.info), ("arrays", atoms.arrays)):
        for name, value in content.items():
            known = name in (CHARGES, MOMENTS) and place == "arrays"
            way = _way_out(_letters(name), value)
            if way and not known and not _is_zero(value) and not _agrees(atoms, _letters(name), value):
                return f"{place}['{name}'] may decide its label; {way}, and remove it: it is not read"
    return None


def _way_out(letters: str, value: Any) -> str | None:
    """What to write instead of a number that may be charge or spin; None if it is neither."""
    if letters in UNCLEAR:
        return UNCLEAR[letters]
    number = np.asarray(value)
    whole = number.size == 1 and number.dtype.kind in "iuf" and float(number.reshape(())).is_integer()
    if not whole or letters in CHARGE.names | SPIN.names | SETTINGS or not ALLUDES.search(letters):
        return None
    return "write info['charge'] if it is the charge, info['spin'] (2S+1) if it tells the spin"


def _agrees(atoms: Atoms, letters: str, value: Any) -> bool:
    """Whether it says once more what is known of the structure."""
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


def _found_otherwise(atoms: Atoms) -> str | None:
    """What the structure's own calculation found, if it was of another charge or, for a molecule, of another spin."""
    results = getattr(atoms.calc, "results", {})
    charge = charge_of(atoms)
    found = float(np.sum(results.get("charges", charge)))
    if np.isfinite(found) and abs(found - round(found)) < NEARLY and round(found) != charge:
        return (
            f"its charge is {charge}, and the charges that its calculation found add up to {found:.2f}; "
            "set info['charge'], or remove them"
        )
    unpaired = spin_of(atoms) - 1
    moment = float(np.linalg.norm(np.asarray(results.get("magmom", unpaired), float)))
    if not atoms.pbc.any() and abs(moment - unpaired) >= 0.5:
        return (
            f"its spin multiplicity is {unpaired + 1}, and its calculation found a magnetic moment of {moment:.2f} μB; "
            "set info['spin'] (2S+1)"
        )
    return None


def _is_zero(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "iuf" and not np.any(value)


def _letters(name: object) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())
