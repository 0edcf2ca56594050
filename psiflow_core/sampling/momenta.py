"""Momenta of walkers: those they set out with, and how many of them share the kinetic energy."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units

from psiflow_core.constraints import fixed_atoms
from psiflow_core.structures import Array


def first_momenta(structure: Atoms, temperature: float, random: np.random.Generator) -> Array:
    """The momenta with which a walker sets out, shape (atoms, 3). [ASE's units]

    They are the structure's own where any is not zero (files have columns of zeros), and drawn by `maxwell_boltzmann`
    otherwise. Fixed atoms have none.

    Args:
        temperature: of momenta that are drawn. [K]
    """
    own = structure.get_momenta() * ~fixed_atoms(structure)[:, None]
    return np.asarray(own) if own.any() else maxwell_boltzmann(structure, temperature, random)


def maxwell_boltzmann(structure: Atoms, temperature: float, random: np.random.Generator) -> Array:
    """Momenta drawn from the Maxwell-Boltzmann distribution, shape (atoms, 3). [ASE's units]

    Their kinetic energy is that of the temperature in the mean over draws, not in each. The centre of mass is at rest
    in a structure of several atoms, unless some are fixed, which hold it anyway. Fixed atoms have no momenta.

    Args:
        temperature: [K]
    """
    masses, fixed = structure.get_masses()[:, None], fixed_atoms(structure)
    momenta = random.standard_normal((len(structure), 3)) * np.sqrt(masses * units.kB * temperature)
    if fixed.any():
        momenta[fixed] = 0.0
    elif len(structure) > 1:
        momenta -= masses / masses.sum() * momenta.sum(axis=0)
    return np.asarray(momenta)


def degrees_of_freedom(structure: Atoms, drifts: bool) -> int:
    """How many momenta share the kinetic energy: three for each atom that is not fixed.

    Args:
        drifts: whether the sampler lets the centre of mass take part, as Langevin's thermostat does. Otherwise it is
            at rest, and three fewer share the energy; where atoms are fixed, they hold it, and none is lost.
    """
    fixed = int(fixed_atoms(structure).sum())
    at_rest = not drifts and not fixed and len(structure) > 1
    return 3 * (len(structure) - fixed) - 3 * at_rest
