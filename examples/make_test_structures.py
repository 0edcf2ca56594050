"""How `acetaldehyde_test.xyz` was made: a GFN2-xTB trajectory at 800 K, independent of anything psiflow learns.

pip install tblite; python examples/make_test_structures.py
"""

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from tblite.ase import TBLite

FOLDER = Path(__file__).parent
STRUCTURES = 30
EVERY = 200
"""Steps of 0.5 fs between two structures, ten times as many before the first."""

atoms = ase.io.read(FOLDER / "acetaldehyde.xyz")
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
random = np.random.default_rng(2718)
MaxwellBoltzmannDistribution(atoms, temperature_K=800, rng=random)
dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=800, friction=0.01 / units.fs, rng=random)
dynamics.run(10 * EVERY)
frames = []
for _ in range(STRUCTURES):
    dynamics.run(EVERY)
    frames.append(Atoms(atoms.numbers, atoms.positions))
ase.io.write(FOLDER / "acetaldehyde_test.xyz", frames, format="extxyz", comment="GFN2-xTB at 800 K, 100 fs apart")
