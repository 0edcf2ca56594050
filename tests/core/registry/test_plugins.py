"""The registry: what it finds, and what it tells when it does not."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import ClassVar

import pytest
from ase import Atoms
from pydantic import Field, PositiveFloat

from psiflow_core.components import LabelTask, Reference, Sampler, Spec
from psiflow_core.environments.catalogue import as_spec, spec_by
from psiflow_core.errors import OptionError, PluginBroken, PluginNotFound
from psiflow_core.registry.hookspecs import hookimpl
from psiflow_core.registry.plugins import Registry, build
from psiflow_core.structures import Label


class Tiny(Reference):
    """A reference with little to choose."""

    name: ClassVar[str] = "tiny"

    cutoff: PositiveFloat = 400.0
    """Plane-wave cut-off. [eV]"""
    points: int = Field(default=1, ge=1, le=9)
    """Points along each axis. [1]"""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        raise NotImplementedError


class Needy(Reference):
    """A reference that cannot do without a file."""

    name: ClassVar[str] = "needy"

    input_file: str
    """Path of the input. [path]"""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        raise NotImplementedError


class Unfinished(Reference):
    """A reference that its author has not written yet."""

    name: ClassVar[str] = "unfinished"


class Point:
    """An entry point: a name, and an object or an error that loading it gives."""

    def __init__(self, name: str, gives: object, distribution: str = "") -> None:
        self.name, self.value, self._gives = name, f"{name}.module", gives
        self.dist = SimpleNamespace(name=distribution or f"dist-{name}", version="1.2.3")

    def load(self) -> object:
        if isinstance(self._gives, Exception):
            raise self._gives
        return self._gives


def _plugin(*references: type[Reference]) -> SimpleNamespace:
    @hookimpl
    def psiflow_references() -> list[type[Reference]]:
        return list(references)

    return SimpleNamespace(psiflow_references=psiflow_references)


def _registry(**plugins: object) -> Registry:
    return Registry().load([Point(name, gives) for name, gives in plugins.items()])  # type: ignore[arg-type, misc]


def test_a_component_is_found_with_its_distribution_and_version() -> None:
    found = _registry(small=_plugin(Tiny, Needy)).find("reference", "tiny")
    assert (found.component, found.distribution, found.version) == (Tiny, "dist-small", "1.2.3")


def test_entry_points_are_loaded_as_the_packaging_standard_has_them() -> None:
    point = EntryPoint(name="builtin", value="psiflow_core.builtin", group="psiflow")
    assert Registry().load([point]).find("sampler", "ase").component.name == "ase"


def test_an_unknown_name_is_told_with_the_nearest_one() -> None:
    with pytest.raises(PluginNotFound, match=r"no reference 'tony'.*Did you mean 'tiny'.*Installed: tiny"):
        _registry(small=_plugin(Tiny)).find("reference", "tony")


def test_the_same_name_of_another_kind_is_another_component() -> None:
    with pytest.raises(PluginNotFound, match="no sampler 'tiny'"):
        _registry(small=_plugin(Tiny)).find("sampler", "tiny")


@pytest.mark.parametrize(
    ("kind", "name", "distribution"),
    [
        ("potential", "mace", "psiflow-mace"),
        ("reference", "cp2k", "psiflow-cp2k"),
        ("sampler", "openmm", "psiflow-openmm-sampler"),
        ("executor", "slurm", "psiflow-slurm"),
    ],
)
def test_an_official_plugin_that_is_not_installed_is_told_with_its_pip_command(
    kind: str, name: str, distribution: str
) -> None:
    with pytest.raises(PluginNotFound, match=f"pip install {distribution}"):
        _registry().find(kind, name)  # type: ignore[arg-type]


def test_a_plugin_that_does_not_load_is_told_with_its_cause_and_the_others_work() -> None:
    registry = _registry(mace=ModuleNotFoundError("No module named 'e3nn'"), small=_plugin(Tiny))
    assert registry.find("reference", "tiny").component is Tiny
    assert "No module named 'e3nn'" in registry.broken["mace"]
    with pytest.raises(PluginBroken, match="ModuleNotFoundError: No module named 'e3nn'"):
        registry.find("potential", "mace")


def test_a_broken_plugin_is_mentioned_to_whoever_asks_for_something_unknown() -> None:
    registry = _registry(strange=RuntimeError("boom"), small=_plugin(Tiny))
    with pytest.raises(PluginNotFound, match=r"strange.*boom"):
        registry.find("reference", "other")


def test_a_name_that_two_plugins_offer_raises_when_it_is_asked_for() -> None:
    registry = _registry(one=_plugin(Tiny, Needy), two=_plugin(Tiny))
    with pytest.raises(PluginBroken, match="'tiny' is offered by both dist-one and dist-two; uninstall one"):
        registry.find("reference", "tiny")
    assert registry.find("reference", "needy").component is Needy
    assert [found.component.name for found in registry.all()] == ["needy"]


def test_a_misspelt_hook_is_told_with_the_right_one() -> None:
    @hookimpl
    def psiflow_referencs() -> list[type[Reference]]:
        return [Tiny]

    registry = _registry(typo=SimpleNamespace(psiflow_referencs=psiflow_referencs), small=_plugin(Needy))
    assert "'psiflow_referencs', which is no hook" in registry.broken["typo"]
    assert "Did you mean 'psiflow_references'" in registry.broken["typo"]
    assert registry.find("reference", "needy").component is Needy


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("psiflow_references", "its 'psiflow_references' lacks @hookimpl, of psiflow_core.registry.hookspecs."),
        (
            "psiflow_referencs",
            "its 'psiflow_referencs' lacks @hookimpl, of psiflow_core.registry.hookspecs. "
            "Did you mean 'psiflow_references'?",
        ),
    ],
)
def test_a_hook_without_its_mark_is_told_and_not_called(name: str, says: str) -> None:
    def undecorated() -> list[type[Reference]]:
        raise AssertionError

    registry = _registry(plain=SimpleNamespace(**{name: undecorated}), small=_plugin(Tiny))
    assert registry.broken == {"plain": says}
    assert registry.find("reference", "tiny").component is Tiny


def test_a_hook_under_another_name_is_one_too() -> None:
    @hookimpl(specname="psiflow_references")
    def levels() -> list[type[Reference]]:
        return [Tiny]

    assert _registry(small=SimpleNamespace(levels=levels)).find("reference", "tiny").component is Tiny


def test_a_plugin_may_have_other_names_that_begin_like_hooks() -> None:
    plugin = _plugin(Tiny)
    plugin.psiflow_version, plugin.psiflow_core = (lambda: "1"), json
    assert _registry(small=plugin).broken == {}


def test_two_distributions_with_the_same_entry_point_name_both_work() -> None:
    points = [Point("extra", _plugin(Tiny), "dist-one"), Point("extra", _plugin(Needy), "dist-two")]
    registry = Registry().load(points)  # type: ignore[arg-type]
    assert registry.find("reference", "tiny").distribution == "dist-one"
    assert registry.find("reference", "needy").distribution == "dist-two"
    assert registry.broken == {}


def test_two_distributions_with_the_same_entry_point_name_are_told_apart_when_both_are_broken() -> None:
    points = [Point("extra", RuntimeError(f"boom {number}"), f"dist-{number}") for number in "21"]
    registry = Registry().load(points)  # type: ignore[arg-type]
    assert registry.broken == {
        "extra": "extra.module: RuntimeError: boom 1",
        "dist-2:extra": "extra.module: RuntimeError: boom 2",
    }


def test_a_class_that_is_not_finished_is_told_with_what_is_missing() -> None:
    registry = _registry(early=_plugin(Unfinished))
    assert "does not implement label" in registry.broken["early"]
    with pytest.raises(PluginNotFound, match="does not implement label"):
        registry.find("reference", "unfinished")


def test_a_component_under_the_wrong_hook_is_told() -> None:
    @hookimpl
    def psiflow_samplers() -> list[type[Sampler]]:
        return [Tiny]  # type: ignore[list-item]

    registry = _registry(mixed=SimpleNamespace(psiflow_samplers=psiflow_samplers))
    assert "is not a sampler" in registry.broken["mixed"]


@pytest.mark.parametrize(
    ("component", "options", "says"),
    [
        (Tiny, {"cutof": 300.0}, "reference 'tiny': unknown option 'cutof'. Did you mean 'cutoff'?"),
        (Tiny, {"cutof": 300.0}, "Options: cutoff, points"),
        (Tiny, {"cutoff": -1.0}, "cutoff=-1.0: Input should be greater than 0"),
        (Tiny, {"points": 12}, "points=12: Input should be less than or equal to 9"),
        (Tiny, {"cutoff": "high"}, "cutoff='high': Input should be a valid number"),
        (Tiny, {"cutoff": float("nan")}, "cutoff=nan"),
        (Needy, {}, "reference 'needy': option 'input_file' is missing"),
    ],
)
def test_a_wrong_option_is_told_with_its_value_and_range(
    component: type[Reference], options: dict[str, object], says: str
) -> None:
    with pytest.raises(OptionError) as error:
        spec_by(_registry(small=_plugin(Tiny, Needy)).find("reference", component.name), options)
    assert says in str(error.value)


def test_every_wrong_option_is_told_at_once() -> None:
    with pytest.raises(OptionError, match=r"cutoff=-1\.0.*points=0"):
        Tiny.parse({"cutoff": -1.0, "points": 0})


def test_a_spec_survives_json_and_builds_its_component_again() -> None:
    spec = as_spec("sampler", "ase")
    again = Spec.from_plain(json.loads(json.dumps(spec.to_plain())))
    assert (again, again.digest) == (spec, spec.digest)
    assert as_spec("sampler", build(again)) == spec


def test_defaults_and_their_explicit_values_are_one_spec() -> None:
    tiny = _registry(small=_plugin(Tiny)).find("reference", "tiny")
    assert spec_by(tiny, {}).digest == spec_by(tiny, {"points": 1, "cutoff": 400}).digest
    assert spec_by(tiny, {}).digest != spec_by(tiny, {"points": 2}).digest


def test_another_version_is_another_spec() -> None:
    options = {"cutoff": 400.0, "points": 1}
    old, new = (Spec("reference", "tiny", options, "dist", version) for version in ("1.0", "1.1"))
    assert old.digest != new.digest


def test_a_spec_hashes_alike_in_processes_that_hash_strings_differently() -> None:
    code = "from psiflow_core.environments.catalogue import as_spec; print(as_spec('sampler', 'ase').digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {as_spec("sampler", "ase").digest}


def test_a_misspelt_plugin_of_psiflows_that_is_not_installed_is_suggested() -> None:
    with pytest.raises(PluginNotFound, match=r"no potential 'nequipp'. Did you mean 'nequip'\?"):
        Registry().find("potential", "nequipp")
