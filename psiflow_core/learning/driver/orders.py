"""The requests of tasks: a function of the task and the state, so that a restarted driver makes the same ones.

The folder of a task is named after its request's identity, in which no place counts: a campaign that was moved holds
the same tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from psiflow_core.components import Place, Spec
from psiflow_core.environments.catalogue import spec_of
from psiflow_core.errors import ModelCorrupt
from psiflow_core.execution.failures import WRONG
from psiflow_core.execution.tasks.check import Departure
from psiflow_core.execution.tasks.evaluate import EvaluationRequest
from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.manifest import EvaluationLabels, ManifestFile, TrainingLabels
from psiflow_core.execution.tasks.request import Outcome, Request, Result
from psiflow_core.execution.tasks.sample import Lost, Sampled, SamplingRequest, WalkerStart
from psiflow_core.execution.tasks.score import ScoreRequest
from psiflow_core.execution.tasks.train import TrainingRequest
from psiflow_core.labels.store import has_label, is_barred, read_label
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.generations import Generation
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import Evaluating, Labelling, MemberTraining, Sampling, Scoring, Task
from psiflow_core.learning.machine.walkers import WalkerRecord
from psiflow_core.learning.policies.conditions import Conditions
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.potentials.trained import Member, ModelFile
from psiflow_core.sampling.schemes import biases_at
from psiflow_core.sampling.segments import derive_seed
from psiflow_core.structures import from_plain, label_of

REQUEST = "task.json"
"""The file in a failed task's folder that holds its request: `psiflow rerun` reads it."""


@dataclass(frozen=True)
class Order:
    """A task, ready to be sent."""

    task: Task
    request: Request

    @property
    def folder(self) -> Path:
        return self.request.own_folder


