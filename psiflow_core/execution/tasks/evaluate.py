"""Predictions of several committees for labelled structures, into one file."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

from psiflow_core.components import Spec
from psiflow_core.execution.tasks.committee import loaded, potentials
from psiflow_core.execution.tasks.manifest import EvaluationLabels, ManifestFile
from psiflow_core.execution.tasks.request import Grant, Request, Result, Work
from psiflow_core.files import file_digest, write_json
from psiflow_core.labels.store import read_labels
from psiflow_core.potentials.predictors import Committee
from psiflow_core.potentials.trained import Member, ModelFile

CHUNK = 64
"""Structures in one batch of predictions."""


class Evaluated(Result):
    file: str
    """A file of predictions by committee and structure; its path is relative to the task's folder."""
    digest: str


class EvaluationRequest(Request):
    """Predict labelled structures with several committees."""

    kind: ClassVar[str] = "evaluate"
    work: ClassVar[Work] = "sample"
    result: ClassVar[type[Result]] = Evaluated
    lists = MappingProxyType({"labels": EvaluationLabels})

    labels: ManifestFile
    """The file of an `EvaluationLabels`."""
    committees: tuple[tuple[Member, ...], ...]

    @property
    def needs(self) -> tuple[Spec, ...]:
        return self.asks[:1]

    @property
    def asks(self) -> tuple[Spec, ...]:
        return potentials([member for committee in self.committees for member in committee])

    def result_files(self, result: Result) -> list[ModelFile]:
        assert isinstance(result, Evaluated)
        return [ModelFile(self.own_folder / result.file, result.digest)]

    def run(self, grant: Grant) -> Evaluated:
        structures = read_labels(self.labels.read(EvaluationLabels).structures)
        predictions = []
        for members in self.committees:
            committee = Committee(loaded(members, grant))
            chunks = [structures[n : n + CHUNK] for n in range(0, len(structures), CHUNK)]
            predictions.append([answer.to_plain() for chunk in chunks for answer in committee.predict(chunk)])
        target = self.attempt() / "predictions.json"
        write_json(target, {"predictions": predictions})
        return Evaluated(file=str(target.relative_to(self.own_folder)), digest=file_digest(target))
