"""Between the campaign and the workers: the input of a task, and what its outcome means for the journal.

A task's input is a function of the task and the state, so that a restarted driver makes the same one. Its
identity is the hash of that input without the paths in it: a folder that was moved holds the same tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ase import Atoms

from psiflow_core.components import Spec
from psiflow_core.context import Outcome, Work
from psiflow_core.errors import FileCorrupt, ModelCorrupt, PsiflowError
from psiflow_core.files import holds, sealed, write_atomically, write_sealed
from psiflow_core.learning.campaign import WORK, Candidate, Generation, State, Task, WalkerRecord
from psiflow_core.learning.metrics import error_at
from psiflow_core.learning.schemes import Place, biases_at
from psiflow_core.learning.settings import Settings
from psiflow_core.learning.stopping import ALIKE, WRONG
from psiflow_core.learning.values import malformed
from psiflow_core.learning.walkers import derive_seed
from psiflow_core.models import Member, ModelFile
from psiflow_core.store import Store
from psiflow_core.structures import Plain, digest, label_of, sha256, to_plain
from psiflow_core.tasks import failure, has_label, is_barred, label_place, label_places, read_label

PATHS = {"file", "path", "folder", "labels", "own_labels", "manifest", "weights", "candidates"}
"""Names under which paths stand in a task's input."""

SPECS = {"potential", "sampler", "reference", "bias"}
"""Names under which specs and biases stand there: whatever their options are called, they count."""

FOUND = "its label was found in the store"
"""Why there is a candidate that no event of a walker tells of."""

INPUT = "task.json"
"""The file in a failed task's folder that holds its input: `psiflow rerun` reads it."""


@dataclass(frozen=True)
class Order:
    """A task, ready to be sent."""

    task: Task
    work: Work
    input: Plain
    needs: tuple[Spec, ...] = ()
    """Components that have to be in one environment: that which runs the task."""
    asks: tuple[Spec, ...] = ()
    """Potentials that it asks for predictions; they may be in other environments."""

    @property
    def folder(self) -> Path:
        return Path(self.input["folder"])


