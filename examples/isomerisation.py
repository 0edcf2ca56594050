"""HCN becomes HNC: walkers are pushed over a barrier that they would never cross by themselves.

The hydrogen moves from the carbon to the nitrogen. Incremental learning pushes walkers along the difference of its two
distances, a step further with every segment, and labels structures that the committee does not know. Then the energy
profile of the learned potential, from well to well, is compared with the reference's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.vibrations import Vibrations
from numpy.typing import NDArray
from scipy.optimize import minimize

import psiflow_core as psiflow

Array = NDArray[np.float64]

START = molecule("HCN")
CARBON, NITROGEN, HYDROGEN = 0, 1, 2
TRANSFER = psiflow.Combination(
    variables=(psiflow.Distance(atoms=(CARBON, HYDROGEN)), psiflow.Distance(atoms=(NITROGEN, HYDROGEN))),
    coefficients=(1.0, -1.0),
)
"""Progress of the hydrogen: −1.2 Å in HCN, 1.2 Å in HNC."""


def learning(reference: psiflow.Spec, labels: int = 90) -> psiflow.OnlineLearning:
    """The campaign."""
    return psiflow.OnlineLearning(
        potential=psiflow.potential("mace", r_max=4.0, max_ell=2),
        sampler=psiflow.sampler("openmm", ensemble="nvt", temperature=300.0, friction=50.0),
        reference=reference,
        walkers=3,  # more would ask for nearly the same labels at each step
        committee=2,
        schedule="sequential",  # no walker returns to structures that the next model will know
        budget=psiflow.Budget(labels=labels),
        bootstrap=psiflow.Bootstrap(structures=20),
        walking=psiflow.Walking(
            bias=psiflow.Incremental(variable=TRANSFER, start=-1.0, stop=1.1, steps=7, stiffness=30.0),
            segment=psiflow.Segments(steps=500, check_every=5),
            # a walker that was pushed over a barrier comes down hot: it is not in equilibrium
            limits=psiflow.Limits(deviation=1.0, temperature_quantile=1e-20),
            errors=psiflow.ErrorThresholds(reset_force=1.5),
        ),
        training=psiflow.Training(steps=400, warm_steps=250, final_steps=1000),
    )


# The profile -----------------------------------------------------------------------------------------------


class Labelled(Calculator):
    """A reference as an ASE calculator; each label is kept."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, context: psiflow.Context, reference: psiflow.Spec) -> None:
        super().__init__()
        self._context, self._reference = context, reference

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), changes: Sequence[str] = all_changes
    ) -> None:
        super().calculate(atoms, properties, changes)
        (labelled,) = self._context.label(self.atoms, self._reference, tolerate=0).result()
        self.results = {"energy": labelled.get_potential_energy(), "forces": labelled.get_forces()}


@dataclass(frozen=True)
class Rest:
    """A structure without forces, in the learned potential and in the reference."""

    learned: Atoms
    reference: Atoms

    @property
    def rmsd(self) -> float:
        """Root mean square distance of the atoms after superposition. [Å]"""
        moved = self.learned.copy()
        minimize_rotation_and_translation(self.reference, moved)
        return float(np.sqrt(((moved.positions - self.reference.positions) ** 2).sum(axis=1).mean()))


@dataclass(frozen=True)
class Profile:
    """The path from well to well."""

    path: list[Atoms]
    """Relaxed in the learned potential."""
    learned: list[Atoms]
    reference: list[Atoms]
    """The same structures, labelled by the learned potential and by the reference."""
    start: Rest
    saddle: Rest
    end: Rest

    @property
    def transfer(self) -> Array:
        """Progress of the hydrogen along the path. [Å]"""
        return transfers(self.path)

    def energies(self, whose: str) -> Array:
        """Above HCN, along the path. [eV]"""
        energies = np.array([atoms.get_potential_energy() for atoms in getattr(self, whose)])
        return np.asarray(energies - energies[0])

    @property
    def errors(self) -> Array:
        """Errors of the energy along the path. [eV]"""
        return np.asarray(self.energies("learned") - self.energies("reference"))

    @property
    def force_error(self) -> float:
        """RMSE of the forces along the path. [eV/Å]"""
        pairs = zip(self.learned, self.reference, strict=True)
        return float(np.sqrt(np.mean([(one.get_forces() - other.get_forces()) ** 2 for one, other in pairs])))

    def barrier(self, whose: str) -> float:
        """Energy of the saddle point above HCN, both relaxed at the same level. [eV]"""
        return above(getattr(self.saddle, whose), getattr(self.start, whose))

    def reaction(self, whose: str) -> float:
        """Energy of HNC above HCN, both relaxed at the same level. [eV]"""
        return above(getattr(self.end, whose), getattr(self.start, whose))


