"""Silicon: equation of state, and relaxation at 0 and 10 GPa, by a learned potential compared with DFT.

Walkers move an 8-atom cell of free shape at 600 K and learn PBE from CP2K, with stress. Seven perfect crystals are
labelled but not trained on: they give the equation of state of the reference. Then a distorted crystal is relaxed with
the potential alone, and DFT computes the remaining forces and stress.

Needs CP2K: thirty labels of about 12 s of processor time each, and three trainings.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.eos import EquationOfState, birchmurnaghan
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import brentq

import psiflow_core as psiflow

FOLDER = Path("campaigns/silicon")
RELAXED = Path("campaigns/silicon-relaxed")
"""The folder of the relaxations after the campaign."""
EDGES = np.linspace(5.25, 5.67, 7)
"""Lattice constants of the crystals for the equation of state. [Å]"""
PRESSURES = (0.0, 10.0)
"""Pressures at which the distorted crystal is relaxed. [GPa]"""
GPA = 1e9 * units.Pascal

learning = psiflow.OnlineLearning(
    potential=psiflow.potential("mace", max_ell=2, energy_weight=1000.0, stress_weight=3e4),
    sampler=psiflow.sampler(
        "openmm", ensemble="npt", temperature=600.0, pressure=1.0, barostat="flexible", timestep=2.0
    ),
    reference=psiflow.reference(
        "cp2k",
        functional="pbe",
        dispersion=None,
        basis="DZVP-MOLOPT-SR-GTH",
        kpoints=(4, 4, 4),  # 5 × 5 × 5 changes the energy by 1 meV/atom
        cutoff=200.0,
        rel_cutoff=30.0,  # 60 changes forces by 0.4 meV/Å, at 1.4 times the cost
        eps_default=1e-10,
        eps_scf=1e-5,
    ),
    walkers=4,
    committee=2,
    budget=psiflow.Budget(labels=20),
    bootstrap=psiflow.Bootstrap(structures=12, amplitude=0.12, strain=0.02),
    walking=psiflow.Walking(segment=psiflow.Segments(steps=200)),
    training=psiflow.Training(steps=300, warm_steps=150, final_steps=500),
)


@dataclass(frozen=True)
class EOS:
    """Birch and Murnaghan's equation of state (third order) of the 8-atom cell."""

    volumes: NDArray[np.float64]
    """[Å³]"""
    energies: NDArray[np.float64]
    """[eV]"""

    @cached_property
    def parameters(self) -> tuple[float, float, float, float]:
        """Energy [eV], bulk modulus [eV/Å³] and its pressure derivative at the minimum, and the volume there [Å³]."""
        fit = EquationOfState(self.volumes, self.energies, "birchmurnaghan")
        fit.fit()
        return tuple(float(one) for one in fit.eos_parameters)

    @property
    def bulk_modulus(self) -> float:
        """[GPa]"""
        return self.parameters[1] / GPA

    def pressure(self, volume: float) -> float:
        """Birch, Phys. Rev. 71, 809 (1947). [GPa]"""
        _, modulus, slope, minimum = self.parameters
        x = (minimum / volume) ** (1 / 3)
        return 1.5 * modulus * (x**7 - x**5) * (1 + 0.75 * (slope - 4) * (x**2 - 1)) / GPA

    def edge(self, pressure: float = 0.0) -> float:
        """Lattice constant at a pressure in GPa. [Å]"""
        volume = brentq(lambda v: self.pressure(v) - pressure, 0.8 * self.parameters[3], 1.2 * self.parameters[3])
        return float(volume ** (1 / 3))