class Dispatch:
    """Makes orders of tasks, and events of outcomes.

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
        self._sampler = sampler
        self._reference = reference
        self._settings = settings
        self._store = store
        self._start = [to_plain(structure) for structure in start]

    def order(self, task: Task, state: State) -> Order:
        """The input of a task, in the state in which it is under way."""
        make = {
            "label": self._label,
            "train": self._train,
            "sample": self._sample,
            "score": self._score,
            "evaluate": self._evaluate,
        }
        content = make[task.kind](task, state)
        key = sha256([task.kind, _without_paths(content)])
        content["folder"] = str(self._store.tasks / f"{task.id}-{key[:8]}")
        return Order(task, cast(Work, WORK[task.kind]), content, *components_of(task.kind, content))

    def tried_out(self) -> Plain:
        """What a check of the sampler asks besides: whether walkers, and their biases, can begin where they start."""
        return {
            "spec": self._sampler_at(0.0),
            "bias": self._biases(WalkerRecord(0)),
            "starts": len(self._start),
            "temperature_quantile": self._settings.walking.limits.temperature_quantile,
        }

    def known(self, order: Order) -> Outcome | None:
        """The outcome, where it is there already: a label in the store, or a result that outlived a driver."""
        found = self._store.result(order.folder)
        if found is not None and "value" in found and self._intact(order, found["value"]):
            return Outcome(order.task.id, found["value"], None, found["seconds"], found["worker"])
        if order.task.kind == "label":
            file = self.label_file_of(order)
            if has_label(file):
                return Outcome(order.task.id, {"cached": True}, None)
            asked = label_places(order.input)[0]
            if is_barred(asked) and self._store.labels != self._store.own_labels:
                warnings.warn(
                    f"the label {asked} may not be read by this user: it is computed again, and kept in "
                    f"{self._store.own_labels}",
                    stacklevel=2,
                )
        return None

    def taken_back(self, file: Path) -> Plain:
        """The proposal of a label that no candidate knows of: it is a walker's where a committee chose its structure.

        Raises:
            LabelCorrupt: it is none.
        """
        structure = read_label(file)[0]
        key = digest(structure)
        prediction = self._prediction(key)
        if prediction is None:
            self._store.put_structure(structure.copy())
            return {"structure": key, "origin": "initial", "file": self._relative(file), "reason": FOUND}
        spread = max(prediction["deviation"] or [0.0])
        found = Candidate(-1, key, "walker", "", deviation=spread)
        verdict = self._verdict(found, file)
        return {
            "structure": key,
            "origin": "walker",
            "file": verdict["file"],
            "deviation": spread,
            "error": verdict["error"],
            "suspicious": verdict["suspicious"],
            "discarded": verdict["discard"],
            "reason": FOUND,
        }

    def event(self, order: Order, outcome: Outcome, state: State) -> tuple[str, Plain]:
        """Kind and data of the event that records how a task ended."""
        told: Plain = {"task": order.task.id, "seconds": outcome.seconds, "worker": outcome.worker}
        if outcome.failure is not None:
            if outcome.failure["type"] == ALIKE:
                self._store.forget_trainings()
            return "failed", told | self._failure(order, outcome.failure, state)
        try:
            return self._success(order, cast(Plain, outcome.value), told, state)
        except (PsiflowError, KeyError, TypeError, ValueError) as error:  # what a worker or a disk has made of it
            self._store.forget_result(order.folder)
            return "failed", told | self._failure(order, failure(error), state)

    def _success(self, order: Order, value: Plain, told: Plain, state: State) -> tuple[str, Plain]:
        wrong = malformed(order.task, value)
        if wrong:
            raise ValueError(f"the result of {order.task.id} cannot be built on ({wrong}); it is computed again")
        about = order.task.about
        if order.task.kind == "label":
            file = self.label_file_of(order)
            verdict = self._verdict(state.candidates[about["candidate"]], file)
            return "labelled", told | verdict | {"cached": value["cached"]}
        if order.task.kind == "train":
            model = value["model"] | {"path": self._relative(self._store.models / value["model"]["path"])}
            result = value | {"model": model, "seconds": told["seconds"]}
            return "trained", told | {"generation": about["generation"], "member": about["member"], "result": result}
        if order.task.kind == "sample":
            moved = architectures(self._potentials)[self._turn(order.task, state)]
            walkers = [self._walker(order, plain) for plain in value["walkers"]]
            return "sampled", told | {"potential": moved, "walkers": walkers}
        if order.task.kind == "score":
            return "scored", told | {"deviations": value["deviations"]}
        result = {
            "file": self._relative(order.folder / value["file"]),
            "digest": value["digest"],
            "generations": [generation.number for generation in _complete(state, about["generation"])],
            "potentials": architectures(self._potentials) if len(self._potentials) > 1 else [],
            "candidates": [candidate.id for candidate in state.candidates if evaluated(candidate)],
        }
        return "evaluated", told | {"generation": about["generation"], "result": result}

    def members(self, generation: Generation) -> list[Member]:
        """The models of a generation, in the order of the members."""
        return [self._member(number, generation) for number in sorted(generation.members)]

    def _member(self, number: int, generation: Generation) -> Member:
        model = generation.members[number]["model"]
        file = ModelFile(self._store.absolute(model["path"]), model["digest"])
        return Member(potential_of(number, self._potentials), file)

    def _models(self, generation: Generation) -> list[Plain]:
        return [member.to_plain() for member in self.members(generation)]

    def _label(self, task: Task, state: State) -> Plain:
        candidate = state.candidates[task.about["candidate"]]
        return {
            "reference": self._reference.to_plain(),
            "structure": self._store.structure(candidate.structure)["structure"],
            "labels": str(self._store.labels),
            "own_labels": str(self._store.own_labels),
        }

    def _train(self, task: Task, state: State) -> Plain:
        about = task.about
        generation = state.generations[about["generation"]]
        manifest = {
            "training": self._files(state, generation.training),
            "validation": self._files(state, generation.validation),
            "atomic_energies": self.atomic_energies(state),
        }
        diverged = sum(1 for failed in state.failures if failed.task == task.id and failed.type == "TrainingFailed")
        parent = None
        if self._settings.training.warm_start and generation.number > 0 and not diverged:
            before = state.generations[generation.number - 1]
            if about["member"] in before.members:
                parent = self._member(about["member"], before).file.to_plain()
        steps = self._settings.training.length(parent is not None, generation.final)
        return {
            "potential": potential_of(about["member"], self._potentials).to_plain(),
            **self._manifest(f"train-{generation.number:03d}", manifest, state),
            "parent": parent,
            "seed": derive_seed(self._settings.seed, "train", generation.number, about["member"], diverged),
            "steps": steps,
            "weights": str(self._store.models),
        }

    def _sample(self, task: Task, state: State) -> Plain:
        walking = self._settings.walking
        return {
            "sampler": self._sampler_at(task.about["progress"] / self._settings.budget.labels),
            "models": self._driven(task, state),
            "walkers": [self._walker_input(number, state) for number in task.about["walkers"]],
            "steps": walking.segment.steps,
            "check_every": walking.segment.check_every,
            "stride": walking.segment.stride,
            "limits": walking.limits.model_dump(mode="json"),
            "candidates": str(self._store.structures),
        }

    def _sampler_at(self, progress: float) -> Plain:
        """The sampler, its options ramped to this fraction of the labels."""
        ramped = self._settings.walking.ramped(progress)
        return Spec(**{**vars(self._sampler), "options": {**self._sampler.options, **ramped}}).to_plain()

    def _driven(self, task: Task, state: State) -> list[Plain]:
        """The models, that which moves the walkers first: potentials take turns."""
        members = self.members(state.generations[task.about["generation"]])
        turn = self._turn(task, state)
        return [member.to_plain() for member in (*members[turn:], *members[:turn])]

    def _turn(self, task: Task, state: State) -> int:
        """Which potential moves the walkers of a task that is under way."""
        first = state.walkers[task.about["walkers"][0]]
        return (first.id + first.segments) % len(self._potentials)

    def _walker_input(self, number: int, state: State) -> Plain:
        walker = state.walkers[number]
        told: Plain = {
            "walker": number,
            "seed": derive_seed(self._settings.seed, "walker", number, walker.segments),
        }
        if self._settings.walking.bias:
            told["bias"] = self._biases(walker)
        if walker.file is None:
            return told | {"structure": self._start[number % len(self._start)]}
        return told | {"file": str(self._store.absolute(walker.file)), "digest": walker.digest}

    def _biases(self, walker: WalkerRecord) -> list[Plain]:
        """What acts on a walker in its next segment."""
        walking = self._settings.walking
        place = Place(walker.id, self._settings.walkers, walker.stage, walker.since, walking.segment.steps)
        return [bias.to_plain() for bias in biases_at(place, walking.bias)]

    def _score(self, task: Task, state: State) -> Plain:
        return {
            "models": self._models(state.generations[task.about["generation"]]),
            "structures": [state.candidates[number].structure for number in task.about["candidates"]],
            "candidates": str(self._store.structures),
        }

    def _evaluate(self, task: Task, state: State) -> Plain:
        labelled = [candidate.id for candidate in state.candidates if evaluated(candidate)]
        generations = _complete(state, task.about["generation"])
        return {
            **self._manifest(task.id, {"structures": self._files(state, labelled)}, state),
            "committees": [*map(self._models, generations), *self._architectures(generations[-1])],
        }

    def _architectures(self, generation: Generation) -> list[list[Plain]]:
        """The members of each potential, where there are several."""
        if len(self._potentials) == 1:
            return []
        models, turns = self._models(generation), len(self._potentials)
        return [models[turn::turns] for turn in range(turns)]

    def _manifest(self, name: str, content: Plain, state: State) -> Plain:
        """A list of files goes to workers as a file: it may be long."""
        files = {key: value for key, value in content.items() if key != "atomic_energies"}
        identity = {key: [Path(file).stem for file in value] for key, value in files.items()}
        digest = sha256([identity, content.get("atomic_energies")])
        path = self._store.tasks / f"{name}-{digest[:8]}.json"
        written = sealed(content)
        if not holds(path, written):
            write_atomically(path, written, durable=False)
        return {"manifest": str(path), "manifest_digest": digest}

    def _files(self, state: State, candidates: Sequence[int]) -> list[str]:
        files = [state.candidates[number].file for number in candidates]
        return [str(self._store.absolute(file)) for file in files if file is not None]

    def atomic_energies(self, state: State) -> dict[str, float]:
        atoms = [read_label(self._store.absolute(atom.file or ""))[0] for atom in state.of("atom")]
        return {atom.get_chemical_formula(): label_of(atom).energy for atom in atoms}

    def label_file_of(self, order: Order) -> Path:
        """Where the label that an order asks for is, or will be."""
        files = label_places(order.input)
        return next(filter(has_label, files), label_place(files))

    def _verdict(self, candidate: Candidate, file: Path) -> Plain:
        """Hold the label against what the model said of the structure when it chose it."""
        labelled, record = read_label(file)
        prediction, error = self._prediction(candidate.structure), None
        if candidate.origin == "walker":
            error = _error(labelled, prediction)
        thresholds = self._settings.walking.errors
        return {
            "candidate": candidate.id,
            "file": self._relative(file),
            "cost": record["seconds"],
            "error": error,
            "suspicious": error is not None and thresholds.suspects(error, candidate.deviation or 0.0),
            "reset": error is not None and thresholds.resets(error),
            "discard": error is not None and thresholds.discards(error),
        }

    def _prediction(self, structure: str) -> Plain | None:
        """What the committee said of a structure; None where it was not asked, or that is lost."""
        try:
            found: Plain | None = self._store.structure(structure).get("prediction")
        except FileCorrupt:
            return None
        return found

    def _walker(self, order: Order, told: Plain) -> Plain:
        if "failure" in told:
            told = told | {"failure": told["failure"] | self._kept(order)}
        files = {name: told[name] for name in ("file", "trajectory") if name in told}
        return told | {name: self._relative(order.folder / file) for name, file in files.items()}

    def _intact(self, order: Order, value: Plain) -> bool:
        """Whether the files that a result speaks of are there, and are what it was made of."""
        if malformed(order.task, value) or _betrayed(value):
            return False
        if order.task.kind == "label":
            return has_label(self.label_file_of(order))
        files: list[Plain] = []
        if order.task.kind == "train":
            files = [{"file": self._store.models / value["model"]["path"], "digest": value["model"]["digest"]}]
        if order.task.kind in ("sample", "evaluate"):
            files = [one for one in value.get("walkers", [value]) if "file" in one]
        try:
            for one in files:
                ModelFile(order.folder / one["file"], one["digest"]).verified()
        except ModelCorrupt:
            return False
        return True

    def _relative(self, path: Path) -> str:
        return self._store.relative(str(path))

    def _failure(self, order: Order, met: Plain, state: State) -> Plain:
        attempts = state.attempts[order.task.id]
        again = self._settings.stopping.tries_again(order.task.kind, met["type"], met["reason"], attempts)
        told = {name: met[name] for name in ("type", "reason", "message", "plugin", "where", "trace")}
        return told | {"again": again} | self._kept(order)

    def _kept(self, order: Order) -> Plain:
        """The folder of a failed task, once its input is in it; why it is not, where the disk takes no more."""
        told: Plain = {"folder": self._relative(order.folder)}
        known = {"campaign": str(self._store.folder), "kind": order.task.kind, "input": order.input}
        try:
            write_sealed(order.folder / INPUT, known)
        except OSError as error:
            told["unkept"] = str(error)
        return told


def _error(labelled: Atoms, prediction: Plain | None) -> dict[str, float] | None:
    """A model's error at a labelled structure; None where what it said is not known, or cannot be read any longer."""
    try:
        return None if prediction is None else error_at(labelled, prediction)
    except (KeyError, TypeError, ValueError):
        return None


def _betrayed(value: Plain) -> bool:
    """Whether a plugin broke its contract for some walker: it may be mended since."""
    return any(walker["failure"]["type"] in WRONG for walker in value.get("walkers", ()) if "failure" in walker)


def _complete(state: State, upto: int) -> list[Generation]:
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


def components_of(kind: str, content: Plain) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """The components that a task needs in its own environment, and the potentials that it asks."""
    own = [Spec.from_plain(content[name]) for name in ("reference", "potential", "sampler") if name in content]
    models = content["committees"][0] if kind == "evaluate" else content.get("models", [])
    specs = [Spec.from_plain(plain["potential"]) for plain in models]
    asks = list({spec.digest: spec for spec in specs}.values())
    return (*own, *asks[:1]), tuple(asks)


def evaluated(candidate: Candidate) -> bool:
    """Whether predictions are held against this label in the report."""
    return candidate.status == "labelled" and candidate.origin != "atom"


def _without_paths(content: Any) -> Any:
    if isinstance(content, dict):
        kept = {key: value for key, value in content.items() if key not in PATHS}
        return {key: value if key in SPECS else _without_paths(value) for key, value in kept.items()}
    return [_without_paths(value) for value in content] if isinstance(content, list) else content
