"""The relaxation of a structure to the nearest minimum, of a potential or of a reference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from ase import Atoms

from psiflow_core import answers
from psiflow_core.components import Prediction, Predictor, Sampler, SamplingTask, Spec, Walker
from psiflow_core.errors import Interrupted, OptionError
from psiflow_core.execution import scratch
from psiflow_core.execution.tasks.committee import loaded, potentials
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.request import Grant, Request, Result, Work
from psiflow_core.files import file_digest, read_json, write_json
from psiflow_core.identity import Place, Structure
from psiflow_core.labels.store import by_key, label_landing, read_label
from psiflow_core.potentials.predictors import Committee
from psiflow_core.potentials.trained import Member, ModelFile
from psiflow_core.processes.block import has_time, remaining
from psiflow_core.registry.engines import require_engine
from psiflow_core.registry.plugins import build
from psiflow_core.sampling.monitor import Limits
from psiflow_core.sampling.walk import sample_together
from psiflow_core.structures import Label, bare, from_plain, label_of, to_plain, with_label

STEPS = "labels.txt"
"""The file in the folder of a relaxation by a reference with the keys of its labels, one on each line."""

DOWNHILL = Limits(deviation=1e9, lost=1e9, force=1e9, distance=1e-3)
"""Only non-finite values stop a relaxation: it may start at a high energy."""


class Relaxed(Result):
    file: str = ""
    """The file of the structure with its label, relative to the task's folder."""
    digest: str = ""
    """The file's hash."""
    converged: bool = False
    steps: int = 0
    computed_by: str | None = None
    """The process that computes the label of a step; then nothing else is set."""
    claim: str | None = None
    """The claim of that label: the relaxation goes on once it is over."""


class ComputedElsewhere(Exception):
    """Another process computes a label that a relaxation needs."""

    def __init__(self, owner: str, claim: Path) -> None:
        super().__init__(f"{owner} computes the label of {claim.name}")
        self.owner = owner
        self.claim = claim


class RelaxationRequest(Request):
    """Relax a structure. Either a committee or a reference gives the forces."""

    kind: ClassVar[str] = "relax"
    work: ClassVar[Work] = "sample"
    result: ClassVar[type[Result]] = Relaxed

    structure: Structure
    optimiser: Spec
    """A sampler that ends at a minimum: an optimiser."""
    steps: int
    """Largest number of steps."""
    models: tuple[Member, ...] = ()
    """The committee, whose mean gives the forces; empty with a reference."""
    reference: Spec | None = None
    labels: Place | None = None
    """The store of labels; every step of a relaxation by a reference is a label in it."""
    own_labels: Place | None = None
    """The store to write to if the first one refuses a label."""

    @property
    def pool(self) -> Work:
        return "sample" if self.reference is None else "label"

    @property
    def needs(self) -> tuple[Spec, ...]:
        return (self.optimiser, self.reference) if self.reference else (self.optimiser, *self.asks[:1])

    @property
    def asks(self) -> tuple[Spec, ...]:
        return potentials(self.models)

    def result_files(self, result: Result) -> list[ModelFile]:
        assert isinstance(result, Relaxed)
        if result.computed_by is not None:
            return []
        return [ModelFile(self.own_folder / result.file, result.digest)]

    def kept(self) -> list[Path]:
        steps = self.own_folder / STEPS
        keys = steps.read_text().split() if steps.is_file() else []
        stores = [store for store in (self.labels, self.own_labels) if store is not None]
        return [steps, *(by_key(store, key) for key in keys for store in stores)]

    def landing(self, file: Path) -> Path:
        return file if self.labels is None else label_landing(file, self.labels, self.own_labels)

    def run(self, grant: Grant) -> Relaxed:
        optimiser = cast(Sampler, build(self.optimiser))
        require_engine(optimiser)
        who = answers.named(self.optimiser)
        answers.check(optimiser, [self.structure], who)
        attempt, forces = self.attempt(), self._forces(grant)
        task = SamplingTask(self.steps, 0, check_every=self.steps, resources=grant.resources)
        with scratch.inside(attempt):
            (visit,) = sample_together(optimiser, [Walker(self.structure)], [task], forces, forces, DOWNHILL, (), who)
        if isinstance(visit.error, ComputedElsewhere):  # the verb waits, and no worker does
            return Relaxed(computed_by=visit.error.owner, claim=str(visit.error.claim))
        if visit.segment is None:
            raise cast(BaseException, visit.error)
        ended = visit.segment.walker.structure
        (said,) = answers.asked(forces, [ended])
        file = attempt / "relaxed.json"
        labelled = with_label(ended, Label(said.energy, said.forces, said.stress))
        write_json(file, {"structure": to_plain(labelled)})
        return Relaxed(
            file=str(file.relative_to(self.own_folder)),
            digest=file_digest(file),
            converged=visit.segment.finished,
            steps=visit.segment.steps,
        )

    def _forces(self, grant: Grant) -> Predictor:
        if self.reference is None:
            members = loaded(self.models, grant)
            return members[0] if len(members) == 1 else Committee(members)
        if self.labels is None:
            raise OptionError("a relaxation by a reference needs a store for its labels: labels=…")
        return Labelling(self.reference, self.labels, self.own_labels or self.labels, self.own_folder, grant)


class Labelling(Predictor):
    """A reference as a predictor. Each structure is labelled once: labels of a killed relaxation are reused."""

    def __init__(self, reference: Spec, labels: Path, own_labels: Path, folder: Path, grant: Grant) -> None:
        self._stores = {"labels": labels, "own_labels": own_labels, "folder": folder}
        self._reference = reference
        self._longest = 0.0
        """The time of a label. [s]"""
        self._grant = grant

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        labels = [self._label(atoms) for atoms in structures]
        return [Prediction(label.energy, label.forces, label.stress) for label in labels]

    def _label(self, structure: Atoms) -> Label:
        asked: dict[str, Any] = {"reference": self._reference, "structure": bare(structure), **self._stores}
        request = LabelRequest(**asked)
        if not has_time(self._longest):
            raise Interrupted(f"its block ends in {remaining():.0f} s")
        began = time.monotonic()
        owner = request.run(self._grant).computed_by
        if owner is not None:
            raise ComputedElsewhere(owner, request.claim)
        self._longest = max(self._longest, time.monotonic() - began)
        with (request.own_folder / STEPS).open("a") as steps:
            steps.write(f"{request.file.stem}\n")
        return label_of(read_label(request.file)[0])


def read_relaxed(file: ModelFile) -> Atoms:
    """The structure of a relaxation, with its label; raises `FileCorrupt`."""
    return from_plain(read_json(file.verified(), ("structure",))["structure"])
