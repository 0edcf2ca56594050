"""Passes the charge and the spin of a structure to an ASE calculator.

Each code has its own way: parameters by several names, initial charges and magnetic moments of the atoms, or ``info``.
The calculator gets a structure with all of these set on the atoms, and known parameters are set as well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import ground_state_magnetic_moments

from psiflow_core.electrons import MOMENTS, charge_of, electrons, spin_of
from psiflow_core.errors import StructureError
from psiflow_core.structures import Array

CHARGE, SPIN = "charge", "spin"
MULTIPLICITY = ("multiplicity", "mult")
"""Names of a parameter that is 2S+1, in ASE's calculators and in tblite."""
GRAIN = 2.0**-20
"""Moments are multiples of this, so that their sum is an exact integer: some calculators truncate it. [μB]"""


class Way(NamedTuple):
    """The charge and spin settings of a calculator that does not declare its parameters."""

    charge: str | None = None
    """The parameter for the total charge; None if there is none."""
    multiplicity: str | None = None
    """The parameter for 2S+1; None if the program takes the initial magnetic moments."""
    open_shell: tuple[tuple[str, Any], ...] = ()
    """Additional parameters for a multiplicity other than 1."""
    deaf: bool = False
    """Whether it accepts the spin in neither way."""
    sums_charges: bool = False
    """Whether it takes the charge from initial charges."""


WAYS = {
    "Abinit": Way("charge"),
    "Aims": Way("charge", open_shell=(("spin", "collinear"),)),
    "Castep": Way("charge"),
    "CP2K": Way("charge", "multiplicity", (("uks", True),)),
    "Dftb": Way("Hamiltonian_Charge", deaf=True),
    "Espresso": Way(),
    "GAMESSUS": Way(),
    "Gaussian": Way("charge", "mult"),
    "GPAW": Way("charge"),
    "MOPAC": Way("charge", sums_charges=True),
    "NWChem": Way("charge"),
    "Octopus": Way(deaf=True),
    "ORCA": Way("charge", "mult"),
    "Psi4": Way("charge", "multiplicity", (("reference", "uhf"),)),
    "QChem": Way("charge", "multiplicity"),
    "Siesta": Way(open_shell=(("spin", "collinear"),)),
    "Turbomole": Way("total charge", "multiplicity"),
    "Vasp": Way("charge"),
}
"""By the name of the class. Conventions as in ASE 3.29: each class's own documentation and the input it writes."""


def way_of(engine: Any, accepted: set[str]) -> Way:
    """The settings of a class, by its name or by its declared parameters."""
    if engine.__name__ in WAYS:
        return WAYS[engine.__name__]
    multiplicity = next((name for name in MULTIPLICITY if name in accepted), None)
    return Way(CHARGE if CHARGE in accepted else None, multiplicity)


def settings(way: Way, atoms: Atoms, given: dict[str, Any]) -> dict[str, Any]:
    """Parameters for a structure, in addition to the user's.

    Raises:
        StructureError: the user's parameters contradict the structure.
    """
    charge, spin = charge_of(atoms), spin_of(atoms)
    told = {name: value for name, value in ((way.charge, charge), (way.multiplicity, spin)) if name is not None}
    for name, value in told.items():
        if name in given and given[name] != value:
            raise StructureError(
                f"{atoms.get_chemical_formula()} has charge {charge} and spin multiplicity {spin}, but the option "
                f"parameters says {name}={given[name]!r}; leave {name} out there: it is each structure's own"
            )
    return {**told, **(dict(way.open_shell) if spin != 1 else {})}


def refuse_unheard(way: Way, atoms: Atoms, given: dict[str, Any], calculator: str) -> None:
    """Refuse a spin that cannot be passed to a program, unless the user's parameters set the spin.

    Raises:
        StructureError: the spin cannot be passed; the message states the remedy.
    """
    if way.deaf and spin_of(atoms) != 1 and not any("spin" in name.lower() for name in given):
        raise StructureError(
            f"{atoms.get_chemical_formula()} has spin multiplicity {spin_of(atoms)}, which calculator '{calculator}' "
            "is not told by ASE; set its own keywords for spin in parameters, or choose another reference"
        )


def listening(atoms: Atoms) -> tuple[Atoms, set[str]]:
    """A copy with charge and spin set in every way of ASE, and the set of the ways that the calculator used.

    The set grows as a calculator runs: by `charge` and `spin` when these are looked up in ``info``, or when it asks for
    initial charges and magnetic moments.
    """
    heard: set[str] = set()

    class Info(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            heard.add(key)
            return super().__getitem__(key)

        def get(self, key: str, default: Any = None) -> Any:
            heard.add(key)
            return super().get(key, default)

    class Listening(Atoms):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, Info(value) if name == "info" else value)

        def get_initial_charges(self) -> Array:
            heard.add(CHARGE)
            return np.asarray(super().get_initial_charges())

        def get_initial_magnetic_moments(self) -> Array:
            heard.add(SPIN)
            return np.asarray(super().get_initial_magnetic_moments())

    told = Listening(atoms.copy())
    told.info = {**atoms.info, CHARGE: charge_of(atoms), SPIN: spin_of(atoms)}
    if charge_of(atoms) and not atoms.has("initial_charges"):
        told.set_initial_charges([charge_of(atoms) / len(atoms)] * len(atoms))
    moments = with_moments(atoms)
    if moments is not None:
        told.set_initial_magnetic_moments(moments)
    heard.clear()
    return told, heard


def with_moments(atoms: Atoms) -> Array | None:
    """Initial magnetic moments for the multiplicity 2S+1: the structure's own, or 2S on the atoms with open shells.

    Their sum is exactly 2S, except in a crystal without a given multiplicity, where they alone define the spin.
    None for a singlet without moments. [μB]
    """
    unpaired = spin_of(atoms) - 1
    own = atoms.arrays.get(MOMENTS)
    if own is not None and np.asarray(own).any():
        settled = np.array(own, float)
        if settled.ndim == 1 and (SPIN in electrons(atoms) or not atoms.pbc.any()) and unpaired:
            settled = np.round(settled / GRAIN) * GRAIN
            settled *= np.sign(settled.sum()) or 1.0
            settled[np.argmax(abs(settled))] += unpaired - settled.sum()
        return settled
    if not unpaired:
        return None
    weights = _open_shells(atoms)
    moments: Array = np.floor(unpaired * weights / weights.sum() / GRAIN) * GRAIN
    moments[np.argmax(weights)] += unpaired - moments.sum()
    return moments


def _open_shells(atoms: Atoms) -> Array:
    """Unpaired electrons of the free atoms; only of those with open d and f shells, if there are any."""
    table = np.asarray(ground_state_magnetic_moments)
    numbers = np.minimum(atoms.numbers, len(table) - 1)
    free = np.nan_to_num(table[numbers])
    inner = np.isin(numbers, [*range(21, 30), *range(39, 48), *range(57, 80), *range(89, 113)])
    for weights in (np.where(inner, free, 0.0), free):
        if weights.any():
            return weights
    return np.ones(len(atoms))
