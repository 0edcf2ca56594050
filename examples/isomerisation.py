"""HCN becomes HNC: walkers are pushed over a barrier that none would cross by itself.

The hydrogen goes round from the carbon to the nitrogen. Incremental learning pushes walkers along the difference of its
two distances, a step further with every segment, and labels what the committee does not know. Then the energy profile
of the learned potential, from well to well, is held against the reference's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation, molecule
from ase.calculators.calculator import Calculator
from ase.optimize import BFGS
from ase.optimize.optimize import Optimizer
from ase.vibrations import Vibrations
from scipy.optimize import minimize

import psiflow_core as psiflow
from psiflow_core.components import LabelTask, Prediction, Predictor, Reference, Resources, Spec
from psiflow_core.plugins import build
from psiflow_core.structures import Array, label_of
from psiflow_core.variables import values

START = molecule("HCN")
CARBON, NITROGEN, HYDROGEN = 0, 1, 2
TRANSFER = psiflow.Combination(
    variables=(psiflow.Distance(atoms=(CARBON, HYDROGEN)), psiflow.Distance(atoms=(NITROGEN, HYDROGEN))),
    coefficients=(1.0, -1.0),
)
"""How far the hydrogen has gone: −1.2 Å in HCN, 1.2 Å in HNC."""


def learning(reference: Spec, labels: int = 90) -> psiflow.OnlineLearning:
    """The campaign."""
    return psiflow.OnlineLearning(
        potential=psiflow.potential("mace", r_max=4.0, max_ell=2),
        sampler=psiflow.sampler("openmm", ensemble="nvt", temperature=300.0, friction=50.0),
        reference=reference,
        walkers=3,  # more would ask for nearly the same labels at each step
        committee=2,
        schedule="sequential",  # no walker comes again to where the next model will know the way
        budget=psiflow.Budget(labels=labels),
        bootstrap=psiflow.Bootstrap(structures=20),
        walking=psiflow.Walking(
            bias=psiflow.Incremental(variable=TRANSFER, start=-1.0, stop=1.1, steps=7, stiffness=30.0),
            segment=psiflow.Segments(steps=500, check_every=5),
            # one that is pushed over a barrier comes down hot: it is not in equilibrium
            limits=psiflow.Limits(deviation=1.0, temperature_quantile=1e-20),
            errors=psiflow.ErrorThresholds(reset_force=1.5),
        ),
        training=psiflow.Training(steps=400, warm_steps=250, final_steps=1000),
    )


# The profile -----------------------------------------------------------------------------------------------


class Labelled(Predictor):
    """A reference as a predictor, so that ASE can ask it."""

    def __init__(self, reference: Spec) -> None:
        component = build(reference)
        assert isinstance(component, Reference)
        self.reference = component
        self.resources = Resources(cores=len(os.sched_getaffinity(0)))

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        with tempfile.TemporaryDirectory() as folder:
            labels = [self.reference.label(atoms, LabelTask(Path(folder), self.resources)) for atoms in structures]
        return [Prediction(label.energy, label.forces) for label in labels]


@dataclass(frozen=True)
class Rest:
    """A structure without forces, in the learned potential and in the reference."""

    learned: Atoms
    reference: Atoms

    @property
    def rmsd(self) -> float:
        """How far atoms are from each other, once both lie on each other. [Å]"""
        moved = self.learned.copy()
        minimize_rotation_and_translation(self.reference, moved)
        return float(np.sqrt(((moved.positions - self.reference.positions) ** 2).sum(axis=1).mean()))


@dataclass(frozen=True)
class Profile:
    """The way from well to well."""

    path: list[Atoms]
    """Relaxed in the learned potential."""
    learned: list[Prediction]
    reference: list[Prediction]
    """Of the same structures."""
    start: Rest
    saddle: Rest
    end: Rest

    @property
    def transfer(self) -> Array:
        """Along the path. [Å]"""
        return np.asarray(values(self.path, TRANSFER))

    def energies(self, whose: str) -> Array:
        """Above HCN, along the path. [eV]"""
        energies = np.array([prediction.energy for prediction in getattr(self, whose)])
        return np.asarray(energies - energies[0])

    @property
    def errors(self) -> Array:
        """Of the energy along the path. [eV]"""
        return np.asarray(self.energies("learned") - self.energies("reference"))

    @property
    def force_error(self) -> float:
        """RMSE along the path. [eV/Å]"""
        pairs = zip(self.learned, self.reference, strict=True)
        return float(np.sqrt(np.mean([(one.forces - other.forces) ** 2 for one, other in pairs])))

    def barrier(self, whose: str) -> float:
        """Energy of its own saddle point above its own HCN. [eV]"""
        return above(getattr(self.saddle, whose), getattr(self.start, whose))

    def reaction(self, whose: str) -> float:
        """Energy of its own HNC above its own HCN. [eV]"""
        return above(getattr(self.end, whose), getattr(self.start, whose))


def profile(potential: psiflow.TrainedPotential, reference: Predictor, dataset: Sequence[Atoms]) -> Profile:
    """The profile of a potential, from what it has learned from, and the reference's beside it."""
    learned, asked = potential.calculator(), reference.calculator()
    wells = minimum(START, learned), minimum(isomer(dataset), learned)
    path = round_the_bond(wells[0], learned)
    predicted = potential.predict(path)
    top = path[int(np.argmax([prediction.energy for prediction in predicted]))]
    points = [rest(near, learned, asked, ups) for near, ups in ((wells[0], 0), (top, 1), (wells[1], 0))]
    return Profile(path, predicted, reference.predict(path), *points)


