"""What every sampler in the core does the same way: the record of a segment, and a walker's state."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
from ase import Atoms, units
from ase.io.jsonio import decode, encode

from psiflow_core.components import Monitor, Sampler, SamplingTask, Segment, Walker
from psiflow_core.errors import StructureError
from psiflow_core.structures import Label, Plain, with_label


class Record:
    """What a segment reports: steps, checks of the monitor, frames and averages."""

    def __init__(self, walker: Walker, task: SamplingTask, monitor: Monitor) -> None:
        self.walker, self.task, self.monitor = walker, task, monitor
        self.degrees: int | None = None
        """Degrees of freedom that have a kinetic temperature; None if nothing moves in time."""
        self.steps = 0
        self.stopped: str | None = None
        self.finished = False
        self.frames: list[Atoms] = []
        self._seen: dict[str, list[float]] = {}

    def follow(self, moves: Iterable[bool], atoms: Atoms) -> None:
        """Make the moves, each of which tells whether it was the last, until one or the monitor says stop."""
        for last in islice(moves, self.task.steps):
            self.steps, self.finished = self.steps + 1, bool(last)  # ASE's is numpy's, which no JSON takes
            self._keep_frame(atoms)
            due = self.steps % self.task.check_every == 0 or self.steps == self.task.steps or self.finished
            if due:
                self.ask(atoms)
            if self.stopped or self.finished:
                return

    def ask(self, atoms: Atoms) -> None:
        """Let the monitor look at the atoms where they are."""
        self._measure(atoms)
        self.stopped = self.monitor(self.steps, atoms)

    def segment(self, atoms: Atoms, state: bytes) -> Segment:
        """The segment that ends with these atoms."""
        walker = Walker(atoms.copy(), state, self.walker.step + self.steps)
        averages = {name: float(np.mean(values)) for name, values in self._seen.items()}
        return Segment(walker, self.steps, self.stopped, self.finished, self.frames, averages)

    def _keep_frame(self, atoms: Atoms) -> None:
        stride = self.task.stride  # counted from the walker's start, so that segments do not show
        if stride and (self.walker.step + self.steps) % stride == 0:
            self.frames.append(with_label(atoms, _label(atoms)) if atoms.calc else atoms.copy())

    def _measure(self, atoms: Atoms) -> None:
        if self.degrees:
            kelvin = 2 * atoms.get_kinetic_energy() / (self.degrees * units.kB)
            self._seen.setdefault("temperature", []).append(kelvin)
        if atoms.calc:
            self._seen.setdefault("potential_energy", []).append(atoms.get_potential_energy())
        if atoms.pbc.all():
            self._seen.setdefault("volume", []).append(atoms.get_volume())


def random_stream(state: Plain, seed: int) -> np.random.Generator:
    rng = np.random.default_rng(seed)
    if "rng" in state:
        rng.bit_generator.state = state["rng"]
    return rng


def write_state(sampler: Sampler, state: Plain) -> bytes:
    """ASE's JSON, which keeps arrays exactly."""
    return bytes(encode({"sampler": sampler.name, **state}).encode())


def read_state(sampler: Sampler, walker: Walker) -> Plain:
    """What `write_state` wrote; empty at a walker's start.

    Raises:
        StructureError: another sampler wrote it.
    """
    if walker.state is None:
        return {}
    stranger = StructureError(f"the walker's state is not of sampler '{sampler.name}'; start it anew, without a state")
    try:
        state = dict(decode(walker.state.decode(), always_array=False))
    except (ValueError, TypeError) as error:
        raise stranger from error
    if state.get("sampler") != sampler.name:
        raise stranger
    return state


def _label(atoms: Atoms) -> Label:
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(md=True)
    stress = atoms.calc.results.get("stress") if atoms.pbc.all() else None
    return Label(energy, forces, None if stress is None else np.array(stress, float))