def profile(
    potential: psiflow.TrainedPotential, context: psiflow.Context, reference: psiflow.Spec, dataset: Sequence[Atoms]
) -> Profile:
    """The profiles of a potential and of the reference, between the wells in the potential's data set."""
    learned, asked = potential.calculator(), Labelled(context, reference)
    relaxed = context.relax(potential, [START, isomer(dataset)], fmax=0.01, steps=300, tolerate=0).result()
    if not all(one.converged for one in relaxed):
        raise RuntimeError("a well has no minimum in the learned potential: learn more")
    wells = [Atoms(one.structure.numbers, one.structure.positions, calculator=learned) for one in relaxed]
    path = round_the_bond(wells[0], learned)
    for atoms in path:
        atoms.calc = learned
    top = max(path, key=Atoms.get_potential_energy)
    points = [rest(near, learned, asked, ups) for near, ups in ((wells[0], 0), (top, 1), (wells[1], 0))]
    return Profile(path, path, list(context.label(path, reference, tolerate=0).result()), *points)


def transfers(structures: Sequence[Atoms]) -> Array:
    """Progress of the hydrogen in each structure. [Å]"""
    return np.array([TRANSFER.value(atoms) for atoms in structures])


def isomer(dataset: Sequence[Atoms]) -> Atoms:
    """The most stable structure on the other side of the barrier.

    Raises:
        RuntimeError: none was labelled there.
    """
    isomers = [atoms for atoms, transfer in zip(dataset, transfers(dataset), strict=True) if transfer > 1.0]
    if not isomers:
        raise RuntimeError("no walker has reached HNC; give the campaign a larger budget of labels")
    return min(isomers, key=Atoms.get_potential_energy)


def round_the_bond(first: Atoms, calculator: Calculator, points: int = 13) -> list[Atoms]:
    """The path of least energy on which the hydrogen makes half a turn around the middle of the bond.

    Raises:
        RuntimeError: the minimisation over the two distances has not converged.
    """
    middle = first.positions[[CARBON, NITROGEN]].mean(axis=0)
    shape = [first.get_distance(CARBON, NITROGEN), np.linalg.norm(first.positions[HYDROGEN] - middle)]
    path = []
    for angle in np.linspace(np.pi, 0, points):
        optimum = minimize(energy_and_slopes, shape, (angle, calculator), "BFGS", jac=True, options={"gtol": 0.01})
        if np.abs(optimum.jac).max() > 0.05:
            raise RuntimeError(f"no structure of least energy was found at {np.degrees(angle):.0f}°: learn more")
        shape = optimum.x
        path.append(placed(*shape, angle))
    return path


def placed(bond: float, radius: float, angle: float) -> Atoms:
    """Carbon and nitrogen on a line, the hydrogen at an angle around their middle. [Å, rad]"""
    positions = np.zeros((3, 3))
    positions[[CARBON, NITROGEN], 0] = -bond / 2, bond / 2
    positions[HYDROGEN, :2] = radius * np.cos(angle), radius * np.sin(angle)
    return Atoms(START.numbers, positions)


def energy_and_slopes(shape: Array, angle: float, calculator: Calculator) -> tuple[float, Array]:
    """Energy [eV], and its derivatives by the bond and by the radius. [eV/Å]"""
    atoms = placed(*shape, angle)
    atoms.calc = calculator
    forces = atoms.get_forces()
    outward = np.cos(angle), np.sin(angle), 0.0
    by_bond = (forces[CARBON, 0] - forces[NITROGEN, 0]) / 2
    return atoms.get_potential_energy(), np.array([by_bond, -forces[HYDROGEN] @ outward])


def linear(atoms: Atoms) -> bool:
    """Whether all atoms are on one line, or nearly."""
    return bool(atoms.get_moments_of_inertia()[0] < 0.01)


def rest(near: Atoms, learned: Calculator, reference: Calculator, ups: int) -> Rest:
    """The stationary point next to a structure, where the energy falls in `ups` directions: 0 at a minimum.

    Raises:
        RuntimeError: the energy of the learned potential falls in more or fewer directions.
    """
    way, _ = downhill(near, learned)
    point = stationary(near, learned, way)
    way, falls = downhill(point, learned)
    if falls != ups:
        raise RuntimeError(f"the energy falls in {falls} directions where it should in {ups}: learn more")
    return Rest(point, stationary(point, reference, way))


