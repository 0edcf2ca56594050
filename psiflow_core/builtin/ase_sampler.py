"""Samplers that run on ASE alone: molecular dynamics, geometry optimisation, random displacement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from ase import Atoms, units
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from psiflow_core.builtin._segments import Record, random_stream, read_state, write_state
from psiflow_core.components import Monitor, Sampler, SamplingTask, Segment, Walker
from psiflow_core.errors import StructureError
from psiflow_core.structures import Plain, displaced, from_plain, to_plain

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from ase.md.md import MolecularDynamics
    from ase.optimize.optimize import Optimizer


class AseSampler(Sampler):
    """Molecular dynamics (NVE, NVT, NPT) and geometry optimisation with ASE's integrators and optimisers.

    Two segments of N steps equal one of 2N bit by bit, in every ensemble, if the forces do. The random stream
    goes on from the walker's state; the seed of a task starts it where there is no state yet. An optimiser
    keeps its memory of the surface as long as energy and forces are those at which it left off; under another
    potential it starts afresh. Under NPT the state holds the force on the cell, which lags half a step behind
    the atoms: after a change of potential between segments that half step is still the old one's.
    """

    name: ClassVar[str] = "ase"

    ensemble: Literal["nve", "nvt", "npt", "optimise"] = "nvt"
    """What is kept constant, or `optimise` to go downhill to a minimum of the potential energy."""
    timestep: float = Field(default=0.5, gt=0, le=20)
    """Time step of molecular dynamics. [fs]"""
    temperature: PositiveFloat = 300.0
    """Of the thermostat; under NVE that of the first momenta only. [K]"""
    pressure: float | None = None
    """External pressure, under NPT and where an optimisation relaxes the cell; none is meant by leaving this
    out. [bar]"""
    thermostat: Literal["langevin", "bussi"] | None = None
    """`langevin` (BAOAB; the only one under NPT), which is meant by leaving this out, or `bussi` (stochastic
    rescaling of the velocities)."""
    friction: PositiveFloat = 5.0
    """Friction of Langevin's thermostat; the inverse of the time constant of Bussi's. [1/ps]"""
    barostat: Literal["isotropic", "flexible"] | None = None
    """Whether the cell breathes as a whole, which is meant by leaving this out, or in all its six strains."""
    barostat_time: PositiveFloat = 500.0
    """Time constant of the barostat. [fs]"""
    algorithm: Literal["lbfgs", "bfgs", "fire"] = "lbfgs"
    """Optimiser; `bfgs` needs fewest steps for a few atoms, `fire` is the most forgiving."""
    fmax: PositiveFloat = 0.01
    """The optimisation has converged when no force is larger. With `relax_cell` the stress, less the pressure, times
    the volume per atom must not be larger either, its eV taken for eV/Å: 0.01 allows 0.08 GPa in silicon. [eV/Å]"""
    relax_cell: bool = False
    """Whether the optimisation relaxes the cell too."""

    @model_validator(mode="after")
    def _belong_together(self) -> AseSampler:
        if self.ensemble == "npt" and self.thermostat == "bussi":
            raise ValueError("thermostat='bussi' does not work with ensemble='npt'; use 'langevin'")
        if self.ensemble not in ("nvt", "npt") and self.thermostat is not None:
            raise ValueError(f"ensemble '{self.ensemble}' has no thermostat; leave thermostat out, or use 'nvt'")
        if self.ensemble != "npt" and self.barostat is not None:
            raise ValueError(f"ensemble '{self.ensemble}' has no barostat; leave barostat out, or use 'npt'")
        if self.pressure is not None and not (self.ensemble == "npt" or self.relax_cell):
            remedy = "set relax_cell=True" if self.ensemble == "optimise" else "use 'npt'"
            raise ValueError(f"ensemble '{self.ensemble}' keeps its cell; leave pressure out, or {remedy}")
        if self.relax_cell and self.ensemble != "optimise":
            raise ValueError("relax_cell needs ensemble='optimise'; a cell that moves at a temperature is 'npt'")
        return self

    def check(self, structures: Sequence[Atoms]) -> None:
        if self.ensemble != "npt" and not self.relax_cell:
            return
        for number, atoms in enumerate(structures):
            if not atoms.pbc.all():
                what = "relax_cell" if self.relax_cell else "ensemble='npt'"
                raise StructureError(
                    f"structure {number} ({atoms.get_chemical_formula()}) is not periodic in all directions, "
                    f"as {what} needs it to be; use 'nvt', or give it a cell"
                )

    def target_temperature(self) -> float | None:
        return self.temperature if self.ensemble in ("nvt", "npt") else None

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        self.check([walker.structure])
        atoms = walker.structure.copy()
        atoms.calc = forces
        state = read_state(self, walker)
        if state.get("motion") != self._motion:
            state = {name: state[name] for name in ("rng",) if name in state}
        move = self._optimise if self.ensemble == "optimise" else self._propagate
        return move(Record(walker, task, monitor), atoms, state)

    def _propagate(self, record: Record, atoms: Atoms, state: Plain) -> Segment:
        rng = random_stream(state, record.task.seed)
        if not atoms.get_momenta().any():
            thermalise(atoms, self.temperature, rng)
        record.degrees = _degrees_of_freedom(atoms, conserves_momentum=not self._is_langevin)
        dynamics = self._dynamics(atoms, rng)
        if "cell" in state:
            dynamics.p_eps, dynamics.force_eps = state["cell"]
        record.follow(_steps(dynamics), atoms)
        after: Plain = {"motion": self._motion, "rng": rng.bit_generator.state}
        if self.ensemble == "npt":
            after["cell"] = [dynamics.p_eps, dynamics.force_eps]
        return record.segment(atoms, write_state(self, after))

    @property
    def _motion(self) -> list[str]:
        """What the state of a barostat or an optimiser belongs to; after a change it starts afresh."""
        if self.ensemble == "optimise":
            return [self.ensemble, self.algorithm, "cell" if self.relax_cell else "atoms"]
        return [self.ensemble, *([self._shape] if self.ensemble == "npt" else [])]

    @property
    def _shape(self) -> str:
        return self.barostat or "isotropic"

    @property
    def _external_pressure(self) -> float:
        """In ASE's units."""
        return (self.pressure or 0.0) * units.bar

    @property
    def _is_langevin(self) -> bool:
        return self.ensemble == "npt" or (self.ensemble == "nvt" and self.thermostat != "bussi")

    def _dynamics(self, atoms: Atoms, rng: np.random.Generator) -> MolecularDynamics:
        timestep, relaxation = self.timestep * units.fs, 1000 * units.fs / self.friction
        if self.ensemble == "nve":
            from ase.md.verlet import VelocityVerlet

            return VelocityVerlet(atoms, timestep)
        if not self._is_langevin:
            return _bussi(atoms, timestep, self.temperature, relaxation, rng)
        barostat = self._barostat(atoms) if self.ensemble == "npt" else {}
        return _langevin()(atoms, timestep, temperature_K=self.temperature, T_tau=relaxation, rng=rng, **barostat)

    def _barostat(self, atoms: Atoms) -> dict[str, Any]:
        """Langevin piston with the masses of Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994)."""
        period = self.barostat_time * units.fs
        directions = 3 if self._shape == "isotropic" else 1
        return {
            "externalstress": -self._external_pressure,
            "hydrostatic": self._shape == "isotropic",
            "P_tau": period,
            "P_mass": directions * (len(atoms) + 1) * units.kB * self.temperature * period**2,
        }

    def _optimise(self, record: Record, atoms: Atoms, state: Plain) -> Segment:
        moved = self._moved(atoms, state)
        if "end" in state and not _alike(state["end"], _pull(moved), len(atoms)):
            # Another potential pulls here: what an optimiser learnt from the old one sends it uphill.
            state, moved = {}, self._moved(atoms, {})
        optimiser = _remembering(self.algorithm)(moved, logfile=None)
        optimiser.recall(state.get("memory"))
        moves: Iterator[bool] = optimiser.irun(fmax=self.fmax, steps=record.task.steps)
        record.finished = bool(next(moves))  # before the first step
        if record.finished:
            record.ask(atoms)
        else:
            record.follow(moves, atoms)
        after = {"motion": self._motion, "memory": optimiser.memory, "end": _pull(moved)}
        if self.relax_cell:
            after["cell"] = moved.orig_cell
        return record.segment(atoms, write_state(self, after))

    def _moved(self, atoms: Atoms, state: Plain) -> Any:
        """What the optimiser moves: the atoms, or atoms and cell in one, as the state left them."""
        if not self.relax_cell:
            return atoms
        from ase.filters import FrechetCellFilter

        moved = FrechetCellFilter(atoms, scalar_pressure=self._external_pressure)
        moved.orig_cell = state.get("cell", moved.orig_cell)
        return moved


