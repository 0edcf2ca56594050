"""A segment of molecular dynamics by ASE's integrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units

from psiflow_core.builtin._walker_state import random_stream, read_state, write_state
from psiflow_core.builtin.ase_options import AseOptions
from psiflow_core.components import Monitor, SamplingTask, Segment, Walker
from psiflow_core.sampling.momenta import degrees_of_freedom, first_momenta
from psiflow_core.sampling.observer import Observer
from psiflow_core.structures import Plain

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from ase.md.md import MolecularDynamics


def run(options: AseOptions, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
    """Move the walker for one segment, or until the monitor stops it.

    Raises:
        StructureError: the walker's state belongs to another sampler.
    """
    state = read_state(options.name, walker)
    rng = random_stream(state, task.seed)
    atoms = walker.structure.copy()
    atoms.calc = forces
    atoms.set_momenta(first_momenta(atoms, options.temperature, rng))
    dynamics = integrator(options, atoms, rng)
    if "cell" in state and state["motion"] == options.motion:
        dynamics.p_eps, dynamics.force_eps = state["cell"]
    observer = Observer(walker, task, monitor, degrees_of_freedom(atoms, drifts=options.is_langevin))
    while not observer.over:
        dynamics.step()  # instead of run(), which computes the forces of the first structure again
        observer.see(observer.steps + 1, atoms)
    after: Plain = {"motion": options.motion, "rng": rng.bit_generator.state}
    if options.ensemble == "npt":
        after["cell"] = [dynamics.p_eps, dynamics.force_eps]
    return observer.segment(atoms.copy(), write_state(options.name, after))


def integrator(options: AseOptions, atoms: Atoms, rng: np.random.Generator) -> MolecularDynamics:
    """The integrator for the ensemble of the options."""
    timestep, relaxation = options.timestep * units.fs, 1000 * units.fs / options.friction
    if options.ensemble == "nve":
        from ase.md.verlet import VelocityVerlet

        return VelocityVerlet(atoms, timestep)
    if not options.is_langevin:
        return _bussi(atoms, timestep, options.temperature, relaxation, rng)
    barostat = _barostat(options, len(atoms)) if options.ensemble == "npt" else {}
    return _langevin()(atoms, timestep, temperature_K=options.temperature, T_tau=relaxation, rng=rng, **barostat)


def _barostat(options: AseOptions, atoms: int) -> dict[str, Any]:
    """Langevin piston with the masses of Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994)."""
    period = options.barostat_time * units.fs
    directions = 3 if options.shape == "isotropic" else 1
    return {
        "externalstress": -options.external_pressure,
        "hydrostatic": options.shape == "isotropic",
        "P_tau": period,
        "P_mass": directions * (atoms + 1) * units.kB * options.temperature * period**2,
    }


def _bussi(
    atoms: Atoms, timestep: float, temperature: float, relaxation: float, rng: np.random.Generator
) -> MolecularDynamics:
    """ASE counts 3N degrees of freedom; a molecule with its centre of mass at rest would become too hot."""
    from ase.md.bussi import Bussi

    dynamics = Bussi(atoms, timestep, temperature_K=temperature, taut=relaxation, rng=rng)
    dynamics.ndof = degrees_of_freedom(atoms, drifts=False)
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
