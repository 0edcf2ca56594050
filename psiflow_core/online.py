"""Online learning for users: a campaign of three components and policies, and its result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from ase import Atoms
from ase.calculators.calculator import Calculator
from pydantic import field_validator, model_validator

from psiflow_core.checks import check
from psiflow_core.components import Component, Kind, Spec
from psiflow_core.environments.catalogue import as_spec, settled
from psiflow_core.errors import CampaignError, OptionError
from psiflow_core.execution.context import Context
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.given import Structures, structures
from psiflow_core.learning.driver.driver import Driver
from psiflow_core.learning.driver.orders import potential_of
from psiflow_core.learning.driver.request import Campaign, read_campaign
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.policies.conditions import Conditions
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.potentials.metrics import ErrorTable, errors_by_set
from psiflow_core.potentials.trained import Member, ModelFile, TrainedPotential
from psiflow_core.report.display import Progress
from psiflow_core.report.outlet import showable
from psiflow_core.report.summary import Summary, summarise
from psiflow_core.results import SegmentTrajectory, trajectories, write_results


class OnlineLearning(Settings):
    """Sampling, labelling and training, interleaved until the budget is spent or walkers meet nothing new.

    Raises:
        OptionError: an option is unknown or out of range, or a component is of the wrong kind.
        PluginNotFound, PluginBroken: a component given by name is not installed, or its plugin does not load.
    """

    potential: Spec | tuple[Spec, ...]
    """The potential to train: `psiflow.potential(…)`, or a name for its defaults. A list makes a committee of several
    architectures: its members are of each in turn, and each moves walkers in turn."""
    sampler: Spec
    """The sampler that moves walkers: `psiflow.sampler(…)`, or a name for its defaults."""
    reference: Spec
    """The level of theory: `psiflow.reference(…)`, or a name for its defaults."""

    @field_validator("potential", "sampler", "reference", mode="before")
    @classmethod
    def _by_name(cls, given: Any, info: Any) -> Spec | tuple[Spec, ...]:
        kind: Kind = info.field_name
        if kind == "potential" and isinstance(given, list | tuple):
            if not given:
                raise OptionError("potential=[]: give at least one potential")
            several = tuple(_component(kind, one) for one in given)
            return several if len(several) > 1 else several[0]
        return _component(kind, given)

    @model_validator(mode="after")
    def _conditions_fit(self) -> Self:
        for number, group in enumerate(self.groups):
            try:
                Conditions.of(self.sampler, group, self.walking.ramps)
            except OptionError as error:
                which = f"walkers.{number}: " if isinstance(self.walkers, tuple) else ""
                raise OptionError(f"{which}{error}") from None
        return self

    @property
    def potentials(self) -> tuple[Spec, ...]:
        """The potentials to train, as a tuple even if there is only one."""
        return self.potential if isinstance(self.potential, tuple) else (self.potential,)

    def _samplers(self) -> Iterator[Spec]:
        """The sampler of each group with its own conditions, at both ends of its ramps."""
        for group in self.groups:
            conditions = Conditions.of(self.sampler, group, self.walking.ramps)
            ends = (conditions.at(0.0), conditions.at(1.0))
            yield from {end.digest: end for end in ends if end != self.sampler}.values()

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
        """Run the campaign, or continue the one in ``folder``; a finished campaign returns at once.

        Args:
            start: the structures from which walkers start, in turn: a structure, a file, or a list of both.
            folder: the campaign's folder, for the journal and all results.
            context: where tasks run; by default on this machine.
            test: structures that are labelled but never learned from; the final errors are computed on them.
            data: labelled structures to begin with, instead of a bootstrap. For labels under other names than ASE's,
                use `Dataset.load`. Free atoms among them are compared with those of the reference.
            model: a trained potential of the same kind to begin with.
            labels: a label store that campaigns share.
            progress: whether to show the progress in the terminal.
            grace: how long Ctrl-C and SIGTERM wait for tasks that are about to finish. [s]

        Raises:
            StructureError: a structure is unsuitable for a calculation.
            CampaignError: the folder belongs to another campaign, is in use or unwritable; or too many tasks failed.
            EngineMissing: a package that a component needs cannot be imported on its workers.
        """
        potentials = [settled(spec) for spec in self.potentials]
        for spec in self._samplers():
            settled(spec)
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
        driver = Driver(campaign, Path(folder), labels, Progress(progress), write_results, grace)
        if context is not None:
            state = driver.run(context)
        else:
            with Context(folder=folder) as own:
                state = driver.run(own)
        return Result(Path(folder).absolute(), state, potentials)


class Result:
    """The result of a campaign."""

    def __init__(self, folder: Path, state: State, potentials: Sequence[Spec]) -> None:
        self.folder = folder
        self.state = state
        self._potentials = potentials

    @cached_property
    def potential(self) -> TrainedPotential:
        """The final committee; it does not change when the campaign continues.

        Raises:
            CampaignError: the campaign ended before its first model was trained.
        """
        if self.state.newest is None:
            raise CampaignError(f"the campaign in {self.folder} has no model: {self.state.message}")
        members = [
            Member(potential_of(number, self._potentials), ModelFile(self.folder / one.path, one.digest))
            for number, one in enumerate(self.state.newest.models)
        ]
        return TrainedPotential(members)

    def calculator(self, device: str = "cpu") -> Calculator:
        """An ASE calculator of the final committee; raises as `potential`."""
        return self.potential.calculator(device)

    @cached_property
    def dataset(self) -> Dataset:
        """All labelled structures except isolated atoms; test structures are included.

        The provenance of each has `origin`, and among its further facts `subset` (`training`, `validation` or `test`),
        `walker`, `segment`, `generation` and `deviation` [eV/Å].
        """
        file = self.folder / "dataset.xyz"
        return Dataset.load(file) if file.stat().st_size else Dataset()

    @cached_property
    def trajectories(self) -> list[SegmentTrajectory]:
        """The segments with stored frames (`Segments.stride`), in the order in which they ended."""
        return list(trajectories(read_campaign(self.folder)))

    def evaluate(self, data: Dataset | Sequence[Atoms], device: str = "cpu") -> ErrorTable:
        """Errors of the final potential on labelled structures, predicted in this process.

        They are listed by the `subset` in each structure's provenance (`other` without one), then of `all` structures.

        Raises:
            StructureError: a structure has no label, or there are no structures.
        """
        entries = list((data if isinstance(data, Dataset) else Dataset(data)).entries())
        check([entry.structure for entry in entries], "structure", labelled=True)
        answers = [one.to_plain() for one in self.potential.predict([entry.structure for entry in entries], device)]
        subsets = [entry.provenance.extra.get("subset") for entry in entries]
        names = [None if one is None else str(one) for one in subsets]
        return errors_by_set([entry.structure for entry in entries], answers, names)

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @cached_property
    def summary(self) -> Summary:
        """Counts, times and errors, as in the report."""
        return summarise(self.folder)

    def __str__(self) -> str:
        return showable(str(self.summary))

    def export(self, folder: str | Path) -> Path:
        """Copy the potential (in psiflow's format and its own), the data set and the report to a folder."""
        target = Path(folder)
        self.potential.save(target / "potential")
        self.potential.export(target / "native")
        for name in ("dataset.xyz", "report.html"):
            shutil.copy(self.folder / name, target / name)
        return target


def _component(kind: Kind, given: Spec | Component | str) -> Spec:
    spec = as_spec(kind, given)
    if spec.kind != kind:
        raise OptionError(f"a {kind} is needed, not the {spec.kind} '{spec.name}'; make one with psiflow.{kind}(…)")
    return spec
