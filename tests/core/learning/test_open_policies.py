"""A selection strategy, a bias and a collective variable of a plugin, in campaigns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase.build import molecule
from psiflow_toys import campaigns
from psiflow_toys.policies import Alternate, Pen, Spread
from psiflow_toys.waiting import wait_until

import psiflow_core as psiflow
from psiflow_core.cli.request import read_request
from psiflow_core.environments.catalogue import spec_of
from psiflow_core.errors import CampaignError, OptionError, PluginNotFound
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.sample import SamplingRequest, WalkerStart
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.potentials.trained import Member, ModelFile

PEN = {"name": "toy-pen", "variable": {"name": "toy-spread"}, "edge": 0.5, "stiffness": 0.5}

SCRIPT = f"""
import sys
import psiflow_core as psiflow
from psiflow_toys import campaigns

if __name__ == "__main__":
    learning = campaigns.learning(
        14,
        reference=psiflow.reference("toy", delay=0.1),
        selection=psiflow.selection("toy-alternate", divisor=1),
        walking=campaigns.learning().walking.model_copy(update=dict(bias=psiflow.Walking(bias=[{PEN}]).bias)),
    )
    with psiflow.Context(psiflow.executor("local", workers=2), folder=sys.argv[2]) as context:
        campaigns.run(sys.argv[1], context, learning)
"""


def labels(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "labels").rglob("*.json")}


def test_a_killed_campaign_with_policies_of_a_plugin_goes_on(tmp_path: Path) -> None:
    script, folder = tmp_path / "campaign.py", tmp_path / "c"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(tmp_path / "pools")]
    driver = subprocess.Popen(command)
    wait_until(lambda: len(labels(folder)) >= 8, driver)
    driver.kill()
    driver.wait()
    before = labels(folder)
    subprocess.run(command, check=True)
    campaign = read_campaign(folder)
    assert campaign.state.finished == "labels"
    assert len(campaign.state.opened) == 2
    assert {file: labels(folder)[file] for file in before} == before, "no label was paid for twice"
    assert campaign.settings.selection == Alternate(divisor=1), "a strategy is read back as itself"
    assert campaign.settings.walking.bias == (Pen(variable=Spread(), edge=0.5, stiffness=0.5),)
    assert "psiflow-toys" in campaign.state.opened[-1].versions
    needs = [need for home in campaign.state.opened[-1].homes for need in home.components]
    assert {"bias toy-pen", "variable toy-spread"} <= set(needs), "workers must have the plugin"


def test_another_option_of_a_strategy_is_another_campaign(tmp_path: Path, workers: Context) -> None:
    campaigns.run(tmp_path, workers, campaigns.learning(6, selection={"name": "toy-alternate", "divisor": 1}))
    with pytest.raises(CampaignError, match=r"selection\.divisor was 1 and is now 2"):
        campaigns.run(tmp_path, workers, campaigns.learning(8, selection={"name": "toy-alternate", "divisor": 2}))


def test_a_sampling_task_needs_the_plugins_of_its_biases() -> None:
    acting = spec_of(psiflow.bias("harmonic", variable="toy-spread", center=1.0, stiffness=1.0))
    member = Member(psiflow.potential("toy"), ModelFile(Path("model.json"), "0" * 64))
    starts = [WalkerStart(walker=number, seed=1, structure=molecule("H2O"), bias=(acting,)) for number in (0, 1)]
    request = SamplingRequest(
        sampler=psiflow.sampler("ase", temperature=300.0),
        models=(member,),
        walkers=tuple(starts),
        steps=10,
        check_every=5,
        limits=psiflow.Limits(),
        candidates=Path("candidates"),
    )
    assert [need.name for need in request.needs] == ["ase", "harmonic", "toy-spread", "toy"]
    (part,) = acting.parts
    newer = replace(acting, parts=(replace(part, version="9.9"),))
    again = request.model_copy(update={"walkers": tuple(one.model_copy(update={"bias": (newer,)}) for one in starts)})
    assert again.identity != request.identity, "a new version may move walkers otherwise"
    assert SamplingRequest.from_plain(request.to_plain()).walkers[0].bias == (acting,)


def test_policies_of_a_plugin_are_written_in_yaml(tmp_path: Path) -> None:
    written = {
        **{"potential": "toy", "sampler": {"name": "ase", "temperature": 300}, "reference": "toy"},
        **{"budget": {"labels": 5}, "start": "start.xyz", "folder": "campaign"},
        **{"selection": {"name": "toy-alternate", "divisor": 3}, "walking": {"bias": [PEN]}},
    }
    file = tmp_path / "campaign.yaml"
    file.write_text(yaml.safe_dump(written))
    learning = read_request(file).learning
    assert learning.selection == Alternate(divisor=3)
    assert learning.walking.bias[0].to_plain() == {**PEN, "pace": 0.0}


class Own(Alternate):
    """A strategy that no plugin has registered."""


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        (Own(), "Own is not the class that is registered as selection 'toy-alternate'; a restart"),
        ({"name": "uncertian"}, "no selection 'uncertian'. Did you mean 'uncertain'"),
        ({"name": "uncertain", "treshold": 1}, "unknown option 'treshold'. Did you mean 'threshold'"),
        ({"name": "diverse", "count": 3}, r"in a loop of your own, psiflow\.selection"),
        (psiflow.Distance(atoms=(0, 1)), "write a selection as"),
    ],
)
def test_a_strategy_that_a_campaign_cannot_follow_is_refused(selection: Any, says: str) -> None:
    with pytest.raises((OptionError, PluginNotFound), match=says):
        campaigns.learning(selection=selection)


def test_what_is_drawn_by_lot_follows_from_the_seed() -> None:
    water = campaigns.moved_water(200, seed=1)
    first = psiflow.selection("random", fraction=0.3).choose(water)
    assert first == psiflow.selection("random", fraction=0.3).choose(water)
    other = psiflow.selection("random", fraction=0.3, seed=1).choose(water)
    assert [id(atoms) for atoms in first] != [id(atoms) for atoms in other]
    assert all(any(atoms is one for one in water) for atoms in first)
