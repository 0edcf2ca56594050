"""The report's figures, as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from ase import units
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from psiflow_core.learning.driver.request import Recorded
from psiflow_core.potentials.metrics import stress_pairs
from psiflow_core.report.spans import KINDS, spans, worker_rows
from psiflow_core.report.summary import SUBSETS, Evaluation
from psiflow_core.structures import label_of

COLOURS = {
    "training": "#4c78a8",
    "validation": "#f2a541",
    "test": "#c8453b",
    "label": "#c8453b",
    "train": "#4c78a8",
    "sample": "#59a14f",
    "score": "#f2c14e",
    "evaluate": "#b07aa1",
    "discarded": "#8c6d31",
    "failed": "#222222",
    "dropped": "#bbbbbb",
    "queued": "#bbbbbb",
}

MARKS: dict[str, dict[str, Any]] = {
    "training": {"color": COLOURS["training"], "lw": 0, "zorder": 2.2},
    "validation": {"color": COLOURS["validation"], "lw": 0, "zorder": 2.3},
    "test": {"facecolors": "none", "edgecolors": COLOURS["test"], "lw": 0.6, "zorder": 2.1},
}
"""The test set has rings beneath the other points, so that all points stay visible."""

STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "psiflow",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888",
    "axes.grid": True,
    "grid.color": "#eee",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def learning_curve(campaign: Recorded, evaluation: Evaluation | None) -> str | None:
    """Force and energy RMSE of every generation against its number of labels.

    Before the first evaluation: the mean of the members' validation errors, as reported by their trainings.
    """
    curves = _evaluated(campaign, evaluation) if evaluation else _as_trained(campaign)
    if not any(curves.values()):
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for subset, rows in curves.items():
            known = [row[0] for row in rows]
            style = {"marker": "o", "ms": 4, "color": COLOURS[subset], "label": subset}
            if rows:
                left.plot(known, [1e3 * row[1] for row in rows], **style)
                right.plot(known, [1e3 * row[2] for row in rows], **style)
        for axes, name in ((left, "force RMSE [meV/Å]"), (right, "energy RMSE [meV/atom]")):
            axes.set(xlabel="labels that the generation knows", ylabel=name)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(_whole_numbers())
            axes.legend()

    return _svg(draw, "Learning curve", (9.6, 3.3))


Curves = dict[str, list[tuple[int, float, float]]]
"""By subset, for each generation: number of labels, RMSE of forces [eV/Å] and of energies [eV/atom]."""


def _evaluated(campaign: Recorded, evaluation: Evaluation) -> Curves:
    curves: Curves = {"validation": [], "test": []}
    for subset, rows in curves.items():
        for generation in campaign.state.generations:
            if generation.number in evaluation.predictions:
                errors = evaluation.errors(generation.number, subset)
                rows += [(generation.known, errors.force_rmse, errors.energy_rmse)] if errors else []
    return curves


def _as_trained(campaign: Recorded) -> Curves:
    newest = campaign.state.newest
    complete = campaign.state.generations[: newest.number + 1] if newest else []
    return {
        "validation": [
            (generation.known, generation.mean_error("force_rmse"), generation.mean_error("energy_rmse"))
            for generation in complete
            if generation.validation and generation.assessed
        ]
    }


def parity(evaluation: Evaluation) -> str:
    """Predicted against labelled energies, force and stress components, for the last generation evaluated."""
    answers = evaluation.predictions[evaluation.newest]
    stressed = len(stress_pairs(evaluation.structures, answers)) > 0

    def draw(figure: Figure) -> None:
        energies, forces, *stresses = figure.subplots(1, 3 if stressed else 2)
        zero = np.mean([label_of(atoms).energy / len(atoms) for atoms in evaluation.structures])
        for subset in SUBSETS:
            chosen = [n for n, candidate in enumerate(evaluation.candidates) if candidate.subset == subset]
            if not chosen:
                continue
            pairs = [(evaluation.structures[n], answers[n]) for n in chosen]
            style = MARKS[subset] | {"alpha": 0.65, "rasterized": True}
            energies.scatter(
                [1e3 * (label_of(atoms).energy / len(atoms) - zero) for atoms, _ in pairs],
                [1e3 * (answer["energy"] / len(atoms) - zero) for atoms, answer in pairs],
                label=subset,
                s=12,
                **style,
            )
            forces.scatter(
                np.concatenate([label_of(atoms).forces.ravel() for atoms, _ in pairs]),
                np.concatenate([np.ravel(answer["forces"]) for _, answer in pairs]),
                s=6,
                **style,
            )
            for axes in stresses:
                labelled, predicted = np.moveaxis(stress_pairs(*zip(*pairs, strict=True)), 1, 0) / units.GPa
                axes.scatter(labelled.ravel(), predicted.ravel(), s=9, **style)
        energies.set(xlabel="reference energy − mean [meV/atom]", ylabel="predicted [meV/atom]")
        forces.set(xlabel="reference force component [eV/Å]", ylabel="predicted [eV/Å]")
        for axes in stresses:
            axes.set(xlabel="reference stress component [GPa]", ylabel="predicted [GPa]")
        for axes in (energies, forces, *stresses):
            _diagonal(axes)
        energies.legend()

    return _svg(draw, "Parity of the final potential", (9.6, 4.3))


def uncertainty(campaign: Recorded) -> str | None:
    """The committee's spread at a candidate against the error that the label revealed."""
    known = [
        candidate for candidate in campaign.state.of("walker") if candidate.error is not None and candidate.deviation
    ]
    if len(known) < 2:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        points = axes.scatter(
            [candidate.deviation or 0.0 for candidate in known],
            [(candidate.error or {})["force_rmse"] for candidate in known],
            c=[candidate.generation or 0 for candidate in known],
            cmap="viridis",
            s=16,
        )
        axes.set(xlabel="largest force spread of the committee [eV/Å]", ylabel="force RMSE of that model [eV/Å]")
        logarithmic(axes, "x", [candidate.deviation or 0.0 for candidate in known])
        logarithmic(axes, "y", [(candidate.error or {})["force_rmse"] for candidate in known])
        if len({candidate.generation for candidate in known}) > 1:
            figure.colorbar(points, label="generation", ticks=_whole_numbers())

    return _svg(draw, "Uncertainty against error", (4.8, 3.3))


