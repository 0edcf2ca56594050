"""The command `psiflow`, on real campaigns."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, ClassVar, Literal, NamedTuple

import pytest
import yaml
from ase.build import molecule
from psiflow_toys.reference import ToyReference
from psiflow_toys.waiting import PATIENCE, survivors, wait_until
from pydantic import BaseModel, Field, PositiveInt
from rich.console import Console, RenderableType
from typer.testing import CliRunner

import psiflow_core
from psiflow_core.cli import app, components, main
from psiflow_core.cli.components import named
from psiflow_core.cli.request import read_request
from psiflow_core.components import Component, Policy
from psiflow_core.components.options import bounds, options, type_text
from psiflow_core.environments import catalogue
from psiflow_core.errors import CampaignError
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.potentials.trained import TrainedPotential
from psiflow_core.processes import guard
from psiflow_core.registry.hookspecs import hookimpl
from psiflow_core.registry.plugins import Registry, registry

REQUEST = {
    "potential": {"name": "toy", "cutoff": 5.5},
    "sampler": {"name": "ase", "ensemble": "nve", "temperature": 100.0},
    "reference": {"name": "toy"},
    "walkers": 1,
    "committee": 2,
    "budget": {"labels": 12},
    "bootstrap": {"structures": 8},
    "walking": {"segment": {"steps": 20}},
    "start": "water.xyz",
    "folder": "campaign",
    "context": {"everything": "threads"},
}


class Said(NamedTuple):
    code: int
    out: str
    err: str


Psiflow = Callable[..., Said]


@pytest.fixture
def psiflow(capsys: pytest.CaptureFixture[str]) -> Psiflow:
    """The command, in this process."""

    def command(*arguments: object) -> Said:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Said(int(end.value.code or 0), captured.out, captured.err)

    return command


@pytest.fixture
def request_file(tmp_path: Path) -> Callable[..., Path]:
    """A campaign's YAML file, with these changes; a key that is changed to None is left out."""
    molecule("H2O").write(tmp_path / "water.xyz")

    def written(**changes: object) -> Path:
        given = {key: value for key, value in {**REQUEST, **changes}.items() if value is not None}
        file = tmp_path / "campaign.yaml"
        file.write_text(yaml.safe_dump(given))
        return file

    return written


def elsewhere(*arguments: object) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    words = [sys.executable, "-m", "psiflow_core.cli", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def row(text: str, *words: str) -> bool:
    """Whether a line of the text holds these words, in this order; later words may repeat some of them."""
    lines = ([word for word in line.split() if word in words] for line in text.splitlines())
    return any(found[: len(words)] == list(words) for found in lines)


def test_every_installed_component_has_a_line(psiflow: Psiflow) -> None:
    said = psiflow("plugins")
    assert said.code == 0
    for registered in registry().all():
        component = registered.component
        assert row(said.out, component.kind, component.name, registered.distribution, registered.version)


def test_one_kind_can_be_asked_for(psiflow: Psiflow) -> None:
    out = psiflow("plugins", "--kind", "executor").out
    assert "executor" in out
    assert "sampler" not in out


def test_every_option_of_every_component_is_shown(psiflow: Psiflow) -> None:
    for registered in registry().all():
        component = registered.component
        out = psiflow("plugins", component.name, "--kind", component.kind).out
        for name, field in component.model_fields.items():
            assert name in {line.split()[0] for line in out.splitlines() if line.strip()}, (
                f"{component.kind} {component.name} does not show {name}"
            )
            assert " ".join((field.description or "").split()[:2]) in out


def test_an_option_is_shown_with_type_range_default_and_unit() -> None:
    shown = {option.name: option for option in options(named("toy", "reference")[0].registered.component)}
    depth, fraction = shown["depth"], shown["fail_fraction"]
    assert (depth.type, depth.range, depth.default, depth.unit) == ("float", "> 0", "1.0", "eV")
    assert depth.meaning == "Depth D of the well."
    assert fraction.range == "≥ 0, ≤ 1"


def test_an_option_without_a_default_is_required(psiflow: Psiflow) -> None:
    assert row(psiflow("plugins", "ase", "--kind", "reference").out, "calculator", "str", "required")


def test_a_name_of_several_kinds_shows_them_all(psiflow: Psiflow) -> None:
    out = psiflow("plugins", "toy").out
    assert "potential toy" in out
    assert "reference toy" in out


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (float, "float"),
        (PositiveInt | None, "int | None"),
        (Literal["nve", "nvt"], "nve | nvt"),
        (list[float] | None, "list[float] | None"),
        (dict[str, int], "dict[str, int]"),
        (Annotated[int, Field(ge=2)], "int"),
        (tuple[float, float], "tuple[float, float]"),
    ],
)
def test_types_are_written_as_people_write_them(annotation: object, text: str) -> None:
    assert type_text(annotation) == text


