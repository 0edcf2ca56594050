"""A label: read from a store of labels, or computed and stored there."""

from __future__ import annotations

import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

from psiflow_core import answers
from psiflow_core.components import LabelTask, Reference, Spec
from psiflow_core.constraints import unconstrained
from psiflow_core.execution import scratch
from psiflow_core.execution.tasks.request import Grant, Request, Result, Work
from psiflow_core.files import may_be_late
from psiflow_core.identity import Place, Structure
from psiflow_core.labels.store import claim_file, has_label, label_file, label_landing, label_place, write_label
from psiflow_core.processes.claims import claimed
from psiflow_core.registry.engines import require_engine
from psiflow_core.registry.plugins import build
from psiflow_core.structures import Label, to_plain, with_label


class Labelled(Result):
    cached: bool
    """Whether the label was in the store already."""
    computed_by: str | None = None
    """The claim of another process that is computing the label; the driver waits for it."""


class LabelRequest(Request):
    """Label a structure."""

    kind: ClassVar[str] = "label"
    work: ClassVar[Work] = "label"
    result: ClassVar[type[Result]] = Labelled

    reference: Spec
    structure: Structure
    labels: Place
    """The store to read from."""
    own_labels: Place | None = None
    """The store to write to if the first one refuses the label."""

    @property
    def needs(self) -> tuple[Spec, ...]:
        return (self.reference,)

    @cached_property
    def files(self) -> list[Path]:
        """Possible files of the label: in the first store, then in the own store if it is different."""
        stores = dict.fromkeys((self.labels, self.own_labels or self.labels))
        return [label_file(store, self.reference, self.structure) for store in stores]

    def kept(self) -> list[Path]:
        return self.files

    def landing(self, file: Path) -> Path:
        return label_landing(file, self.labels, self.own_labels)

    @property
    def file(self) -> Path:
        """The file of the label, existing or future."""
        return next(filter(has_label, self.files), label_place(self.files))

    @property
    def claim(self) -> Path:
        """The claim of a process that computes the label."""
        return claim_file(label_place(self.files))

    def is_late(self, result: Result) -> bool:
        assert isinstance(result, Labelled)
        if result.computed_by is not None or any(map(has_label, self.files)):
            return False
        return any(map(may_be_late, self.files))

    def claimed_by(self, other: str) -> Labelled:
        return Labelled(cached=True, computed_by=other)

    def run(self, grant: Grant) -> Labelled:
        if any(map(has_label, self.files)):
            return Labelled(cached=True)
        file = label_place(self.files)
        with claimed(claim_file(file)) as other:
            if other is not None:
                return self.claimed_by(str(other))
            if any(map(has_label, self.files)):  # another process has just finished it
                return Labelled(cached=True)
            self._compute(file, grant)
        return Labelled(cached=False)

    def _compute(self, file: Path, grant: Grant) -> None:
        reference, who = cast(Reference, build(self.reference)), answers.named(self.reference)
        require_engine(reference)
        own = self.attempt()
        start = time.perf_counter()
        with scratch.inside(own), answers.blamed(who):
            found: Label = reference.label(unconstrained(self.structure), LabelTask(own, grant.resources))
        found = answers.label(found, self.structure, who)
        record = {
            "structure": to_plain(with_label(self.structure, found)),
            "reference": self.reference.to_plain(),
            "seconds": time.perf_counter() - start,
        }
        if not has_label(file):  # a label stored by another process stays
            write_label(file, record, durable=False)  # the driver makes it durable before it records it
        shutil.rmtree(own, ignore_errors=True)
