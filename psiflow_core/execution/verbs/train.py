"""Trained potentials from labelled structures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psiflow_core.components import Component, Spec
from psiflow_core.errors import OptionError, TaskFailed
from psiflow_core.execution.failures import ATTEMPTS, DIVERGED
from psiflow_core.execution.tasks.manifest import ManifestFile, TrainingLabels
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.execution.tasks.train import Trained, TrainingRequest
from psiflow_core.execution.verbs.dispatcher import Dispatcher
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.execution.verbs.inputs import awaited, component, model_of
from psiflow_core.execution.verbs.label import labelled
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.given import check_zero, is_free_atom
from psiflow_core.labels.provenance import Entry, Failure
from psiflow_core.labels.split import is_held_out
from psiflow_core.labels.store import keep_given
from psiflow_core.potentials.trained import Member, ModelFile, TrainedPotential
from psiflow_core.sampling.segments import derive_seed
from psiflow_core.structures import charge_of, isolated_atom, label_of, species

MEMBERS = 4
"""Members of a committee without a parent, by default."""


@dataclass(frozen=True)
class Training:
    """The data and the settings of a committee's training."""

    potential: Spec
    members: int | None
    steps: int | None
    validation: float | Any
    seed: int
    atomic_energies: Mapping[str, float] | None

    def __post_init__(self) -> None:
        if self.members is not None and self.members < 1:
            raise OptionError(f"members={self.members}: a committee has at least one")
        if isinstance(self.validation, float | int) and not 0 <= self.validation < 1:
            raise OptionError(f"validation={self.validation}: give a fraction from 0 up to 1, or a Dataset")


def train(
    dispatcher: Dispatcher, potential: Spec | Component | str, data: Any, parent: Any, **asked: Any
) -> Handle[TrainedPotential, Member]:
    """As `Context.train`."""
    training = Training(component("potential", potential, "potential"), **asked)
    handle: Handle[TrainedPotential, Member] = Handle("train")
    dispatcher.start(_trained(dispatcher, data, parent, training, handle), handle)
    return handle


async def _trained(
    dispatcher: Dispatcher, data: Any, parent: Any, training: Training, handle: Handle[TrainedPotential, Member]
) -> TrainedPotential:
    entries, before = _labelled_entries(await awaited(data), "data"), await awaited(parent)
    apart = await awaited(training.validation)
    parents = None if before is None else _parents(model_of(before, "parent"), training.potential)
    energies = await _atomic_energies(dispatcher, entries, training.atomic_energies)
    bound = [entry for entry in entries if not is_free_atom(entry.structure)]
    if isinstance(apart, float | int):
        chosen = [is_held_out(number, apart) for number in range(len(bound))]
        fitted = [entry for entry, left_out in zip(bound, chosen, strict=True) if not left_out]
        held_out = [entry for entry, left_out in zip(bound, chosen, strict=True) if left_out]
    else:
        fitted, held_out = bound, _labelled_entries(apart, "validation")
    if not fitted:  # too few to hold any out
        fitted, held_out = held_out, []
    if not fitted:
        raise OptionError("data: all its structures are free atoms; label molecules or crystals as well")
    manifest = _manifest(dispatcher, fitted, held_out, energies)
    count = training.members or (len(parents) if parents else MEMBERS)
    members = (_member(dispatcher, number, manifest, parents, training, handle) for number in range(count))
    return TrainedPotential(await asyncio.gather(*members))


async def _member(
    dispatcher: Dispatcher,
    number: int,
    manifest: ManifestFile,
    parents: Sequence[ModelFile] | None,
    training: Training,
    handle: Handle[TrainedPotential, Member],
) -> Member:
    """Train one member; a diverged training is repeated from scratch with another seed."""
    places = dispatcher.places
    for diverged in range(ATTEMPTS):
        request = places.place(
            TrainingRequest(
                potential=training.potential,
                labels=manifest,
                parent=parents[number % len(parents)] if parents and not diverged else None,
                seed=derive_seed(training.seed, "train", number, diverged),
                steps=training.steps,
                weights=places.models,
            )
        )
        outcome = await dispatcher.finished(request)
        if outcome.failure is None or outcome.failure.type != DIVERGED:
            break
    member = Member(training.potential, _weights(outcome, places.models, number))
    handle.finished_part(member)
    return member