def test_the_range_of_an_optional_number_is_that_of_the_number() -> None:
    class Some(Component):
        number: PositiveInt | None = None
        words: list[str] = Field(default_factory=list, min_length=1, max_length=3)

    shown = {option.name: option.range for option in options(Some)}
    assert shown == {"number": "> 0", "words": "length ≥ 1, length ≤ 3"}
    assert list(bounds([])) == []


def printed(what: RenderableType, width: int) -> str:
    """What a terminal of this width shows."""
    console = Console(width=width)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


@pytest.mark.parametrize("width", [60, 80, 109, 110, 200])
def test_no_word_of_an_option_is_lost_in_a_narrow_terminal(width: int) -> None:
    for registered in registry().all():
        out = printed(components.options_of(registered.component.name, registered.component.kind), width)
        for option in options(registered.component):
            words = [option.name, *option.default.split(), *option.unit.split(), *option.meaning.split()]
            lost = [word for word in words if word not in out and len(word) < 20]
            assert not lost, f"{registered.component.name}.{option.name} at {width} columns"


def test_all_close_names_are_suggested(psiflow: Psiflow, monkeypatch: pytest.MonkeyPatch) -> None:
    toys, twins = importlib.import_module("psiflow_toys"), Registry()
    twins.register(toys, "toys", "psiflow-toys", "1")
    monkeypatch.setattr(catalogue, "registry", lambda: twins)
    twins.register(SimpleNamespace(psiflow_references=hookimpl(lambda: [Joy])), "joys", "psiflow-joys", "1")
    assert "Did you mean 'toy' or 'joy'?" in psiflow("plugins", "oy").err


class Joy(ToyReference):
    """A reference whose name resembles another's."""

    name: ClassVar[str] = "joy"


def test_every_option_of_a_campaign_is_shown(psiflow: Psiflow) -> None:
    out = psiflow("options").out
    for place, policy in components.policies().items():
        assert not place or row(out, policy.__name__, place)
        shown = psiflow("options", policy.__name__).out
        for option in options(policy):
            assert option.name in shown
            assert option.meaning.split()[0] in shown
        assert psiflow("options", place or "onlinelearning").out == shown


def test_every_policy_of_psiflow_is_among_them() -> None:
    found = {policy.__name__ for policy in components.policies().values()}
    public = {name for name in dir(psiflow_core) if isinstance(getattr(psiflow_core, name), type)}
    assert found == {name for name in public if issubclass(getattr(psiflow_core, name), Policy)}


def test_an_unknown_policy_is_one_line_with_a_suggestion(psiflow: Psiflow) -> None:
    said = psiflow("options", "Trainig")
    assert said.code == 1
    assert said.err.startswith("error: no policy 'Trainig'. Did you mean 'Training'?")


@pytest.mark.parametrize("owner", [psiflow_core.Training, psiflow_core.OnlineLearning, ToyReference])
def test_help_tells_every_option_with_default_unit_and_meaning(owner: type[BaseModel]) -> None:
    text = owner.__doc__ or ""
    assert text.count("\nOptions:\n") == 1
    for option in options(owner):
        assert f"    {option.head()}\n" in text
    if owner is ToyReference:
        assert "depth: float > 0 [eV], default 1.0\n        Depth D of the well." in text


def test_the_version_is_told(psiflow: Psiflow) -> None:
    assert psiflow("--version").out == f"psiflow {version('psiflow-core')}\n"
    assert psiflow_core.__version__ == version("psiflow-core")