def candidates(campaign: Recorded, fate_of: Callable[[Any], str]) -> str | None:
    """The candidates of walkers: their number, uncertainty and fate."""
    met = [candidate for candidate in campaign.state.of("walker") if candidate.deviation]
    if not met:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for fate in dict.fromkeys(fate_of(candidate) for candidate in met):
            chosen = [candidate for candidate in met if fate_of(candidate) == fate]
            numbers = [candidate.id for candidate in chosen]
            spread = [candidate.deviation or 0.0 for candidate in chosen]
            axes.scatter(numbers, spread, s=16, color=COLOURS.get(fate, "#999"), label=fate)
        limit = campaign.settings.walking.limits.deviation
        axes.axhline(limit, color="#999", lw=0.8, ls="--")
        axes.set(xlabel="candidate", ylabel="largest force spread [eV/Å]")
        axes.xaxis.set_major_locator(_whole_numbers())
        logarithmic(axes, "y", [limit, *(candidate.deviation or 0.0 for candidate in met)])
        axes.legend(fontsize=8)

    return _svg(draw, "Fate of every candidate", (4.8, 3.3))


def timeline(campaign: Recorded) -> str | None:
    """The tasks of every worker over time, without the time in which no driver ran."""
    tasks = spans(campaign)
    if not tasks:
        return None
    row_of = worker_rows(tasks, [sum(session.slots.values()) for session in campaign.state.opened])
    workers = 1 + max(row_of.values())

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for kind in dict.fromkeys(KINDS.values()):
            for row in range(workers):
                mine = [span for span in tasks if span.kind == kind and row_of[span.session, span.worker] == row]
                bars = [(span.begin, span.seconds) for span in mine]
                axes.broken_barh(bars, (row - 0.4, 0.8), color=COLOURS[kind])
            if any(span.kind == kind for span in tasks):
                axes.broken_barh([], (0, 0), color=COLOURS[kind], label=kind)
        axes.set(xlabel="time [s]", yticks=range(workers), yticklabels=[f"worker {n}" for n in range(workers)])
        axes.set_xlim(left=0)
        axes.grid(False)
        axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _svg(draw, "Timeline of the workers", (9.6, 1.1 + 0.35 * min(workers, 32)))


def logarithmic(axes: Any, name: str, values: Sequence[float]) -> None:
    """A logarithmic axis with as many labels as have room: decades, or 1, 2, 5 where there are few of them."""
    positive = [value for value in values if value > 0]
    if not positive:
        return
    low, high = min(positive) / 1.5, 1.5 * max(positive)
    axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(integer=True, steps=[1, 2, 5, 10])


def _diagonal(axes: Any) -> None:
    low, high = _joint_limits([axes.get_xlim(), axes.get_ylim()])
    axes.plot([low, high], [low, high], color="#aaa", lw=0.8, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")


def _joint_limits(limits: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in limits), max(high for _, high in limits)


def _svg(draw: Callable[[Figure], None], title: str, size: tuple[float, float]) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.04))
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", dpi=160, metadata={"Date": None, "Title": title})
    svg = text.getvalue()
    return re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL)