def downhill(atoms: Atoms, calculator: Calculator) -> tuple[Array, int]:
    """The inverse of the Hessian [Å²/eV], and the number of directions in which the energy falls.

    Six directions rotate and shift a molecule, five if it is linear: those of least curvature are left out.
    """
    moved = Atoms(atoms.numbers, atoms.positions, calculator=calculator)
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(moved, name=f"{folder}/vibrations")
        vibrations.run()
        curvatures, modes = np.linalg.eigh(vibrations.get_vibrations().get_hessian_2d())
    inner = np.argsort(np.abs(curvatures))[5 if linear(atoms) else 6 :]
    inverse = (modes[:, inner] / curvatures[inner]) @ modes[:, inner].T
    return inverse, int((curvatures[inner] < 0).sum())


def stationary(near: Atoms, calculator: Calculator, way: Array) -> Atoms:
    """The stationary point near a structure, by Newton's method with one Hessian, possibly another potential's.

    Raises:
        RuntimeError: it has not converged.
    """
    atoms = Atoms(near.numbers, near.positions, calculator=calculator)
    for _ in range(30):
        forces = atoms.get_forces()
        if np.abs(forces).max() < 0.01:
            return atoms
        step = (way @ forces.ravel()).reshape(-1, 3)
        atoms.positions += step * min(1.0, 0.1 / np.abs(step).max())
    raise RuntimeError(f"forces of {np.abs(forces).max():.2f} eV/Å are left where there should be none")


def above(one: Atoms, other: Atoms) -> float:
    """Difference of two energies. [eV]"""
    return float(one.get_potential_energy() - other.get_potential_energy())


# Output ----------------------------------------------------------------------------------------------------


def in_words(curves: Profile) -> str:
    """Tables of the path and of the three points."""
    rows = zip(curves.transfer, curves.energies("learned"), curves.energies("reference"), curves.errors, strict=True)
    lines = ["transfer [Å]   learned [eV]   reference [eV]   error [meV]"]
    lines += [f"{s:12.2f} {one:14.3f} {other:16.3f} {1e3 * error:13.0f}" for s, one, other, error in rows]
    lines += [
        f"along the path: energy MAE {1e3 * np.abs(curves.errors).mean():.0f} meV, "
        f"largest {1e3 * np.abs(curves.errors).max():.0f} meV; forces RMSE {1e3 * curves.force_error:.0f} meV/Å",
        "",
        "                 learned [eV]   reference [eV]   error [meV]",
    ]
    for name, of in (("barrier", curves.barrier), ("reaction energy", curves.reaction)):
        one, other = of("learned"), of("reference")
        lines.append(f"{name:16} {one:12.3f} {other:16.3f} {1e3 * (one - other):13.0f}")
    points = (("HCN", curves.start), ("saddle point", curves.saddle), ("HNC", curves.end))
    lines += [f"{name}: the two structures differ by {point.rmsd:.3f} Å (RMSD)" for name, point in points]
    return "\n".join(lines)


def draw(curves: Profile, dataset: Sequence[Atoms], file: Path) -> None:
    """Draw both profiles, and the labels on the axis of the transfer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curves.transfer, curves.energies("reference"), "o-", color="0.4", label="reference, on the same path")
    axes.plot(curves.transfer, curves.energies("learned"), ".--", color="tab:red", label="learned potential")
    axes.plot(transfers(dataset), np.full(len(dataset), -0.15), "|", color="tab:blue", label="labels")
    axes.set_xlabel("transfer of the hydrogen, d(C–H) − d(N–H) [Å]")
    axes.set_ylabel("energy above HCN [eV]")
    axes.legend()
    figure.savefig(file, dpi=150)


def learned_from(result: psiflow.Result) -> psiflow.Dataset:
    """The structures that the potential was trained on or validated with."""
    return result.dataset[[one.origin in ("bootstrap", "walker") for one in result.dataset.provenance]]


def main() -> None:
    level = psiflow.reference("pyscf", functional="pbe", basis="def2-svp", density_fitting=True)
    with psiflow.Context(folder="campaigns/isomerisation-profile") as context:
        result = learning(level).run(start=START, folder="campaigns/isomerisation", context=context)
        print(result)
        dataset = learned_from(result)
        curves = profile(result.potential, context, level, dataset)
    print(in_words(curves))
    draw(curves, dataset, result.folder / "profile.png")


if __name__ == "__main__":
    main()