def test_listing_plugins_imports_no_engine() -> None:
    code = (
        "import sys; from psiflow_core.cli import components as c; c.overview(); c.options_of('mace'); "
        "print([e for e in ('torch', 'mace', 'openmm', 'pyscf', 'parsl') if e in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_broken_plugin_is_listed_with_its_cause(psiflow: Psiflow, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> object:
        raise ImportError("libcurrent.so.7 is missing")

    point = SimpleNamespace(name="kaput", value="psiflow_kaput", dist=None, load=fails)
    broken = Registry().load([point])  # type: ignore[list-item]
    monkeypatch.setattr(components, "registry", lambda: broken)
    out = psiflow("plugins").out
    assert "kaput" in out
    assert "libcurrent.so.7 is missing" in out


def test_an_unknown_component_is_one_red_line_with_a_suggestion(psiflow: Psiflow) -> None:
    said = psiflow("plugins", "toi")
    assert said.code == 1
    assert said.out == ""
    assert said.err.startswith("error: no component 'toi'. Did you mean 'toy'?")
    assert said.err.count("\n") == 1


def test_a_component_that_two_plugins_offer_says_so(psiflow: Psiflow, monkeypatch: pytest.MonkeyPatch) -> None:
    toys, twice = importlib.import_module("psiflow_toys"), Registry()
    twice.register(toys, "toys", "psiflow-toys", "1")
    twice.register(SimpleNamespace(psiflow_potentials=toys.psiflow_potentials), "copy", "psiflow-copy", "1")
    monkeypatch.setattr(catalogue, "registry", lambda: twice)
    assert "offered by both psiflow-toys and psiflow-copy" in psiflow("plugins", "toy", "--kind", "potential").err


def test_an_official_component_that_is_missing_says_how_to_install_it(psiflow: Psiflow) -> None:
    if any(registered.component.name == "nequip" for registered in registry().all()):
        pytest.fail("nequip is installed here now: ask for another that is not")
    assert "pip install psiflow-nequip" in psiflow("plugins", "nequip").err


def test_a_misspelt_command_suggests_the_right_one() -> None:
    result = CliRunner().invoke(app, ["plugin"])
    assert result.exit_code == 2
    assert "Did you mean 'plugins'" in result.output


def test_an_error_in_a_process_of_its_own_has_no_traceback(tmp_path: Path) -> None:
    command = elsewhere("status", tmp_path)
    out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert out == ""
    assert err.startswith(f"error: there is no campaign in {tmp_path}")
    assert "Traceback" not in err


def test_status_counts_what_the_journal_counts(psiflow: Psiflow, campaign: Path) -> None:
    state = read_campaign(campaign).state
    said = psiflow("status", campaign)
    assert said.code == 0
    assert f"labels {state.count('labelled')}/12" in said.out
    assert f"failed {state.count('failed')}" in said.out
    assert "finished" in said.out


def test_status_tells_the_fate_of_every_candidate(psiflow: Psiflow, campaign: Path) -> None:
    out = psiflow("status", campaign).out
    state = read_campaign(campaign).state
    rows = [line.split() for line in out.partition("candidates")[2].partition("failures")[0].splitlines()[2:]]
    assert sum(int(words[0]) for words in rows if words) == len(state.candidates)


def test_status_tells_why_labels_failed(psiflow: Psiflow, campaign: Path) -> None:
    failures = read_campaign(campaign).state.failures
    assert failures, "the campaign was made so that some labels fail"
    out = psiflow("status", campaign).out
    assert f"{len(failures)} × label: unconverged" in out
    assert "this structure is one of those that the toy fails on" in out


def test_status_of_a_finished_campaign_says_how_to_go_on(psiflow: Psiflow, campaign: Path) -> None:
    out = psiflow("status", campaign).out
    assert "larger budget" in out
    assert str(campaign / "report.html") in out


def test_status_writes_nothing(psiflow: Psiflow, campaign: Path) -> None:
    def content() -> dict[str, tuple[int, int]]:
        files = [file for file in campaign.rglob("*") if file.is_file() and file.suffix != ".sqlite-shm"]
        return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}

    before = content()
    psiflow("status", campaign)
    assert content() == before


def test_watching_a_finished_campaign_ends_at_once(psiflow: Psiflow, campaign: Path) -> None:
    said = psiflow("status", campaign, "--watch")
    assert said.code == 0
    assert "finished" in said.out


def test_looking_for_the_driver_leaves_its_lock_alone(psiflow: Psiflow, tmp_path: Path, campaign: Path) -> None:
    assert Store(campaign).driver() is None
    store = Store(tmp_path / "taken")
    store.open_for_writing().close()
    for _ in range(3):
        assert f"process {os.getpid()} on" in (Store(store.folder).driver() or "")
    store.release()
    assert Store(store.folder).driver() is None


