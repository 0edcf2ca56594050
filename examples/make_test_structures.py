"""Makes `acetaldehyde_test.xyz`: a GFN2-xTB trajectory at 800 K, independent of psiflow.

pip install tblite; python examples/make_test_structures.py
"""

from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.optimize import BFGS
from tblite.ase import TBLite

FOLDER = Path(__file__).parent
KELVIN = 800
STRUCTURES = 30
EVERY = 400
"""Steps of 0.5 fs between two structures; ten times as many before the first."""

atoms = ase.io.read(FOLDER / "acetaldehyde.xyz")
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
BFGS(atoms, logfile=None).run(fmax=0.005)
lowest = atoms.get_potential_energy()
random = np.random.default_rng(2718)
atoms.set_momenta(random.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses()[:, None] * units.kB * KELVIN))
# ASE's `Langevin` holds the centre of mass by default, which is not canonical for so few atoms: hydrogen gets too hot.
dynamics = LangevinBAOAB(atoms, 0.5 * units.fs, temperature_K=KELVIN, T_tau=100 * units.fs, rng=random)
dynamics.run(10 * EVERY)
frames, temperatures, energies = [], [], []
for step in range(STRUCTURES * EVERY):
    dynamics.run(1)
    temperatures.append(2 * atoms.get_kinetic_energy() / (3 * len(atoms) * units.kB))
    energies.append(atoms.get_potential_energy() - lowest)
    if (step + 1) % EVERY == 0:
        frames.append(Atoms(atoms.numbers, atoms.positions))
ase.io.write(FOLDER / "acetaldehyde_test.xyz", frames, format="extxyz", comment="GFN2-xTB at 800 K, 200 fs apart")


def mean(values: list[float]) -> str:
    """The mean with its standard error, from means over twentieths of the trajectory."""
    blocks = np.mean(np.reshape(values, (20, -1)), axis=1)
    return f"{np.mean(blocks):.4g} ± {np.std(blocks, ddof=1) / np.sqrt(20):.2g}"


print(f"temperature {mean(temperatures)} K, should be {KELVIN}")
harmonic = (3 * len(atoms) - 6) / 2 * units.kB * KELVIN
print(f"potential energy above the minimum {mean(energies)} eV, of a harmonic molecule {harmonic:.3f}")
