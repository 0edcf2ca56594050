"""The report as one HTML file without external files."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from psiflow_core.files import write_atomically, writing
from psiflow_core.learning.driver.differences import HASH
from psiflow_core.learning.driver.request import Recorded, read_campaign
from psiflow_core.learning.driver.vouching import vouch_for
from psiflow_core.learning.machine.candidates import Candidate, Origin
from psiflow_core.report import figures
from psiflow_core.report.summary import fate, read_evaluation, summarise
from psiflow_core.report.times import clock
from psiflow_core.structures import Plain

ORDER: tuple[Origin, ...] = ("walker", "bootstrap", "initial", "test")
"""The order of candidates in the table, by their origin."""


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a campaign's folder, of what is there so far.

    Raises:
        CampaignError: there is no campaign in the folder, or it cannot be written.
        FileCorrupt: a label or the predictions that it shows cannot be believed.
    """
    campaign = read_campaign(folder)
    target, page = campaign.store.folder / "report.html", _page(campaign).encode(errors="backslashreplace")
    with writing(target.parent):
        write_atomically(target, page)
        vouch_for(campaign.store, target)
    return target


def _page(campaign: Recorded) -> str:
    environment = Environment(
        loader=PackageLoader("psiflow_core", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["clock"] = clock
    summary = summarise(campaign.store.folder)
    return environment.get_template("page.html").render(
        name=campaign.store.folder.name,
        campaign=campaign,
        state=campaign.state,
        groups=campaign.settings.groups,
        group_of=campaign.settings.group_of,
        summary=summary,
        error_columns=summary.errors.columns,
        figures=_figures(campaign),
        candidates=sorted(campaign.state.of(*ORDER), key=lambda candidate: ORDER.index(candidate.origin)),
        fate=_fate(campaign),
        configuration=_readable(campaign.configuration),
        versions=campaign.opened.versions,
        potentials=_names(campaign.configuration["potential"]),
        homes=campaign.opened.homes,
        formula=_formula(campaign),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        psiflow=version("psiflow-core"),
    )


def _names(potentials: Plain | list[Plain]) -> str:
    written = potentials if isinstance(potentials, list) else [potentials]
    return ", ".join(one["name"] for one in written)


def _figures(campaign: Recorded) -> dict[str, str | None]:
    evaluation = read_evaluation(campaign)
    return {
        "learning_curve": figures.learning_curve(campaign, evaluation),
        "parity": figures.parity(evaluation) if evaluation else None,
        "uncertainty": figures.uncertainty(campaign),
        "candidates": figures.candidates(campaign, _fate(campaign)),
        "timeline": figures.timeline(campaign),
    }


def _fate(campaign: Recorded) -> Callable[[Candidate], str]:
    return partial(fate, ended=campaign.state.finished is not None)


def _formula(campaign: Recorded) -> str:
    """The formula of the first structure that can be read."""
    learned = campaign.state.of("bootstrap", "initial", "walker")
    return next(filter(None, (campaign.formula(candidate.structure) for candidate in learned)), "")


def _readable(configuration: Plain) -> str:
    written = yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True, width=1000)
    return HASH.sub(r"\1…", written)