def test_the_report_is_written_anew(psiflow: Psiflow, campaign: Path) -> None:
    before = (campaign / "report.html").stat().st_mtime_ns
    said = psiflow("report", campaign)
    assert said.code == 0
    assert said.out.strip() == str(campaign / "report.html")
    assert (campaign / "report.html").stat().st_mtime_ns > before
    assert "<svg" in (campaign / "report.html").read_text()


def test_a_campaign_of_a_yaml_file_runs_from_any_directory(
    psiflow: Psiflow, request_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = request_file(test="water.xyz")
    monkeypatch.chdir("/")
    said = psiflow("run", file, "--quiet")
    assert said.code == 0, said.err
    assert str(tmp_path / "campaign" / "report.html") in said.out
    campaign = read_campaign(tmp_path / "campaign")
    assert campaign.state.finished is not None
    assert campaign.configuration["potential"]["cutoff"] == 5.5
    assert len(TrainedPotential.load(tmp_path / "campaign" / "potential").members) == 2


def test_the_context_of_a_yaml_file_is_honoured(request_file: Callable[..., Path]) -> None:
    one, other = {"name": "local", "workers": 2}, {"name": "threads"}
    file = request_file(context={"train": other, "sample": one, "label": one})
    executors = read_request(file).context.executors
    assert executors["sample"] is executors["label"], "what YAML names by an alias is one pool"
    assert executors["train"].name == "threads"


def test_a_campaign_may_name_the_file_of_its_context(request_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("everything: threads\nlabels: shared\n")
    request = read_request(request_file(context="cluster.yaml"))
    assert request.context.executors["everything"].name == "threads"
    assert request.paths["labels"] == tmp_path / "shared"


def test_the_labels_of_a_yaml_files_data_are_found_under_their_names(
    request_file: Callable[..., Path], tmp_path: Path
) -> None:
    frame = "1\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-13.6\nH 0 0 0 0 0 0\n"
    (tmp_path / "d.xyz").write_text(frame)
    names = {"energy": "REF_energy", "forces": "REF_forces"}
    request = read_request(request_file(data={"file": "d.xyz", **names}))
    assert request.paths["data"] == tmp_path / "d.xyz"
    assert request.names == names
    assert read_request(request_file(data="d.xyz")).names == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"potental": "toy"}, "unknown key 'potental'. Did you mean 'potential'?"),
        ({"potential": {"name": "toy", "cutof": 4.0}}, "unknown option 'cutof'. Did you mean 'cutoff'?"),
        ({"reference": "orca"}, "no reference 'orca'"),
        ({"sampler": {"temperature": 300.0}}, "sampler: write a name"),
        ({"sampler": {"name": "ase", "temperature": -1}}, "temperature=-1"),
        ({"budget": {"labels": 0}}, "budget: labels=0: Input"),
        ({"budget": 12}, "budget=12: write Budget(labels=12), in YAML budget: {labels: 12}"),
        ({"training": 400}, "training=400: write Training(growth=…), in YAML training: {growth: …}"),
        ({"walking": {"segment": {"steps": -1}}}, "walking: segment: steps=-1: Input"),
        ({"committee": 0}, "committee=0"),
        ({"start": None, "budget": None}, "missing keys: budget, start"),
        ({"start": "wine.xyz"}, "/wine.xyz: there is no such file; check the path"),
        ({"folder": 3}, "folder: write a path"),
        ({"data": {"file": "d.xyz", "energy": "REF_energy"}}, "data: forces is missing; write {file: …, energy: …"),
        (
            {"data": {"file": "d.xyz", "enrgy": "E"}},
            "data: enrgy='E'; write names in file, energy, forces",
        ),
        ({"data": {"file": "d.xyz", "energy": 1, "forces": "f"}}, "data: energy=1; write names in file"),
        ({"data": "none.xyz"}, "/none.xyz: there is no such file; check the path"),
        ({"context": {"tran": "local"}}, "unknown key 'context.tran'. Did you mean 'train'?"),
        ({"context": {"everything": "slurmm"}}, "no executor 'slurmm'"),
        ({"context": "cluster.yaml"}, "context: no file 'cluster.yaml'"),
    ],
)
def test_a_mistake_in_a_yaml_file_is_one_clear_line(
    psiflow: Psiflow, request_file: Callable[..., Path], changes: dict[str, object], message: str
) -> None:
    said = psiflow("run", request_file(**changes))
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("content", ["a: [1, 2", "", "- potential", "\x00"])
def test_a_file_that_is_no_campaign_is_one_clear_line(psiflow: Psiflow, tmp_path: Path, content: str) -> None:
    file = tmp_path / "campaign.yaml"
    file.write_text(content)
    said = psiflow("run", file)
    assert said.code == 1
    assert said.err.startswith(("error: ", f"error: {file}"))
    assert said.err.count("\n") == 1


