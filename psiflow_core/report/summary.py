"""A campaign in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from psiflow_core.files import read_json
from psiflow_core.labels.store import read_label
from psiflow_core.learning.driver.request import Recorded, read_campaign
from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.potentials.metrics import Errors, ErrorTable, errors
from psiflow_core.potentials.trained import ModelFile
from psiflow_core.report.times import clock
from psiflow_core.structures import Plain

SUBSETS = ("training", "validation", "test")


@dataclass(frozen=True)
class Evaluation:
    """Labelled structures and the predictions of every generation for them."""

    candidates: list[Candidate]
    structures: list[Atoms]
    """The labelled structures, in the order of the candidates."""
    predictions: dict[int, list[Plain]]
    """Predictions by generation, in the same order."""
    architectures: dict[str, list[Plain]]
    """Predictions of the last generation's members by potential; empty if there is only one potential."""

    @property
    def newest(self) -> int:
        """The last evaluated generation."""
        return max(self.predictions)

    def errors(self, generation: int, subset: str) -> Errors | None:
        """Errors of one generation on one subset; None if the subset is empty."""
        return self.errors_of(self.predictions[generation], subset)

    def errors_of(self, answers: list[Plain], subset: str) -> Errors | None:
        """Errors of predictions for all structures, on one subset."""
        chosen = [n for n, candidate in enumerate(self.candidates) if candidate.subset == subset]
        if not chosen:
            return None
        return errors([self.structures[n] for n in chosen], [answers[n] for n in chosen])


def read_evaluation(campaign: Recorded) -> Evaluation | None:
    """The last evaluation; None before there is one."""
    found = campaign.state.evaluation
    if found is None:
        return None
    store = campaign.store
    file = ModelFile(store.absolute(found.file), found.digest).verified()
    candidates = [campaign.state.candidates[number] for number in found.candidates]
    structures = [read_label(store.absolute(candidate.file or ""))[0] for candidate in candidates]
    predictions = read_json(file, ["predictions"])["predictions"]
    whole = len(found.generations)
    return Evaluation(
        candidates,
        structures,
        dict(zip(found.generations, predictions[:whole], strict=True)),
        dict(zip(found.potentials, predictions[whole:], strict=True)),
    )


@dataclass(frozen=True)
class Summary:
    """A campaign in numbers; `str` gives a few lines for a terminal."""

    folder: Path
    status: str
    """`finished`, `failed` or `running`."""
    message: str
    """Why it ended."""
    labels: int
    """Labelled structures for training and validation, without isolated atoms and test structures."""
    labels_failed: int
    labels_suspicious: int
    """Labels that are far from what the committee expected."""
    test_labels: int
    generations: int
    sampling_steps: int
    fates: Mapping[str, int]
    """The number of candidates by fate."""
    failures: Mapping[str, int]
    """The number of failures by kind and reason."""
    resets: Mapping[str, int]
    """The number of restarts of walkers, by reason."""
    seconds: float
    """The duration of the campaign, without the pauses between sessions. [s]"""
    busy_seconds: Mapping[str, float]
    """The computing time of workers, by kind of task. [s]"""
    busy_share: float | None
    """The fraction of the workers' time that was computing; None before anything ran."""
    errors: ErrorTable
    """Errors of the last evaluated generation, by subset; empty before the first evaluation."""
    errors_by_potential: Mapping[str, ErrorTable]
    """The same for the members of each potential, if there are several potentials."""
    errors_whose: str
    errors_of: int | None
    """The generation that was evaluated."""

    def __str__(self) -> str:
        lines = [self._counts(), *self._errors()]
        if self.labels_suspicious:
            lines.append(
                f"{self.labels_suspicious} labels are far from what the committee expected: they were used; look at "
                "those with psiflow_suspicious in the data set"
            )
        if self.errors_of not in (None, self.generations - 1):
            lines.append(f"these errors are of generation {self.errors_of}; the last one has not been evaluated")
        lines += [f"potential   {self.folder / 'potential'}", f"data set    {self.folder / 'dataset.xyz'}"]
        return "\n".join([*lines, f"report      {self.folder / 'report.html'}"])

    def _counts(self) -> str:
        busy = f", workers {100 * self.busy_share:.0f} % busy" if self.busy_share is not None else ""
        return (
            f"{self.labels} labels ({self.labels_failed} failed), {self.generations} generations, "
            f"{self.sampling_steps} sampling steps in {clock(self.seconds)}{busy}"
        )

    def _errors(self) -> Iterator[str]:
        if not self.errors:
            return
        yield f"errors of {self.errors_whose}"
        yield from str(self.errors).splitlines()
        for name, there in self.errors_by_potential.items():
            yield f"{name} alone"
            yield from there.rows(self.errors.columns)


def summarise(folder: str | Path) -> Summary:
    """Counts, times and errors of a campaign; raises as `read_campaign`, and `FileCorrupt`."""
    campaign = read_campaign(folder)
    state = campaign.state
    evaluation = read_evaluation(campaign)
    fates = Counter(
        fate(candidate, state.finished is not None) for candidate in state.of("initial", "bootstrap", "walker")
    )
    return Summary(
        folder=Path(folder),
        status=state.finished or "running",
        message=state.message,
        labels=state.count("labelled"),
        labels_failed=state.count("failed"),
        labels_suspicious=sum(candidate.suspicious for candidate in state.candidates),
        test_labels=state.count("labelled", ["test"]),
        generations=len(state.generations),
        sampling_steps=state.steps,
        fates=dict(fates),
        failures=dict(Counter(f"{failure.kind}: {failure.reason}" for failure in state.failures)),
        resets=dict(sum((walker.resets for walker in state.walkers), Counter())),
        seconds=state.elapsed,
        busy_seconds=dict(state.busy),
        busy_share=busy_share(campaign),
        errors=ErrorTable({}) if evaluation is None else final_errors(evaluation),
        errors_by_potential={} if evaluation is None else errors_by_potential(evaluation),
        errors_whose="the model" if campaign.settings.committee == 1 else "the committee's mean",
        errors_of=None if evaluation is None else evaluation.newest,
    )


def final_errors(evaluation: Evaluation) -> ErrorTable:
    """Errors of the last generation that was evaluated, by subset."""
    return _by_subset(evaluation, evaluation.predictions[evaluation.newest])


def errors_by_potential(evaluation: Evaluation) -> dict[str, ErrorTable]:
    """The same for the members of each potential, if there are several potentials."""
    return {name: _by_subset(evaluation, answers) for name, answers in evaluation.architectures.items()}


def _by_subset(evaluation: Evaluation, answers: list[Plain]) -> ErrorTable:
    found = {subset: evaluation.errors_of(answers, subset) for subset in SUBSETS}
    return ErrorTable({subset: values for subset, values in found.items() if values is not None})


def busy_share(campaign: Recorded) -> float | None:
    """The fraction of the workers' time that was computing; None before anything ran."""
    state = campaign.state
    slots = sum(campaign.opened.slots.values())
    available = state.elapsed * slots
    return state.busy.total() / available if available else None


def fate(candidate: Candidate, ended: bool = False) -> str:
    """The fate of a candidate, in a few words.

    Args:
        candidate: the candidate.
        ended: whether its campaign has ended, so that queued candidates will not be labelled.
    """
    if candidate.discarded:
        return "discarded"
    if ended and candidate.status in ("queued", "labelling"):
        return "not labelled"
    return candidate.subset if candidate.status == "labelled" else candidate.status
