"""The disagreement of a committee on structures that wait for a label."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

from psiflow_core.components import Prediction, Spec
from psiflow_core.execution.tasks.committee import loaded, potentials
from psiflow_core.execution.tasks.request import Grant, Request, Result, Work
from psiflow_core.identity import Place
from psiflow_core.labels.store import read_structure, structure_file
from psiflow_core.potentials.predictors import Committee
from psiflow_core.potentials.trained import Member
from psiflow_core.structures import from_plain


class Scored(Result):
    deviations: list[float]
    """The largest force spread in each structure; infinite if it is not a number. [eV/Å]"""


class ScoreRequest(Request):
    """Score candidates with a committee."""

    kind: ClassVar[str] = "score"
    work: ClassVar[Work] = "sample"
    result: ClassVar[type[Result]] = Scored

    models: tuple[Member, ...]
    structures: tuple[str, ...]
    """Content hashes of the candidates."""
    candidates: Place
    """The folder of their structures."""

    @property
    def needs(self) -> tuple[Spec, ...]:
        return self.asks[:1]

    @property
    def asks(self) -> tuple[Spec, ...]:
        return potentials(self.models)

    def kept(self) -> list[Path]:
        return [structure_file(self.candidates, key) for key in self.structures]

    def objection(self, result: Result) -> str | None:
        assert isinstance(result, Scored)
        if len(result.deviations) != len(self.structures):
            return "its number of candidates is not that of the request"
        return None

    def run(self, grant: Grant) -> Scored:
        records = [read_structure(self.candidates, key) for key in self.structures]
        committee = Committee(loaded(self.models, grant))
        said = committee.predict([from_plain(record["structure"]) for record in records])
        return Scored(deviations=[_need(one) for one in said])


def _need(answer: Prediction) -> float:
    largest = 0.0 if answer.deviation is None else float(answer.deviation.max())
    return largest if math.isfinite(largest) else math.inf
