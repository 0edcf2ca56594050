"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import datetime
from importlib.metadata import version
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from psiflow_core.learning.progress import clock
from psiflow_core.learning.records import Recorded, read_campaign
from psiflow_core.models import write_atomically
from psiflow_core.report import figures
from psiflow_core.report.summary import fate, read_evaluation, summarise
from psiflow_core.structures import Plain


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a campaign's folder, of what is there so far.

    Raises:
        CampaignError: there is no campaign in the folder.
    """
    campaign = read_campaign(folder)
    target = campaign.store.folder / "report.html"
    write_atomically(target, _page(campaign).encode())
    return target


def _page(campaign: Recorded) -> str:
    environment = Environment(
        loader=PackageLoader("psiflow_core", "report"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["clock"] = clock
    return environment.get_template("page.html").render(
        name=campaign.store.folder.name,
        campaign=campaign,
        state=campaign.state,
        summary=summarise(campaign.store.folder),
        figures=_figures(campaign),
        fate=fate,
        configuration=yaml.safe_dump(_readable(campaign.configuration), sort_keys=False, allow_unicode=True),
        versions=[event.data["versions"] for event in campaign.events if event.kind == "opened"][-1],
        formula=_formula(campaign),
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        psiflow=version("psiflow-core"),
    )


def _figures(campaign: Recorded) -> dict[str, str | None]:
    evaluation = read_evaluation(campaign)
    return {
        "learning_curve": figures.learning_curve(campaign, evaluation) if evaluation else None,
        "parity": figures.parity(evaluation) if evaluation else None,
        "uncertainty": figures.uncertainty(campaign),
        "candidates": figures.candidates(campaign, fate),
        "timeline": figures.timeline(campaign),
    }


def _formula(campaign: Recorded) -> str:
    learned = campaign.state.of("bootstrap", "initial", "walker")
    if not learned:
        return ""
    from psiflow_core.structures import from_plain

    structure = from_plain(campaign.store.structure(learned[0].structure)["structure"])
    return str(structure.get_chemical_formula())


def _readable(configuration: Plain) -> Plain:
    start = [digest[:12] for digest in configuration["start"]]
    return configuration | {"start": start[:8], "test": configuration["test"][:12], "data": configuration["data"][:12]}