def test_a_missing_file_is_one_clear_line(psiflow: Psiflow, tmp_path: Path) -> None:
    assert "cannot read" in psiflow("run", tmp_path / "nothing.yaml").err


def test_other_structures_are_told_by_formula(
    psiflow: Psiflow, request_file: Callable[..., Path], tmp_path: Path
) -> None:
    assert psiflow("run", request_file(test="water.xyz"), "--quiet").code == 0
    molecule("CH4").write(tmp_path / "methane.xyz")
    moved = molecule("H2O")
    moved.rattle(0.01)
    moved.write(tmp_path / "moved.xyz")
    for start, said in (("methane", "H2O and is now CH4"), ("moved", "H2O and is now H2O with other positions")):
        assert f"start was {said}" in psiflow("run", request_file(start=f"{start}.xyz", test="water.xyz")).err
    assert "test was H2O and is now none" in psiflow("run", request_file()).err


def test_a_campaign_that_a_check_refused_is_told_so(
    psiflow: Psiflow, request_file: Callable[..., Path], tmp_path: Path
) -> None:
    refused = {"name": "ase", "calculator": "no.such.module.Calculator"}
    assert psiflow("run", request_file(reference=refused), "--quiet").code == 1
    out = psiflow("status", tmp_path / "campaign").out
    assert "a check refused it" in out
    assert "run the same script" not in out


def test_labels_that_a_driver_left_behind_are_cut_off(psiflow: Psiflow, campaign: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(campaign, tmp_path / "copy", ignore=shutil.ignore_patterns("pools")))
    with contextlib.closing(sqlite3.connect(folder / "journal.sqlite")) as journal, journal:
        first = "(SELECT MIN(number) FROM events WHERE kind = 'labelled')"
        journal.execute(f"DELETE FROM events WHERE number >= {first}")
    out = psiflow("status", folder).out
    assert row(out, "atom", "cut", "off", "the", "driver", "ended", "first")
    assert "labelling" not in out.partition("candidates")[2]


def test_candidates_of_a_campaign_that_gave_up_are_not_queued(
    psiflow: Psiflow, request_file: Callable[..., Path], tmp_path: Path
) -> None:
    fails = {"name": "toy", "fail_fraction": 1.0}
    said = psiflow("run", request_file(reference=fails, bootstrap={"structures": 12}), "--quiet")
    assert said.code == 1
    assert read_campaign(tmp_path / "campaign").state.finished == "failed"
    out = psiflow("status", tmp_path / "campaign").out
    assert "not labelled" in out
    assert "queued" not in out


def test_a_stopped_campaign_is_seen_and_goes_on(
    psiflow: Psiflow, request_file: Callable[..., Path], tmp_path: Path
) -> None:
    slow = {"name": "toy", "delay": 0.5}
    file = request_file(reference=slow, context={"everything": {"name": "local", "workers": 1}})
    driver = elsewhere("run", file)
    folder = tmp_path / "campaign"
    wait_until(lambda: _labels(folder) >= 2, driver)

    out = psiflow("status", folder).out
    assert f"driver  process {driver.pid} on" in out, "a driver is at work, and it is seen"
    assert guard.guarding(folder / "pools" / f"all-{driver.pid}"), "it has workers"

    driver.send_signal(signal.SIGTERM)
    said, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130
    assert "To continue: psiflow run" in said
    assert not survivors(guard.guarding(folder / "pools" / f"all-{driver.pid}")), "its workers have ended with it"
    done = _labels(folder)
    out = psiflow("status", folder).out
    assert "interrupted" in out
    assert "in labelling" not in out
    assert "to continue, run the same script" in out

    again = psiflow("run", request_file(reference=slow), "--quiet")  # elsewhere: on threads of this process
    assert again.code == 0, again.err
    assert _labels(folder) > done
    assert "finished" in psiflow("status", folder).out


def _labels(folder: Path) -> int:
    if not Store(folder).exists():
        return 0
    with contextlib.suppress(CampaignError):  # the journal is just being made
        return read_campaign(folder).state.count("labelled")
    return 0