def isomer(dataset: Sequence[Atoms]) -> Atoms:
    """The most stable structure on the other side of the barrier.

    Raises:
        RuntimeError: none was labelled there.
    """
    found = [atoms for atoms, transfer in zip(dataset, values(dataset, TRANSFER), strict=True) if transfer > 1.0]
    if not found:
        raise RuntimeError("no walker has come to HNC; give the campaign a larger budget of labels")
    return min(found, key=lambda atoms: label_of(atoms).energy)


def minimum(near: Atoms, calculator: Calculator) -> Atoms:
    """The minimum of the energy next to a structure."""
    atoms = Atoms(near.numbers, near.positions, calculator=calculator)
    converge(BFGS(atoms, logfile=None), 0.01, 300)
    return atoms


def round_the_bond(first: Atoms, calculator: Calculator, points: int = 13) -> list[Atoms]:
    """The path of least energy on which the hydrogen goes half a turn round the middle of the bond.

    Raises:
        RuntimeError: a structure has not come to rest in its two distances.
    """
    middle = first.positions[[CARBON, NITROGEN]].mean(axis=0)
    shape = [first.get_distance(CARBON, NITROGEN), np.linalg.norm(first.positions[HYDROGEN] - middle)]
    path = []
    for angle in np.linspace(np.pi, 0, points):
        found = minimize(energy_and_slopes, shape, (angle, calculator), "BFGS", jac=True, options={"gtol": 0.01})
        if np.abs(found.jac).max() > 0.05:
            raise RuntimeError(f"no structure of least energy was found at {np.degrees(angle):.0f}°: learn more")
        shape = found.x
        path.append(placed(*shape, angle))
    return path


def placed(bond: float, radius: float, angle: float) -> Atoms:
    """Carbon and nitrogen on a line, the hydrogen at an angle round their middle. [Å, rad]"""
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
    """The stationary point next to a structure, where so many directions go up to a saddle point.

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
    """The inverse of the Hessian [Å²/eV], and in how many directions the energy falls.

    Of a molecule, six directions turn and shift it, five where it is linear: those that matter least are left out.
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
    """Where no forces are, by Newton's method with one Hessian, though it be another potential's.

    Raises:
        RuntimeError: it has not come to rest.
    """
    atoms = Atoms(near.numbers, near.positions, calculator=calculator)
    for _ in range(30):
        forces = atoms.get_forces()
        if np.abs(forces).max() < 0.01:
            return atoms
        step = (way @ forces.ravel()).reshape(-1, 3)
        atoms.positions += step * min(1.0, 0.1 / np.abs(step).max())
    raise RuntimeError(f"forces of {np.abs(forces).max():.2f} eV/Å are left where there should be none")


def converge(optimizer: Optimizer, fmax: float, steps: int) -> None:
    """Run an optimizer until no force is larger [eV/Å]; raises `RuntimeError` when that takes too many steps."""
    if not optimizer.run(fmax=fmax, steps=steps):
        raise RuntimeError(f"{type(optimizer).__name__} has not converged to {fmax} eV/Å in {steps} steps")


def above(one: Atoms, other: Atoms) -> float:
    """Difference of two energies. [eV]"""
    return float(one.get_potential_energy() - other.get_potential_energy())


# What is shown ---------------------------------------------------------------------------------------------


def in_words(found: Profile) -> str:
    """Tables of the path and of the three points."""
    rows = zip(found.transfer, found.energies("learned"), found.energies("reference"), found.errors, strict=True)
    lines = ["transfer [Å]   learned [eV]   reference [eV]   error [meV]"]
    lines += [f"{s:12.2f} {one:14.3f} {other:16.3f} {1e3 * error:13.0f}" for s, one, other, error in rows]
    lines += [
        f"along the path: energy MAE {1e3 * np.abs(found.errors).mean():.0f} meV, "
        f"largest {1e3 * np.abs(found.errors).max():.0f} meV; forces RMSE {1e3 * found.force_error:.0f} meV/Å",
        "",
        "                 learned [eV]   reference [eV]   error [meV]",
    ]
    for name, of in (("barrier", found.barrier), ("reaction energy", found.reaction)):
        one, other = of("learned"), of("reference")
        lines.append(f"{name:16} {one:12.3f} {other:16.3f} {1e3 * (one - other):13.0f}")
    points = (("HCN", found.start), ("saddle point", found.saddle), ("HNC", found.end))
    lines += [f"{name}: the two structures differ by {point.rmsd:.3f} Å (RMSD)" for name, point in points]
    return "\n".join(lines)


def draw(found: Profile, dataset: Sequence[Atoms], file: Path) -> None:
    """Both profiles, and where labels are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.transfer, found.energies("reference"), "o-", color="0.4", label="reference, on the same path")
    axes.plot(found.transfer, found.energies("learned"), ".--", color="tab:red", label="learned potential")
    axes.plot(values(dataset, TRANSFER), np.full(len(dataset), -0.15), "|", color="tab:blue", label="labels")
    axes.set_xlabel("transfer of the hydrogen, d(C–H) − d(N–H) [Å]")
    axes.set_ylabel("energy above HCN [eV]")
    axes.legend()
    figure.savefig(file, dpi=150)


def learned_from(result: psiflow.Result) -> list[Atoms]:
    """What the potential has learned from."""
    return [atoms for atoms in result.dataset if atoms.info["psiflow_origin"] in ("bootstrap", "walker")]


def main() -> None:
    level = psiflow.reference("pyscf", functional="pbe", basis="def2-svp", density_fitting=True)
    result = learning(level).run(start=START, folder="campaigns/isomerisation")
    print(result)
    dataset = learned_from(result)
    found = profile(result.potential, Labelled(level), dataset)
    print(in_words(found))
    draw(found, dataset, result.folder / "profile.png")


if __name__ == "__main__":
    main()
