"""Groups of walkers under conditions of their own, and options that ramp with the labels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import units
from ase.build import molecule
from psiflow_toys.campaigns import learning, run
from psiflow_toys.waiting import wait_until

import psiflow_core as psiflow
from psiflow_core.cli.request import read_request
from psiflow_core.errors import CampaignError, OptionError, StructureError
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.sample import SamplingRequest
from psiflow_core.learning.driver.orders import Order, Orders
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import Moved, Sampled
from psiflow_core.learning.policies.conditions import Conditions
from psiflow_core.learning.policies.settings import Settings

LAX = psiflow.Limits(deviation=1e3, lost=1e4, force=1e6, temperature_quantile=1e-300)
"""Nothing stops a walker."""

BOND = psiflow.Distance(atoms=(0, 1))
SPREAD = psiflow.Umbrella(variable=BOND, start=0.9, stop=1.1, stiffness=1.0)
SPRING = psiflow.Harmonic(variable=BOND, center=1.0, stiffness=1.0)

COLD_AND_HOT = [psiflow.Walkers(2, temperature=100), psiflow.Walkers(2, temperature=2000, friction=300)]


def walking(**more: Any) -> psiflow.Walking:
    return psiflow.Walking(segment=psiflow.Segments(steps=40, check_every=10), limits=LAX, **more)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[SamplingRequest]:
    """What is asked of samplers."""
    found: list[SamplingRequest] = []
    order = Orders.order

    def kept(self: Orders, *arguments: Any) -> Order:
        made = order(self, *arguments)
        if isinstance(made.request, SamplingRequest):
            found.append(made.request)
        return made

    monkeypatch.setattr(Orders, "order", kept)
    return found


# A campaign ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["concurrent", "sequential"])
def test_each_group_moves_at_its_own_temperature(
    schedule: str, workers: Context, tmp_path: Path, sampled: list[SamplingRequest]
) -> None:
    sampler = psiflow.sampler("ase", friction=200.0)
    asked = learning(14, walkers=COLD_AND_HOT, sampler=sampler, walking=walking(), schedule=schedule)
    run(tmp_path / "c", workers, asked)
    for request in sampled:
        hot = {start.walker >= 2 for start in request.walkers}
        assert len(hot) == 1, "a batch has walkers of equal conditions"
        wanted = (2000.0, 300.0) if hot == {True} else (100.0, 200.0)
        assert (request.sampler.options["temperature"], request.sampler.options["friction"]) == wanted
    kelvin = defaultdict(list)
    for event in read_campaign(tmp_path / "c").events:
        for told in event.what.walkers if isinstance(event.what, Sampled) else ():
            if isinstance(told, Moved):
                kelvin[told.walker // 2].append(told.averages["temperature"])
    assert np.mean(kelvin[1]) > 3 * np.mean(kelvin[0])


def test_any_numeric_option_ramps_with_the_labels(
    workers: Context, tmp_path: Path, sampled: list[SamplingRequest]
) -> None:
    ramps = {"friction": psiflow.Ramp(10, 110), "temperature": psiflow.Ramp(100, 300)}
    cooling = psiflow.Walkers(1, temperature=psiflow.Ramp(900, 700))
    groups = [psiflow.Walkers(2), cooling, psiflow.Walkers(1, friction=5)]
    run(tmp_path / "c", workers, learning(14, walkers=groups, walking=walking(ramps=ramps)))
    progress = set()
    for request in sampled:
        share = (request.sampler.options["friction"] - 10) / 100
        kelvin, first = request.sampler.options["temperature"], request.walkers[0].walker
        if first == 3:
            assert request.sampler.options["friction"] == 5, "a group's own option does not ramp"
        else:
            progress.add(round(share, 6))
            assert kelvin == pytest.approx(900 - 200 * share if first == 2 else 100 + 200 * share)
    assert progress <= {round(labels / 14, 6) for labels in range(15)}
    assert len(progress) > 2


def test_a_scheme_spreads_over_its_group_and_a_group_may_have_other_biases(
    workers: Context, tmp_path: Path, sampled: list[SamplingRequest]
) -> None:
    groups = [psiflow.Walkers(3), psiflow.Walkers(2), psiflow.Walkers(1, bias=SPRING), psiflow.Walkers(1, bias=[])]
    run(tmp_path / "c", workers, learning(14, walkers=groups, walking=walking(bias=SPREAD)))
    bias = {start.walker: start.bias for request in sampled for start in request.walkers}
    centres = [bias[walker][0].options["stop"] for walker in range(5)]
    assert centres == pytest.approx([0.9, 1.0, 1.1, 0.9, 1.1])
    assert [spec.name for spec in bias[5]] == ["harmonic"]
    assert bias[6] == ()


SCRIPT = """
import sys
import psiflow_core as psiflow
from psiflow_toys import campaigns

