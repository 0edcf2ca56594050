"""The report's figures, as SVG text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from psiflow_core.learning.records import Recorded
from psiflow_core.report.summary import SUBSETS, Evaluation
from psiflow_core.structures import label_of

COLOURS = {
    "training": "#4c78a8",
    "validation": "#f2a541",
    "test": "#c8453b",
    "label": "#c8453b",
    "train": "#4c78a8",
    "sample": "#59a14f",
    "score": "#59a14f",
    "evaluate": "#b07aa1",
    "discarded": "#8c6d31",
    "failed": "#222222",
    "dropped": "#bbbbbb",
    "queued": "#bbbbbb",
}

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


def learning_curve(campaign: Recorded, evaluation: Evaluation) -> str:
    """Force and energy RMSE of every generation against the labels that it knows."""

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for subset in ("validation", "test"):
            rows = [
                (generation.known, found)
                for generation in campaign.state.generations
                if generation.number in evaluation.predictions
                if (found := evaluation.errors(generation.number, subset))
            ]
            if not rows:
                continue
            known = [row[0] for row in rows]
            style = {"marker": "o", "ms": 4, "color": COLOURS[subset], "label": subset}
            left.plot(known, [1e3 * row[1]["force_rmse"] for row in rows], **style)
            right.plot(known, [1e3 * row[1]["energy_rmse"] for row in rows], **style)
        for axes, name in ((left, "force RMSE [meV/Å]"), (right, "energy RMSE [meV/atom]")):
            axes.set(xlabel="labels that the generation knows", ylabel=name)
            axes.set_ylim(bottom=0)
            if axes.get_legend_handles_labels()[0]:
                axes.legend()

    return _svg(draw, "Learning curve", (9.6, 3.3))


def parity(evaluation: Evaluation) -> str:
    """Predicted against labelled energies and force components, for the last generation evaluated."""

    def draw(figure: Figure) -> None:
        energies, forces = figure.subplots(1, 2)
        zero = np.mean([label_of(atoms).energy / len(atoms) for atoms in evaluation.structures])
        for subset in SUBSETS:
            chosen = [n for n, candidate in enumerate(evaluation.candidates) if candidate.subset == subset]
            if not chosen:
                continue
            pairs = [(evaluation.structures[n], evaluation.predictions[evaluation.newest][n]) for n in chosen]
            style = {"s": 9, "lw": 0, "alpha": 0.65, "color": COLOURS[subset], "rasterized": True}
            energies.scatter(
                [1e3 * (label_of(atoms).energy / len(atoms) - zero) for atoms, _ in pairs],
                [1e3 * (answer["energy"] / len(atoms) - zero) for atoms, answer in pairs],
                label=subset,
                **style,
            )
            forces.scatter(
                np.concatenate([label_of(atoms).forces.ravel() for atoms, _ in pairs]),
                np.concatenate([np.ravel(answer["forces"]) for _, answer in pairs]),
                **style | {"s": 4},
            )
        energies.set(xlabel="reference energy − mean [meV/atom]", ylabel="predicted [meV/atom]")
        forces.set(xlabel="reference force component [eV/Å]", ylabel="predicted [eV/Å]")
        for axes in (energies, forces):
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
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="largest force spread of the committee [eV/Å]",
            ylabel="force RMSE of that model [eV/Å]",
        )
        figure.colorbar(points, label="generation")

    return _svg(draw, "Uncertainty against error", (4.8, 3.3))


def candidates(campaign: Recorded, fate_of: Callable[[Any], str]) -> str | None:
    """Every walker's candidate: when it was met, how uncertain it was, what became of it."""
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
        axes.set(xlabel="candidate", ylabel="largest force spread [eV/Å]", yscale="log")
        axes.legend(fontsize=8)

    return _svg(draw, "Fate of every candidate", (4.8, 3.3))


def timeline(campaign: Recorded) -> str | None:
    """What every worker did, and when."""
    kinds = {"labelled": "label", "trained": "train", "sampled": "sample", "scored": "score", "evaluated": "evaluate"}
    spans = [
        (event.data["worker"], kinds[event.kind], event.time - event.data["seconds"], event.data["seconds"])
        for event in campaign.events
        if event.kind in kinds and event.data["worker"] and event.data["seconds"] > 0
    ]
    if not spans:
        return None
    workers = sorted({span[0] for span in spans})
    origin = campaign.events[0].time

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for kind in dict.fromkeys(span[1] for span in spans):
            for row, worker in enumerate(workers):
                bars = [(begin - origin, long) for who, what, begin, long in spans if (who, what) == (worker, kind)]
                axes.broken_barh(bars, (row - 0.4, 0.8), color=COLOURS[kind], label=kind if row == 0 else None)
        axes.set(
            xlabel="time [s]", yticks=range(len(workers)), yticklabels=[f"worker {n}" for n in range(len(workers))]
        )
        axes.grid(False)
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return _svg(draw, "What the workers did", (9.6, 1.1 + 0.35 * min(len(workers), 32)))


def _diagonal(axes: Any) -> None:
    low, high = _joint_limits([axes.get_xlim(), axes.get_ylim()])
    axes.plot([low, high], [low, high], color="#aaa", lw=0.8, zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")


def _joint_limits(limits: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in limits), max(high for _, high in limits)


def _svg(draw: Callable[[Figure], None], title: str, size: tuple[float, float]) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", dpi=160, metadata={"Date": None, "Title": title})
    svg = text.getvalue()
    return re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL)
