"""Structures at minima of a potential or of a reference."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from ase import Atoms
from ase.calculators.calculator import Calculator

from psiflow_core.checks import problem_of
from psiflow_core.components import Component, Spec
from psiflow_core.environments.catalogue import spec
from psiflow_core.errors import OptionError
from psiflow_core.execution.tasks.relax import RelaxationRequest, Relaxed, read_relaxed
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.execution.verbs.dispatcher import Dispatcher
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.inputs import Tolerance, awaited, component, computed_entries, entries_of, model_of
from psiflow_core.labels.dataset import Failed
from psiflow_core.labels.provenance import Failure
from psiflow_core.potentials.trained import ModelFile
from psiflow_core.sampling.bias import AseCalculator
from psiflow_core.structures import Array, label_of


@dataclass(frozen=True)
class Relaxation:
    """A relaxed structure."""

    structure: Atoms
    """The final structure, with the label of the model or reference."""
    converged: bool
    """Whether no force, and with the cell no stress, is above the threshold."""
    steps: int
    """Steps of the optimiser."""

    @property
    def energy(self) -> float:
        """[eV]"""
        return label_of(self.structure).energy

    @property
    def forces(self) -> Array:
        """The computed forces, also on fixed atoms, shape (atoms, 3). [eV/Å]"""
        return label_of(self.structure).forces

    @property
    def stress(self) -> Array | None:
        """ASE's sign and Voigt order, shape (6,); None without a cell. [eV/Å³]"""
        return label_of(self.structure).stress


@dataclass(frozen=True)
class Relaxations(Sequence[Relaxation]):
    """Relaxations, in the order of their structures, without the failed ones."""

    relaxations: tuple[Relaxation, ...]
    failures: tuple[Failed, ...] = field(default=())
    """The failed relaxations, by the number of their structure."""

    def __len__(self) -> int:
        return len(self.relaxations)

    def __iter__(self) -> Iterator[Relaxation]:
        return iter(self.relaxations)

    @overload
    def __getitem__(self, index: int) -> Relaxation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Relaxation]: ...
    def __getitem__(self, index: int | slice) -> Relaxation | Sequence[Relaxation]:
        return self.relaxations[index]

    @property
    def structures(self) -> list[Atoms]:
        """The final structures, labelled."""
        return [one.structure for one in self.relaxations]


def relax(
    dispatcher: Dispatcher,
    model: Any,
    structures: Any,
    *,
    fmax: float,
    steps: int,
    cell: bool,
    pressure: float,
    tolerate: float | int,
) -> Handle[Relaxations, Relaxation]:
    """As `Context.relax`."""
    if pressure and not cell:
        raise OptionError(f"pressure={pressure}: it acts on the cell, which is fixed; give cell=True as well")
    if steps < 1:
        raise OptionError(f"steps={steps}: a relaxation takes at least one")
    options: dict[str, object] = {"ensemble": "optimise", "fmax": fmax}
    if cell:
        options |= {"relax_cell": True, "pressure": pressure}
    optimiser, tolerance = spec("sampler", "ase", options), Tolerance(tolerate)
    level = model if isinstance(model, Handle) else _level(model)
    given = structures if isinstance(structures, Handle) else entries_of(structures, "structures")
    handle: Handle[Relaxations, Relaxation] = Handle("relax")
    dispatcher.start(_relaxations(dispatcher, level, given, optimiser, steps, tolerance, handle), handle)
    return handle


def _level(given: Any) -> dict[str, Any]:
    """The source of the forces, as fields of a request."""
    if isinstance(given, AseCalculator):
        if given.weight != 1.0:
            raise OptionError(f"model: a calculator with weight={given.weight} has other minima; give it weight=1.0")
        options: dict[str, object] = {"calculator": given.calculator, "parameters": given.parameters}
        return {"reference": component("reference", spec("reference", "ase", options), "model")}
    if isinstance(given, Spec | Component):
        return {"reference": component("reference", given, "model")}
    if isinstance(given, Calculator):
        raise OptionError(
            f"model: a calculator as an object ({type(given).__name__}) cannot be sent to workers; name it: "
            "psiflow.reference('ase', calculator='emt', parameters={…})"
        )
    return {"models": tuple(model_of(given, "model").members)}


async def _relaxations(
    dispatcher: Dispatcher,
    level: Any,
    given: Any,
    optimiser: Spec,
    steps: int,
    tolerance: Tolerance,
    handle: Handle[Relaxations, Relaxation],
) -> Relaxations:
    forces = _level(await awaited(level)) if isinstance(level, Handle) else level
    entries = computed_entries(await awaited(given)) if isinstance(given, Handle) else given
    structures = [entry.structure for entry in entries]
    each = [_one(dispatcher, atoms, forces, optimiser, steps, handle) for atoms in structures]
    ended = await asyncio.gather(*each)
    failures = tuple(
        Failed(number, structures[number], one) for number, one in enumerate(ended) if isinstance(one, Failure)
    )
    tolerance.refuse([str(failed) for failed in failures], len(structures), "relaxations")
    return Relaxations(tuple(one for one in ended if isinstance(one, Relaxation)), failures)


async def _one(
    dispatcher: Dispatcher,
    structure: Atoms,
    forces: dict[str, Any],
    optimiser: Spec,
    steps: int,
    handle: Handle[Relaxations, Relaxation],
) -> Relaxation | Failure:
    if problem := problem_of(structure):
        return Failure("bad input", problem)
    places = dispatcher.places
    start = structure.copy()
    start.arrays.pop("momenta", None)
    stores = {"labels": places.labels, "own_labels": places.own_labels} if "reference" in forces else {}
    request = places.place(RelaxationRequest(structure=start, optimiser=optimiser, steps=steps, **forces, **stores))
    outcome = await dispatcher.finished(request)
    while isinstance(outcome.value, Relaxed) and outcome.value.claim is not None:
        await dispatcher.released(Path(outcome.value.claim))
        outcome = await dispatcher.finished(request)
    if outcome.failure is not None:
        return Failure(outcome.failure.reason, outcome.failure.told)
    relaxation = _read(request, outcome)
    handle.finished_part(relaxation)
    return relaxation


def _read(request: RelaxationRequest, outcome: Outcome) -> Relaxation:
    value = outcome.value
    assert isinstance(value, Relaxed)
    structure = read_relaxed(ModelFile(request.own_folder / value.file, value.digest))
    return Relaxation(structure, value.converged, value.steps)