class RandomDisplacement(Sampler):
    """Structures around the start: each step is one of them, displaced at random and independently.

    No forces are asked for, so the frames have none. The walker's state keeps the structure it started from.
    """

    name: ClassVar[str] = "random-displacement"

    amplitude: NonNegativeFloat = 0.1
    """Each coordinate moves by a number drawn evenly from ± this. [Å]"""
    strain: float = Field(default=0.0, ge=0, lt=0.5)
    """Each component of the strain of a periodic structure is drawn evenly from ± this. [1]"""

    @model_validator(mode="after")
    def _displaces(self) -> RandomDisplacement:
        if not self.amplitude and not self.strain:
            raise ValueError("amplitude and strain are both zero, so that nothing would move; give one of them a value")
        return self

    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        state = read_state(self, walker)
        rng = random_stream(state, task.seed)
        origin = from_plain(state["origin"]) if "origin" in state else _at_rest(walker.structure)
        atoms = origin.copy()
        record = Record(walker, task, monitor)
        record.follow((self._displace(atoms, origin, rng) for _ in range(task.steps)), atoms)
        after = {"rng": rng.bit_generator.state, "origin": to_plain(origin)}
        return record.segment(atoms, write_state(self, after))

    def _displace(self, atoms: Atoms, origin: Atoms, rng: np.random.Generator) -> bool:
        moved = displaced(origin, self.amplitude, self.strain, rng)
        atoms.set_cell(moved.cell, scale_atoms=False)
        atoms.positions = moved.positions
        return False