class Orders:
    """Makes orders of tasks, and finds what has come of them.

    Args:
        start: the structures that walkers begin at, in turn.
    """

    def __init__(
        self,
        potentials: Sequence[Spec],
        sampler: Spec,
        reference: Spec,
        settings: Settings,
        store: Store,
        start: Sequence[Atoms],
    ) -> None:
        self._potentials = potentials
        self._conditions = [Conditions.of(sampler, group, settings.walking.ramps) for group in settings.groups]
        self._reference = reference
        self._settings = settings
        self._store = store
        self._start = list(start)

    def order(self, task: Task, state: State) -> Order:
        """The request of a task, in the state in which it is under way."""
        return Order(task, self._request(task, state).placed(self._store.tasks, task.id))

    def _request(self, task: Task, state: State) -> Request:
        match task.about:
            case Labelling() as about:
                return self._label(about, state)
            case MemberTraining() as about:
                return self._train(task.id, about, state)
            case Sampling() as about:
                return self._sample(about, state)
            case Scoring() as about:
                return self._score(about, state)
            case about:
                return self._evaluate(task.id, about, state)

    def departures(self) -> Iterator[tuple[Spec, Departure]]:
        """The sampler of each group before there is a label, and how the group's walkers and biases set off."""
        first = 0
        for group, conditions in zip(self._settings.groups, self._conditions, strict=True):
            yield (
                conditions.at(0.0),
                Departure(
                    structures=tuple(self._start),
                    bias=tuple(self._biases(WalkerRecord(first))),
                    temperature_quantile=self._settings.walking.limits.temperature_quantile,
                ),
            )
            first += group.count

    def known(self, order: Order) -> Outcome | None:
        """The outcome, where it is there already: a label in the store, or a result that outlived a driver."""
        found = self._store.outcome(order.task.id, order.request)
        if found is not None and found.value is not None and self._intact(order, found.value):
            return found
        if isinstance(order.request, LabelRequest):
            if has_label(order.request.file):
                return Outcome(order.task.id, Labelled(cached=True), None)
            asked = order.request.files[0]
            if is_barred(asked) and self._store.labels != self._store.own_labels:
                warnings.warn(
                    f"the label {asked} may not be read by this user: it is computed again, and kept in "
                    f"{self._store.own_labels}",
                    stacklevel=2,
                )
        return None

    def members(self, generation: Generation) -> list[Member]:
        """The models of a generation, in the order of the members."""
        return [self._member(number, generation) for number in sorted(generation.members)]

    def _member(self, number: int, generation: Generation) -> Member:
        model = generation.members[number].model
        file = ModelFile(self._store.absolute(model.path), model.digest)
        return Member(potential_of(number, self._potentials), file)

    def _label(self, about: Labelling, state: State) -> LabelRequest:
        candidate = state.candidates[about.candidate]
        return LabelRequest(
            reference=self._reference,
            structure=from_plain(self._store.structure(candidate.structure)["structure"]),
            labels=self._store.labels,
            own_labels=self._store.own_labels,
        )

    def _train(self, name: str, about: MemberTraining, state: State) -> TrainingRequest:
        generation = state.generations[about.generation]
        labels = TrainingLabels(
            training=self._files(state, generation.training),
            validation=self._files(state, generation.validation),
            atomic_energies=self.atomic_energies(state),
        )
        diverged = sum(1 for failed in state.failures if failed.task == name and failed.type == "TrainingFailed")
        parent = None
        if self._settings.training.warm_start and generation.number > 0 and not diverged:
            before = state.generations[generation.number - 1]
            if about.member in before.members:
                parent = self._member(about.member, before).file
        return TrainingRequest(
            potential=potential_of(about.member, self._potentials),
            labels=ManifestFile.write(self._store.tasks, f"train-{generation.number:03d}", labels, self._store.folder),
            parent=parent,
            seed=derive_seed(self._settings.seed, "train", generation.number, about.member, diverged),
            steps=self._settings.training.length(parent is not None, generation.final),
            weights=self._store.models,
        )

    def _sample(self, about: Sampling, state: State) -> SamplingRequest:
        walking = self._settings.walking
        group, _ = self._settings.group_of(about.walkers[0])
        return SamplingRequest(
            sampler=self._conditions[group].at(about.progress / self._settings.budget.labels),
            models=self._driven(about, state),
            walkers=tuple(self._walker_start(number, state) for number in about.walkers),
            steps=walking.segment.steps,
            check_every=walking.segment.check_every,
            stride=walking.segment.stride,
            limits=walking.limits,
            candidates=self._store.structures,
        )

    def _driven(self, about: Sampling, state: State) -> tuple[Member, ...]:
        """The models, that which moves the walkers first: potentials take turns."""
        members = self.members(state.generations[about.generation])
        turn = self.turn(about, state)
        return (*members[turn:], *members[:turn])

    def turn(self, about: Sampling, state: State) -> int:
        """Which potential moves the walkers of a task that is under way."""
        first = state.walkers[about.walkers[0]]
        return (first.id + first.segments) % len(self._potentials)

    def _walker_start(self, number: int, state: State) -> WalkerStart:
        walker = state.walkers[number]
        moved = None if walker.file is None else ModelFile(self._store.absolute(walker.file), walker.digest or "")
        return WalkerStart(
            walker=number,
            seed=derive_seed(self._settings.seed, "walker", number, walker.segments),
            structure=self._start[number % len(self._start)] if moved is None else None,
            file=moved,
            bias=tuple(self._biases(walker)),
        )

    def _biases(self, walker: WalkerRecord) -> list[Spec]:
        """What acts on a walker in its next segment."""
        number, own = self._settings.group_of(walker.id)
        group = self._settings.groups[number]
        place = Place(own, group.count, walker.stage, walker.since, self._settings.walking.segment.steps)
        return [spec_of(bias) for bias in biases_at(place, self._settings.bias_of(group))]

    def _score(self, about: Scoring, state: State) -> ScoreRequest:
        return ScoreRequest(
            models=tuple(self.members(state.generations[about.generation])),
            structures=tuple(state.candidates[number].structure for number in about.candidates),
            candidates=self._store.structures,
        )

    def _evaluate(self, name: str, about: Evaluating, state: State) -> EvaluationRequest:
        labelled = [candidate.id for candidate in state.candidates if evaluated(candidate)]
        labels = EvaluationLabels(structures=self._files(state, labelled))
        generations = complete(state, about.generation)
        return EvaluationRequest(
            labels=ManifestFile.write(self._store.tasks, name, labels, self._store.folder),
            committees=(*map(self._committee, generations), *self._architectures(generations[-1])),
        )

    def _committee(self, generation: Generation) -> tuple[Member, ...]:
        return tuple(self.members(generation))

    def _architectures(self, generation: Generation) -> list[tuple[Member, ...]]:
        """The members of each potential, where there are several."""
        if len(self._potentials) == 1:
            return []
        members, turns = self._committee(generation), len(self._potentials)
        return [members[turn::turns] for turn in range(turns)]

    def _files(self, state: State, candidates: Sequence[int]) -> tuple[Path, ...]:
        files = [state.candidates[number].file for number in candidates]
        return tuple(self._store.absolute(file) for file in files if file is not None)

    def atomic_energies(self, state: State) -> dict[str, float]:
        atoms = [read_label(self._store.absolute(atom.file or ""))[0] for atom in state.of("atom")]
        return {atom.get_chemical_formula(): label_of(atom).energy for atom in atoms}

    def _intact(self, order: Order, value: Result) -> bool:
        """Whether the files that a result speaks of are there, and are what it was made of."""
        if isinstance(order.request, LabelRequest):
            return has_label(order.request.file)
        if _betrayed(value):
            return False
        try:
            for file in order.request.result_files(value):
                file.verified()
        except ModelCorrupt:
            return False
        return True

    def relative(self, path: Path) -> str:
        return self._store.relative(str(path))


def _betrayed(value: Result) -> bool:
    """Whether a plugin broke its contract for some walker: it may be mended since."""
    lost = [one for one in value.walkers if isinstance(one, Lost)] if isinstance(value, Sampled) else []
    return any(one.failure.type in WRONG for one in lost)


def complete(state: State, upto: int) -> list[Generation]:
    """The generations up to this one of which every member is there."""
    return [generation for generation in state.generations[: upto + 1] if generation.complete]


def potential_of(member: int, potentials: Sequence[Spec]) -> Spec:
    """Which potential a member of the committee is of: they take turns."""
    return potentials[member % len(potentials)]


def architectures(potentials: Sequence[Spec]) -> list[str]:
    """What to call the potentials of a committee: by their names, numbered where two have the same."""
    names = [spec.name for spec in potentials]
    twice = {name for name in names if names.count(name) > 1}
    return [f"{name} ({number})" if name in twice else name for number, name in enumerate(names, 1)]


def evaluated(candidate: Candidate) -> bool:
    """Whether predictions are held against this label in the report."""
    return candidate.status == "labelled" and candidate.origin != "atom"
