"""PLUMED as a bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, TypeAlias

from ase import Atoms
from pydantic import field_validator

from psiflow_core.components import Bias, Memory, Prediction
from psiflow_core.errors import EngineMissing, OptionError, WalkerExploded
from psiflow_core.sampling.bias.plumed_input import hills_files, lines_in, refuse
from psiflow_core.sampling.bias.plumed_kernel import Instance

Key: TypeAlias = tuple[object, ...]

KEPT = 2
"""Instances in use: for the present memory of a walker, and for the one before the last check."""


class Plumed(Bias):
    """PLUMED's biases, by its own input. It needs `pip install plumed` and PLUMED's library on the workers.

    Tribello et al., Comput. Phys. Commun. 185, 604 (2014). PLUMED is shown the walker's steps, and sees them at the
    monitor's checks only: the `PACE` of `METAD` must be a multiple of `check_every`, and a `MOVINGRESTRAINT` moves at
    checks. The hills of `METAD` go with the walker, written in as many digits as PLUMED writes; other actions that
    remember are refused. What `PRINT` writes is not kept. The temperature is the sampler's.
    """

    name: ClassVar[str] = "plumed"

    input: str
    """The lines of PLUMED's input. Numbers are in PLUMED's units, kJ/mol, nm and ps, unless it has a line `UNITS`;
    atoms are counted from 1; a step lasts 1 fs, whatever the sampler's time step is."""

    @field_validator("input")
    @classmethod
    def _can_be_honoured(cls, text: str) -> str:
        refuse(text)
        return text

    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        return self._instance(structure, memory).calculate(structure, memory.step)

    def look(self, memory: Memory, structure: Atoms, step: int, temperature: float | None) -> Memory:
        seen = super().look(memory, structure, step, temperature)
        if not self._hills:
            return seen
        with TemporaryDirectory(prefix="psiflow-plumed-") as scratch:
            instance = self._begun(Path(scratch), structure, memory)
            instance.update(structure, memory.step)  # the first one puts no hill, wherever PLUMED begins
            instance.update(structure, step)
            instance.end()
            texts = {name: (Path(scratch) / name).read_text() for name in self._hills}
        lengths = {name: len(text) for name, text in memory.files.items()}
        return replace(seen, files={name: text for name, text in texts.items() if text}, files_before=lengths)

    def check(self, structures: Sequence[Atoms]) -> None:
        for structure in structures:
            if structure.pbc.any() and not structure.pbc.all():
                raise OptionError(
                    f"bias 'plumed': {structure.get_chemical_formula()} is periodic in some directions only; PLUMED "
                    "knows structures that are periodic in all or in none"
                )

    def try_out(self, structures: Sequence[Atoms], temperature: float | None) -> None:
        for structure in structures:
            try:
                self.evaluate(structure, Memory(temperature=temperature))
            except (EngineMissing, WalkerExploded) as error:
                raise OptionError(f"bias 'plumed': {error}") from error

    @cached_property
    def _hills(self) -> list[str]:
        return hills_files(self.input)

    @cached_property
    def _instances(self) -> dict[Key, Instance]:
        return {}

    def _instance(self, structure: Atoms, memory: Memory) -> Instance:
        """PLUMED for a walker that remembers this, of those at hand or a new one; it must not remember more."""
        atoms = structure.get_masses().tobytes(), structure.get_initial_charges().tobytes()
        key = (*atoms, bool(structure.pbc.all()), memory.temperature, *sorted(memory.files.items()))
        found = self._instances.pop(key, None)
        if found is None:
            with TemporaryDirectory(prefix="psiflow-plumed-") as scratch:  # its files are read, and open
                found = self._begun(Path(scratch), structure, memory)
        self._instances[key] = found
        while len(self._instances) > KEPT:
            del self._instances[next(iter(self._instances))]
        return found

    def _begun(self, folder: Path, structure: Atoms, memory: Memory) -> Instance:
        """PLUMED, continued from the files that a walker takes along, in the digits that PLUMED has written."""
        going_on = bool(memory.files)
        for name in self._hills if going_on else ():
            (folder / name).write_text(memory.files.get(name, ""))
        lines = lines_in(self.input, folder)
        return Instance(lines, going_on, folder / "log", structure, memory.temperature)