def main() -> None:
    crystals = [bulk("Si", cubic=True, a=edge) for edge in EDGES]
    starts = [bulk("Si", cubic=True, a=edge) for edge in (5.25, 5.40, 5.50, 5.65)]
    with psiflow.Context(folder=RELAXED, labels=FOLDER / "labels") as context:
        result = learning.run(start=starts, folder=FOLDER, test=crystals, context=context)
        print(result)
        labelled = context.label(crystals, learning.reference).result()  # the campaign's own labels
        volumes = np.array([atoms.get_volume() for atoms in labelled])
        dft = EOS(volumes, labelled.energies)
        learned = EOS(volumes, np.array([one.energy for one in result.potential.predict(list(labelled))]))
        compare(dft, learned)
        for pressure in PRESSURES:
            relaxed = context.relax(
                result.potential, distorted(), cell=True, pressure=1e4 * pressure, fmax=1e-3, tolerate=0
            )
            (crystal,) = context.label(relaxed, learning.reference, tolerate=0).result()
            if not relaxed.result()[0].converged:
                raise SystemExit(f"the relaxation at {pressure:g} GPa has not converged")
            show(crystal, dft.edge(pressure), pressure)
    print(f"\n{draw(dft, learned)}")


def compare(dft: EOS, learned: EOS) -> None:
    """Print lattice constants, bulk moduli, and the error of the energies."""
    errors = 1e3 * (learned.energies - dft.energies) / 8
    print(f"\n{'equation of state':20}{'CP2K':>10}{'learned':>10}{'error':>10}")
    row = "{:20}{:10.3f}{:10.3f}{:+10.3f}  {:+.2f} %"
    for name, of in (("a0 [Å]", EOS.edge), ("B0 [GPa]", lambda eos: eos.bulk_modulus)):
        ours, theirs = of(learned), of(dft)
        print(row.format(name, theirs, ours, ours - theirs, 100 * (ours / theirs - 1)))
    print(f"E(V): mean absolute error {np.abs(errors).mean():.2f} meV/atom, {EDGES[0]:.2f} to {EDGES[-1]:.2f} Å")


def distorted() -> Atoms:
    """A strained crystal with displaced atoms."""
    atoms = bulk("Si", cubic=True, a=5.40)
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.02 * np.array([[1, 1, 0], [1, -1, 1], [0, 1, 0]])), scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def show(atoms: Atoms, wanted: float, pressure: float) -> None:
    """Print the lattice of a relaxed crystal next to the reference's, and the remaining forces and stress by DFT."""
    edge = atoms.get_volume() ** (1 / 3)
    shape = np.abs(np.array(atoms.cell.angles()) - 90).max(), np.ptp(atoms.cell.lengths())
    stress = (atoms.get_stress() + pressure * GPA * np.array([1, 1, 1, 0, 0, 0])) / GPA
    print(f"\nrelaxed at {pressure:g} GPa with the learned potential")
    print(f"  a         {edge:.3f} Å, {wanted:.3f} by CP2K's equation of state: {100 * (edge / wanted - 1):+.2f} %")
    print(f"  shape     lengths within {shape[1]:.3f} Å, angles within {shape[0]:.2f}° of a cube")
    print(f"  CP2K says largest force {1e3 * np.linalg.norm(atoms.get_forces(), axis=1).max():.1f} meV/Å")
    print(f"            stress off the pressure by at most {np.abs(stress).max():.2f} GPa")


def draw(dft: EOS, learned: EOS) -> Path:
    """Both equations of state, per atom; returns the picture's file."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    grid = np.linspace(dft.volumes[0], dft.volumes[-1], 200)
    zero = dft.parameters[0]
    for eos, name, style in ((dft, "CP2K, PBE", "C0o"), (learned, "learned", "C1x")):
        fit = (birchmurnaghan(grid, *eos.parameters) - zero) / 8
        said = f"{name}: a₀ = {eos.edge():.3f} Å, B₀ = {eos.bulk_modulus:.1f} GPa"
        axes.plot(eos.volumes / 8, (eos.energies - zero) / 8, style, label=said)
        axes.plot(grid / 8, fit, style[:2], lw=1)
    axes.set(xlabel="volume [Å³/atom]", ylabel="energy [eV/atom]", title="Silicon: Birch-Murnaghan equation of state")
    axes.legend()
    file = FOLDER / "equation_of_state.png"
    figure.savefig(file, dpi=150)
    return file


if __name__ == "__main__":
    main()