def thermalise(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Momenta from the Maxwell-Boltzmann distribution at ``temperature`` [K], centre of mass at rest."""
    masses = atoms.get_masses()[:, None]
    momenta = rng.normal(size=(len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
    if len(atoms) > 1:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)


def _degrees_of_freedom(atoms: Atoms, conserves_momentum: bool) -> int:
    """Langevin's thermostat moves the centre of mass too; where it rests it has no temperature."""
    at_rest = conserves_momentum and len(atoms) > 1
    return 3 * len(atoms) - 3 * at_rest


def _bussi(
    atoms: Atoms, timestep: float, temperature: float, relaxation: float, rng: np.random.Generator
) -> MolecularDynamics:
    """ASE counts 3N degrees of freedom; with its centre of mass at rest a molecule would come out too hot."""
    from ase.md.bussi import Bussi

    dynamics = Bussi(atoms, timestep, temperature_K=temperature, taut=relaxation, rng=rng)
    dynamics.ndof = _degrees_of_freedom(atoms, conserves_momentum=True)
    dynamics.target_kinetic_energy = 0.5 * dynamics.temp * dynamics.ndof
    return dynamics


def _langevin() -> Callable[..., MolecularDynamics]:
    """ASE's BAOAB, with the drag of a flexible cell of Quigley and Probert, J. Chem. Phys. 120, 11432 (2004)."""
    from ase.md.langevinbaoab import LangevinBAOAB

    class Langevin(LangevinBAOAB):
        def _barostat_BAOAB_OU_gamma_mod(self) -> Any:  # noqa: N802
            if self.hydrostatic:
                return super()._barostat_BAOAB_OU_gamma_mod()
            # Eq. 5b has the trace on the diagonal; ASE 3.29 adds it to all nine elements, and atoms that move
            # along x come to move along y: by 2 % for three atoms, less for more.
            return (self.p_eps + np.trace(self.p_eps) / self.Ndof * np.eye(3)) / self.barostat_mass

    return Langevin


def _steps(dynamics: MolecularDynamics) -> Iterator[bool]:
    while True:  # step() instead of run(), which asks for the forces of the first structure once more
        dynamics.step()
        yield False


def _remembering(algorithm: str) -> Callable[..., Optimizer]:
    """ASE's optimiser whose restart data stay in memory: ASE would write them to a file at each step."""
    from ase.optimize import BFGS, FIRE, LBFGS

    base = {"bfgs": BFGS, "lbfgs": LBFGS, "fire": FIRE}[algorithm]

    class Remembering(base):  # type: ignore[valid-type, misc]
        memory: Any = None
        extra = ("a", "Nsteps") if algorithm == "fire" else ()  # ASE's restart of FIRE forgets these two

        def dump(self, data: Any) -> None:
            self.memory = {"restart": data, **{name: getattr(self, name) for name in self.extra}}

        def load(self) -> Any:
            return self.memory["restart"]

        def recall(self, memory: Any) -> None:
            self.memory = memory
            if memory is not None:
                self.read()
                for name in self.extra:
                    setattr(self, name, memory[name])

    return Remembering


def _pull(moved: Any) -> Plain:
    """By what we know a potential again: energy [eV] and forces [eV/Å] of what an optimiser moves."""
    return {"energy": float(moved.get_potential_energy()), "forces": moved.get_forces()}


def _alike(before: Plain, now: Plain, atoms: int) -> bool:
    """Whether it is one potential, up to the noise of single precision."""
    largest = np.abs(before["forces"]).max()
    same_forces = np.abs(now["forces"] - before["forces"]).max() <= 1e-3 * largest
    return bool(same_forces and abs(now["energy"] - before["energy"]) <= 1e-5 * atoms)


def _at_rest(atoms: Atoms) -> Atoms:
    still = atoms.copy()
    still.arrays.pop("momenta", None)
    return still
