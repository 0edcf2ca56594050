"""What a user writes: the three components and the policies of a campaign, and what comes out of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from pydantic import field_validator

from psiflow_core.catalogue import as_spec, settled
from psiflow_core.components import Component, Kind, Spec
from psiflow_core.context import Context
from psiflow_core.errors import CampaignError, OptionError
from psiflow_core.learning.campaign import State
from psiflow_core.learning.dispatch import potential_of
from psiflow_core.learning.driver import Driver
from psiflow_core.learning.given import Structures, structures
from psiflow_core.learning.records import Campaign
from psiflow_core.learning.settings import Settings
from psiflow_core.models import Member, ModelFile, TrainedPotential
from psiflow_core.structures import Plain
from psiflow_core.terminal import showable


class OnlineLearning(Settings):
    """Sampling, labelling and training, interleaved until the budget is spent or nothing new is met.

    Raises:
        OptionError: an option is unknown or out of range, or a component is of the wrong kind.
        PluginNotFound, PluginBroken: a component given by name is not there.
    """

    potential: Spec | tuple[Spec, ...]
    """What is trained: `psiflow.potential(…)`, or a name for its defaults. Several of them make a committee of
    several architectures: its members are of each in turn, and each moves walkers in turn."""
    sampler: Spec
    """How walkers move: `psiflow.sampler(…)`, or a name."""
    reference: Spec
    """The level of theory: `psiflow.reference(…)`, or a name."""

    @field_validator("potential", "sampler", "reference", mode="before")
    @classmethod
    def _by_name(cls, given: Any, info: Any) -> Spec | tuple[Spec, ...]:
        kind: Kind = info.field_name
        if kind == "potential" and isinstance(given, list | tuple):
            if not given:
                raise OptionError("potential=[]: name at least one")
            several = tuple(_component(kind, one) for one in given)
            return several if len(several) > 1 else several[0]
        return _component(kind, given)

    @property
    def potentials(self) -> tuple[Spec, ...]:
        """What is trained, also where it is but one."""
        return self.potential if isinstance(self.potential, tuple) else (self.potential,)

    def run(
        self,
        start: Structures,
        folder: str | Path,
        context: Context | None = None,
        *,
        test: Structures = (),
        data: Structures = (),
        model: TrainedPotential | str | Path | None = None,
        labels: str | Path | None = None,
        progress: bool = True,
        grace: float = 20.0,
    ) -> Result:
        """Run the campaign, or go on with the one in ``folder``; one that is finished returns at once.

        Args:
            start: where walkers begin, in turn: a structure, a file of them, or a list of structures and files.
            folder: the campaign's own; the journal and all results are in it.
            context: where tasks run; by default on this machine.
            test: structures that are labelled but never learned from; the final errors are theirs.
            data: labelled structures to begin with, instead of a bootstrap; `read_labelled` reads those whose labels
                have other names than ASE's. Free atoms among them are held against the reference's.
            model: a trained potential of the same kind to begin with.
            labels: a folder of labels that campaigns share.
            progress: show it in the terminal.
            grace: how long Ctrl-C and SIGTERM wait for what is about to finish. [s]

        Raises:
            StructureError: a structure that nothing should be computed for.
            CampaignError: the folder is another campaign's, in use or unwritable; or too much failed.
            EngineMissing: what a component needs cannot be imported on its workers.
        """
        potentials = [settled(spec) for spec in self.potentials]
        campaign = Campaign(
            learning=self,
            potentials=potentials,
            sampler=settled(self.sampler),
            reference=settled(self.reference),
            start=structures(start, "start"),
            test=structures(test, "test"),
            data=structures(data, "data"),
            model=TrainedPotential.load(model) if isinstance(model, str | Path) else model,
        )
        driver = Driver(campaign, Path(folder), labels, progress, grace)
        if context is not None:
            state = driver.run(context)
        else:
            with Context(folder=Path(folder) / "pools") as own:
                state = driver.run(own)
        return Result(Path(folder).absolute(), state, potentials)


class Result:
    """What a campaign came to."""

    def __init__(self, folder: Path, state: State, potentials: Sequence[Spec]) -> None:
        self.folder = folder
        self.state = state
        self._potentials = potentials

    @cached_property
    def potential(self) -> TrainedPotential:
        """The final committee; it stays what it is when the campaign goes on.

        Raises:
            CampaignError: the campaign ended before there was a first model.
        """
        if self.state.newest is None:
            raise CampaignError(f"the campaign in {self.folder} has no model: {self.state.message}")
        members = [
            Member(potential_of(number, self._potentials), ModelFile(self.folder / one["path"], one["digest"]))
            for number, one in enumerate(self.state.newest.models)
        ]
        return TrainedPotential(members)

    @cached_property
    def dataset(self) -> list[Atoms]:
        """Every labelled structure, with its provenance in ``info``."""
        return list(ase.io.read(self.folder / "dataset.xyz", index=":"))

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @cached_property
    def summary(self) -> Plain:
        """Counts, times and errors, as in the report."""
        from psiflow_core.report.summary import summarise

        return summarise(self.folder)

    def __str__(self) -> str:
        from psiflow_core.report.summary import in_words

        return showable(in_words(self.folder, self.summary))

    def export(self, folder: str | Path) -> Path:
        """Copy the potential, in psiflow's and its own format, the data set and the report to a folder."""
        target = Path(folder)
        self.potential.save(target / "potential")
        self.potential.export(target / "native")
        for name in ("dataset.xyz", "report.html"):
            shutil.copy(self.folder / name, target / name)
        return target


def _component(kind: Kind, given: Spec | Component | str) -> Spec:
    spec = as_spec(kind, given)
    if spec.kind != kind:
        raise OptionError(f"this is a {spec.kind} ('{spec.name}'); psiflow.{kind}(…) makes a {kind}")
    return spec
