"""Makes `water.xyz` and `water_test.xyz`: random packings, heated with GFN1-xTB, independent of psiflow.

pip install tblite; python examples/make_water_structures.py
"""

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.optimize import FIRE
from scipy.spatial.transform import Rotation
from tblite.ase import TBLite

FOLDER = Path(__file__).parent
MOLECULES = 8
DENSITIES = (0.85, 0.92, 1.0, 1.08, 1.15)
"""Densities of the test structures, two structures each. [g/cm³]"""
STEPS = 60
"""Steps of 1 fs between two structures; twice as many before the first."""


def packed(density: float, random: np.random.Generator) -> Atoms:
    """Molecules in random orientations, with oxygens at least 2.5 Å apart."""
    grams = MOLECULES * molecule("H2O").get_masses().sum() / units.mol
    edge = (grams / density * 1e24) ** (1 / 3)
    box = Atoms(cell=[edge] * 3, pbc=True)
    while len(box) < 3 * MOLECULES:
        place = random.uniform(0, edge, 3)
        oxygens = Atoms(f"O{len(box) // 3 + 1}", [*box.positions[::3], place], cell=box.cell, pbc=True)
        if len(oxygens) == 1 or oxygens.get_distances(-1, range(len(oxygens) - 1), mic=True).min() > 2.5:
            one = molecule("H2O")
            one.positions = place + Rotation.random(random_state=random).apply(one.positions - one.positions[0])
            box += one
    return box


def heated(density: float, temperature: float, count: int, seed: int) -> list[Atoms]:
    """Structures from one trajectory."""
    random = np.random.default_rng(seed)
    atoms = packed(density, random)
    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    FIRE(atoms, logfile=None).run(fmax=0.5, steps=20)
    dynamics = Langevin(atoms, units.fs, temperature_K=temperature, friction=0.05 / units.fs, fixcm=False, rng=random)
    dynamics.run(STEPS)
    frames = []
    for _ in range(count):
        dynamics.run(STEPS)
        frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))
    return frames


ase.io.write(FOLDER / "water.xyz", heated(1.0, 300, 1, seed=0), format="extxyz")
tests = [frame for seed, density in enumerate(DENSITIES, 1) for frame in heated(density, 400, 2, seed)]
ase.io.write(FOLDER / "water_test.xyz", tests, format="extxyz")