def _weights(outcome: Outcome, models: Path, number: int) -> ModelFile:
    if outcome.failure is not None:
        raise TaskFailed(f"member {number} could not be trained: {outcome.failure.told} (see {outcome.key})")
    assert isinstance(outcome.value, Trained)
    return ModelFile(models / outcome.value.model.path, outcome.value.model.digest)


def _labelled_entries(given: Any, argument: str) -> list[Entry]:
    """The labelled entries of a data set; raises `OptionError` without any."""
    data = given if isinstance(given, Dataset) else Dataset(given)
    found = [entry for entry in data.entries() if entry.is_labelled]
    if not found:
        raise OptionError(f"{argument}: none of its {len(data)} structures has a label; context.label(…) gives them")
    return found


def _parents(parent: TrainedPotential, potential: Spec) -> list[ModelFile]:
    for other in parent.potentials:
        if other.digest != potential.digest:
            raise OptionError(
                f"parent: it is of potential '{other.name}' with other options than the '{potential.name}' to train; "
                "give a parent of the same potential, or none"
            )
    return [member.file for member in parent.members]


def _manifest(
    dispatcher: Dispatcher, fitted: Sequence[Entry], held_out: Sequence[Entry], energies: Mapping[str, float]
) -> ManifestFile:
    places = dispatcher.places
    labels = TrainingLabels(
        training=tuple(keep_given(places.given, entry.structure) for entry in fitted),
        validation=tuple(keep_given(places.given, entry.structure) for entry in held_out),
        atomic_energies=dict(energies),
    )
    return ManifestFile.write(places.tasks, "train", labels, places.folder)


async def _atomic_energies(
    dispatcher: Dispatcher, entries: Sequence[Entry], given: Mapping[str, float] | None
) -> dict[str, float]:
    """Energies of free atoms, by symbol: given, of free atoms in the data, or computed by the data's reference. [eV]"""
    symbols = species(entry.structure for entry in entries)
    free = [entry.structure for entry in entries if is_free_atom(entry.structure) and not charge_of(entry.structure)]
    found = {atoms.get_chemical_formula(): label_of(atoms).energy for atoms in free} | dict(given or {})
    missing = [symbol for symbol in symbols if symbol not in found]
    if missing:
        reference = _reference(entries, missing)
        atoms = await asyncio.gather(*(labelled(dispatcher, isolated_atom(one), reference) for one in missing))
        for symbol, atom in zip(missing, atoms, strict=True):
            if isinstance(atom, Failure):
                raise TaskFailed(
                    f"the free {symbol} atom could not be labelled ({atom.message}); give its energy: "
                    f"atomic_energies={{'{symbol}': …}}"
                )
            found[symbol] = label_of(atom).energy
    check_zero([entry.structure for entry in entries], found)
    return {symbol: float(found[symbol]) for symbol in symbols}


def _reference(entries: Sequence[Entry], missing: Sequence[str]) -> Spec:
    """The single reference of all labels; raises `OptionError` if it is unknown or there are several."""
    said = [entry.provenance.reference for entry in entries]
    references = {one.digest: one for one in said if one is not None}
    if len(references) != 1 or None in said:
        several = "its labels are of several references"
        why = several if len(references) > 1 else "the reference of its labels is not known"
        wanted = ", ".join(f"'{symbol}': …" for symbol in missing)
        raise OptionError(
            f"data: the energies of the free atoms {', '.join(missing)} are needed, and {why}; give "
            f"atomic_energies={{{wanted}}} in eV, or labelled free atoms among the data"
        )
    return next(iter(references.values()))