if __name__ == "__main__":
    learning = campaigns.learning(
        14,
        reference=psiflow.reference("toy", delay=0.1),
        walkers=[psiflow.Walkers(2, temperature=300), psiflow.Walkers(2, temperature=psiflow.Ramp(300, 900))],
        schedule="sequential",
    )
    with psiflow.Context(psiflow.executor("local", workers=2), folder=sys.argv[2]) as context:
        campaigns.run(sys.argv[1], context, learning)
"""


def test_a_killed_campaign_of_groups_goes_on(tmp_path: Path) -> None:
    script, folder = tmp_path / "campaign.py", tmp_path / "c"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(tmp_path / "pools")]
    driver = subprocess.Popen(command)
    wait_until(lambda: len(list((folder / "labels").rglob("*.json"))) >= 8, driver)
    driver.kill()
    driver.wait()
    before = {file: file.stat().st_mtime_ns for file in (folder / "labels").rglob("*.json")}
    subprocess.run(command, check=True)
    campaign = read_campaign(folder)
    assert campaign.state.finished == "labels"
    assert {file: file.stat().st_mtime_ns for file in before} == before, "no label was paid for twice"
    ramp = psiflow.Ramp(300, 900)
    assert campaign.settings.groups == (psiflow.Walkers(2, temperature=300), psiflow.Walkers(2, temperature=ramp))


def test_other_conditions_are_another_campaign(workers: Context, tmp_path: Path) -> None:
    asked = [psiflow.Walkers(1, temperature=300), psiflow.Walkers(2, temperature=600)]
    run(tmp_path / "c", workers, learning(6, walkers=asked))
    for other in ([asked[0], psiflow.Walkers(2, temperature=700)], 3):
        with pytest.raises(CampaignError, match=r"walkers(\.1\.temperature)? was .* and is now "):
            run(tmp_path / "c", workers, learning(8, walkers=other))


# What is refused ----------------------------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"walkers": [psiflow.Walkers(1), psiflow.Walkers(1, temprature=1)]}, r"walkers\.1: .*mean 'temperature'"),
    ({"walkers": [psiflow.Walkers(1, temperature=-3)]}, r"walkers\.0: sampler 'ase': temperature=-3: .*greater than 0"),
    ({"walkers": [psiflow.Walkers(1, pressure=1)]}, "ensemble 'nvt' keeps its cell"),
    ({"walkers": [psiflow.Walkers(1, ensemble=psiflow.Ramp(1, 2))]}, "ensemble='nvt' is no number.*Numbers: timestep,"),
    ({"walkers": [psiflow.Walkers(1, friction=psiflow.Ramp(1, -2))]}, r"friction=-2\.0: .*greater than 0"),
    ({"walking": {"ramps": {"pressure": psiflow.Ramp(0, 1)}}}, "has no pressure to ramp: give it one. Numbers: time"),
    ({"walking": {"ramps": {"frction": psiflow.Ramp(0, 1)}}}, "has no frction to ramp. Did you mean 'friction'"),
    ({"walking": {"ramps": {"temperature": {"start": -1, "stop": 2}}}}, r"temperature=-1\.0: .*greater than 0"),
    ({"walking": {"ramps": {"temperature": {"start": 1}}}}, r"ramps\.temperature: option 'stop' is missing"),
    ({"walkers": []}, r"walkers=\[\]: write a number of walkers, or a list of groups"),
    ({"walkers": [{"temperature": 300}]}, "walkers: option 'count' is missing"),
    ({"walkers": [{"count": 1, "temperature": {"start": 300}}]}, "temperature: option 'stop' is missing"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED, ids=[said[:30] for _, said in REFUSED])
def test_conditions_that_the_sampler_cannot_have_are_refused_when_they_are_given(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        learning(**given)


VALUES: list[tuple[Callable[[], Any], str]] = [
    (lambda: psiflow.Walkers(0), r"count=0: .*greater than 0"),
    (lambda: psiflow.Walkers(1, 300), "2 values without a name; give count, and all others by their names"),
    (lambda: psiflow.Ramp(1), "option 'stop' is missing"),
]


@pytest.mark.parametrize(("make", "said"), VALUES, ids=[said[:20] for _, said in VALUES])
def test_a_group_or_a_ramp_that_is_none_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        make()


def test_two_paths_for_a_group_are_refused() -> None:
    path = psiflow.Incremental(variable=BOND, start=1.0, stop=2.0, steps=3, stiffness=1.0)
    with pytest.raises(OptionError, match=r"walkers\.bias: 'incremental' twice"):
        learning(walkers=[psiflow.Walkers(1, bias=[path, path])])


def test_every_group_is_checked_before_anything_is_computed(workers: Context, tmp_path: Path) -> None:
    groups = [psiflow.Walkers(1, temperature=900), psiflow.Walkers(1, temperature=10)]
    atoms = molecule("H2O")
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * 900.0)
    atoms.set_momenta(np.random.default_rng(0).normal(0, 1, (3, 3)) * spread)
    with pytest.raises(StructureError, match="the sampler is at 10 K"):
        run(tmp_path / "c", workers, learning(walkers=groups), start=atoms)
    assert not list((tmp_path / "c" / "labels").rglob("*.json"))


# Plain data ---------------------------------------------------------------------------------------------------


def test_groups_and_ramps_are_written_in_yaml(tmp_path: Path) -> None:
    written = {
        **{"potential": "toy", "sampler": {"name": "ase", "temperature": 300}, "reference": "toy"},
        **{"budget": {"labels": 5}, "start": "start.xyz", "folder": "campaign"},
        "walkers": [
            {"count": 8, "temperature": 300},
            {"count": 4, "temperature": {"start": 300, "stop": 900}, "bias": SPRING.to_plain()},
        ],
        "walking": {"ramps": {"friction": {"start": 1, "stop": 10}}},
    }
    file = tmp_path / "campaign.yaml"
    file.write_text(yaml.safe_dump(written))
    asked = read_request(file).learning
    ramp = psiflow.Ramp(300, 900)
    assert asked.walkers == (psiflow.Walkers(8, temperature=300), psiflow.Walkers(4, temperature=ramp, bias=SPRING))
    assert asked.walking.ramps == {"friction": psiflow.Ramp(1, 10)}
    plain = json.loads(json.dumps(asked.model_dump(mode="json", include=set(Settings.model_fields))))
    again = Settings(**plain)
    assert (again.walkers, again.walking) == (asked.walkers, asked.walking)


def test_a_group_without_conditions_is_its_count() -> None:
    assert learning(walkers=[psiflow.Walkers(4)]).walkers == 4
    assert learning(walkers=5).groups == (psiflow.Walkers(5),)


def test_walkers_are_numbered_group_by_group() -> None:
    groups = learning(walkers=[psiflow.Walkers(2, temperature=300), psiflow.Walkers(3, temperature=600)])
    assert groups.trajectories == 5
    assert [groups.group_of(walker) for walker in range(5)] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_a_ramp_goes_from_its_start_to_its_stop() -> None:
    ramp = psiflow.Ramp(-100, 900)
    assert [ramp.value(share) for share in (-1.0, 0.0, 0.5, 2.0)] == [-100.0, -100.0, 400.0, 900.0]


def test_a_pressure_ramps_where_there_is_one() -> None:
    sampler = psiflow.sampler("ase", ensemble="npt", pressure=1.0)
    conditions = Conditions.of(sampler, psiflow.Walkers(1), {"pressure": psiflow.Ramp(-100, 900)})
    pressures = [conditions.at(share).options["pressure"] for share in (0.0, 0.5, 1.0)]
    assert pressures == [-100.0, 400.0, 900.0]


def test_a_group_may_have_another_ensemble() -> None:
    group = psiflow.Walkers(1, ensemble="npt", pressure=1000)
    spec = Conditions.of(psiflow.sampler("ase"), group, {}).at(0.0)
    assert spec == psiflow.sampler("ase", ensemble="npt", pressure=1000.0)


def test_conditions_are_told_in_a_few_characters() -> None:
    group = psiflow.Walkers(1, temperature=psiflow.Ramp(300, 900), pressure=1.0, friction=2, bias=[SPRING])
    assert group.conditions == "T=300→900 P=1 friction=2 bias=harmonic"
    assert psiflow.Walkers(1, bias=[]).conditions == "bias=none"
