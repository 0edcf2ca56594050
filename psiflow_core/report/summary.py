"""A campaign in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms, units

from psiflow_core.files import read_json
from psiflow_core.learning.campaign import Candidate
from psiflow_core.learning.metrics import errors
from psiflow_core.learning.progress import clock
from psiflow_core.learning.records import Recorded, read_campaign, sessions
from psiflow_core.models import ModelFile
from psiflow_core.structures import Plain
from psiflow_core.tasks import read_label

SUBSETS = ("training", "validation", "test")


@dataclass(frozen=True)
class Column:
    """A column of a table of errors."""

    name: str
    """In `psiflow_core.learning.metrics.errors`."""
    quantity: str
    kind: str
    scale: float = 1e3
    """From the unit of `errors` to that of the column."""

    def of(self, found: dict[str, float]) -> str:
        """The figure; a dash where there is none."""
        return f"{self.scale * found[self.name]:.2f}" if self.name in found else "–"


ERRORS = (
    Column("force_mae", "forces [meV/Å]", "MAE"),
    Column("force_rmse", "forces [meV/Å]", "RMSE"),
    Column("energy_mae", "energy [meV/atom]", "MAE"),
    Column("energy_rmse", "energy [meV/atom]", "RMSE"),
    Column("stress_mae", "stress [MPa]", "MAE", 1e3 / units.GPa),
    Column("stress_rmse", "stress [MPa]", "RMSE", 1e3 / units.GPa),
)


def error_columns(by_subset: Plain) -> list[Column]:
    """The columns that have a figure for one subset at least."""
    return [column for column in ERRORS if any(column.name in found for found in by_subset.values())]


@dataclass(frozen=True)
class Evaluation:
    """Labels and what every generation says of them."""

    candidates: list[Candidate]
    structures: list[Atoms]
    """Labelled, in the order of the candidates."""
    predictions: dict[int, list[Plain]]
    """By generation, in the same order."""
    architectures: dict[str, list[Plain]]
    """What the members of each potential say, of the last generation; empty where there is but one."""

    @property
    def newest(self) -> int:
        """The last generation that was asked."""
        return max(self.predictions)

    def errors(self, generation: int, subset: str) -> dict[str, float] | None:
        """Errors of one generation on one subset; None where there is nothing in it."""
        return self.errors_of(self.predictions[generation], subset)

    def errors_of(self, answers: list[Plain], subset: str) -> dict[str, float] | None:
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
    file = ModelFile(store.absolute(found["file"]), found["digest"]).verified()
    candidates = [campaign.state.candidates[number] for number in found["candidates"]]
    structures = [read_label(store.absolute(candidate.file or ""))[0] for candidate in candidates]
    predictions = read_json(file, ["predictions"])["predictions"]
    whole = len(found["generations"])
    return Evaluation(
        candidates,
        structures,
        dict(zip(found["generations"], predictions[:whole], strict=True)),
        dict(zip(found["potentials"], predictions[whole:], strict=True)),
    )


def summarise(folder: str | Path) -> Plain:
    """Counts, times and errors of a campaign."""
    campaign = read_campaign(folder)
    state = campaign.state
    evaluation = read_evaluation(campaign)
    fates = Counter(
        fate(candidate, state.finished is not None) for candidate in state.of("initial", "bootstrap", "walker")
    )
    return {
        "status": state.finished or "running",
        "message": state.message,
        "labels": state.count("labelled"),
        "labels_failed": state.count("failed"),
        "labels_suspicious": sum(candidate.suspicious for candidate in state.candidates),
        "test_labels": state.count("labelled", ["test"]),
        "generations": len(state.generations),
        "sampling_steps": state.steps,
        "fates": dict(fates),
        "failures": dict(Counter(f"{failure.kind}: {failure.reason}" for failure in state.failures)),
        "resets": dict(sum((walker.resets for walker in state.walkers), Counter())),
        "seconds": state.elapsed,
        "busy_seconds": dict(state.busy),
        "busy_share": busy_share(campaign),
        "errors": {} if evaluation is None else final_errors(evaluation),
        "errors_by_potential": {} if evaluation is None else errors_by_potential(evaluation),
        "errors_whose": "the model" if campaign.settings.committee == 1 else "the committee's mean",
        "errors_of": None if evaluation is None else evaluation.newest,
    }


def in_words(folder: Path, summary: Plain) -> str:
    """The summary as a few lines for a terminal."""
    busy, columns = summary["busy_share"], error_columns(summary["errors"])
    lines = [
        f"{summary['labels']} labels ({summary['labels_failed']} failed), {summary['generations']} generations, "
        f"{summary['sampling_steps']} sampling steps in {clock(summary['seconds'])}"
        + (f", workers {100 * busy:.0f} % busy" if busy is not None else ""),
    ]
    if summary["errors"]:
        lines += [
            f"errors of {summary['errors_whose']}",
            f"{'':12}" + "".join(f"{column.quantity:>22}" for column in columns[::2]),
            f"{'':12}" + "".join(f"{column.kind:>11}" for column in columns),
        ]
    lines += _table(summary["errors"], columns)
    for name, errors_there in summary["errors_by_potential"].items():
        lines += [f"{name} alone", *_table(errors_there, columns)]
    if summary["labels_suspicious"]:
        lines.append(
            f"{summary['labels_suspicious']} labels are far from what the committee expected: they were used; look at "
            "those with psiflow_suspicious in the data set"
        )
    if summary["errors_of"] not in (None, summary["generations"] - 1):
        lines.append(f"these errors are of generation {summary['errors_of']}; the last one has not been evaluated")
    lines += [f"potential   {folder / 'potential'}", f"data set    {folder / 'dataset.xyz'}"]
    return "\n".join([*lines, f"report      {folder / 'report.html'}"])


def final_errors(evaluation: Evaluation) -> Plain:
    """Errors of the last generation that was evaluated, by subset."""
    return _by_subset(evaluation, evaluation.predictions[evaluation.newest])


def errors_by_potential(evaluation: Evaluation) -> Plain:
    """The same of the members of each potential, where there are several."""
    return {name: _by_subset(evaluation, answers) for name, answers in evaluation.architectures.items()}


def _by_subset(evaluation: Evaluation, answers: list[Plain]) -> Plain:
    found = {subset: evaluation.errors_of(answers, subset) for subset in SUBSETS}
    return {subset: values for subset, values in found.items() if values is not None}


def _table(by_subset: Plain, columns: Sequence[Column]) -> list[str]:
    return [
        f"{subset:12}" + "".join(f"{column.of(found):>11}" for column in columns) for subset, found in by_subset.items()
    ]


def busy_share(campaign: Recorded) -> float | None:
    """Seconds that workers computed over the seconds that they were there; None before anything ran."""
    state = campaign.state
    slots = sum(_slots(campaign))
    available = state.elapsed * slots
    return state.busy.total() / available if available else None


def fate(candidate: Candidate, ended: bool = False) -> str:
    """What became of a candidate, in a word or a few.

    Args:
        ended: whether its campaign has ended: what is in its queue yet was left there.
    """
    if candidate.discarded:
        return "discarded"
    if ended and candidate.status in ("queued", "labelling"):
        return "not labelled"
    return candidate.subset if candidate.status == "labelled" else candidate.status


def _slots(campaign: Recorded) -> list[int]:
    return list(sessions(campaign.events)[-1]["slots"].values())
