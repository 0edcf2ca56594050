"""What would go wrong later is told when a plugin is registered, and the other plugins go on working."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from pydantic import ConfigDict, Field, PositiveFloat, field_validator

from psiflow_core.builtin.ase_reference import AseReference
from psiflow_core.cli import components, diagnosis
from psiflow_core.components import LabelTask, Potential, Predictor, Reference, Sampler, TrainingResult, TrainingTask
from psiflow_core.environments.catalogue import spec_by
from psiflow_core.errors import PluginNotFound
from psiflow_core.registry.hookspecs import hookimpl
from psiflow_core.registry.plugins import Registry, registry
from psiflow_core.registry.registration import faults
from psiflow_core.structures import Label

ROOT = Path(__file__).parents[3]


class Sound(Reference):
    """A reference [with brackets], [/such] as these."""

    name: ClassVar[str] = "sound"

    cutoff: PositiveFloat = 400
    """Plane-wave cut-off. [eV]"""

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        raise NotImplementedError


def having(*offered: object, hook: str = "psiflow_references") -> SimpleNamespace:
    return returning(lambda: list(offered), hook)


def returning(make: Callable[[], object], hook: str = "psiflow_references") -> SimpleNamespace:
    return SimpleNamespace(**{hook: hookimpl(make, specname=hook)})


def point(name: str, plugin: object, distribution: str = "", requires: list[str] | None = None) -> Any:
    def load() -> object:
        if isinstance(plugin, BaseException):
            raise plugin
        return plugin

    dist = SimpleNamespace(name=distribution or f"dist-{name}", version="1.2.3", requires=requires)
    return SimpleNamespace(name=name, value=f"{name}.module", dist=dist, load=load)


def loaded(*points: Any) -> Registry:
    """Beside a plugin that is sound, and psiflow's own."""
    builtin = point("builtin", sys.modules["psiflow_core.builtin"], "psiflow-core")
    found = Registry().load([*points, builtin, point("sound", having(Sound), "dist-sound")])
    assert found.find("reference", "sound").component is Sound
    assert found.find("reference", "ase").component is AseReference
    return found


def variant(base: type[Any] = Sound, annotations: dict[str, Any] | None = None, **body: Any) -> type[Any]:
    """A class that differs from a sound one."""
    return type("Variant", (base,), {"__module__": __name__, "__annotations__": annotations or {}, **body})


class Engine(Potential):
    """A potential."""

    name: ClassVar[str] = "engine"

    def train(self, task: TrainingTask) -> TrainingResult:
        raise NotImplementedError

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        raise NotImplementedError


class Unwilling(Sound):
    """A reference with a validator."""

    name: ClassVar[str] = "unwilling"

    level: str = "hf"
    """Level."""

    @field_validator("level")
    @classmethod
    def _level(cls, given: str) -> str:
        return {"dft": "dft"}[given]


async def promised(self: Any, structure: Atoms, task: LabelTask) -> Label:
    raise NotImplementedError


def yielded(self: Any, structure: Atoms, task: LabelTask) -> Iterator[Label]:
    yield Label(0.0, np.zeros((1, 3)))


POTENTIALS = [variant(Engine, native_suffix=None), variant(Engine, load=lambda self, model, gpu="cpu": None)]

COUNTED = iter(range(10**6))

WRONG: dict[str, tuple[object, str]] = {
    "a name that is a number": (variant(name=3), "`name` is 3, and has to be text"),
    "a name that is a list": (variant(name=["a"]), r"`name` is \['a'\], and has to be text"),
    "a name that is None": (variant(name=None), "`name` is None"),
    "an empty name": (variant(name=""), "it has no `name`; give it one"),
    "a name of two words": (variant(name="two words"), "'two words' cannot be written everywhere"),
    "a name with a line break": (variant(name="a\n"), "cannot be written everywhere"),
    "a name like an option of a command": (variant(name="--help"), "cannot be written everywhere"),
    "a name that YAML ends early": (variant(name="a: b"), "cannot be written everywhere"),
    "a name that is a comment": (variant(name="#a"), "cannot be written everywhere"),
    "a name that is a number in YAML": (variant(name="1.5"), "cannot be written everywhere"),
    "a name that YAML takes for a truth": (variant(name="Yes"), "cannot be written everywhere"),
    "a name in other letters": (variant(name="ħω"), "cannot be written everywhere"),
    "an engine that is a module": (variant(engine=json), "`engine` is <module 'json.*, and has to be text"),
    "a program that is a path": (variant(program=Path("cp2k")), "`program` is .*, and has to be text"),
    "a suffix that is no text": (POTENTIALS[0], "`native_suffix` is None"),
    "another kind": (variant(kind="sampler"), "its `kind` is 'sampler'; leave that to Reference"),
    "a sampler": (variant(Sampler, name="s"), "it is a sampler; return it from psiflow_samplers"),
    "an instance": (Sound(), "it is an instance; return the class Sound"),
    "a text": ("sound", "it is no class"),
    "a class of its own": (type("Mine", (), {"name": "mine"}), "does not inherit from psiflow_core.components.Refer"),
    "the contract itself": (Reference, "has no `name`; give it one; it does not implement label"),
    "too few parameters": (
        variant(label=lambda self, structure: None),
        r"its `label` takes \(self, structure\), and has to take \(self, structure, task\)",
    ),
    "one parameter more": (variant(label=lambda self, structure, task, seed: None), "its `label` takes .*seed"),
    "no self": (variant(label=lambda structure, task: None), "its `label` takes"),
    "parameters by name only": (variant(label=lambda self, *, structure, task: None), "its `label` takes"),
    "a static method that takes too much": (
        variant(label=staticmethod(lambda self, structure, task: None)),
        "its `label` takes",
    ),
    "a device that is called otherwise": (
        POTENTIALS[1],
        "its `load` takes .*gpu.*, and has to take .*device",
    ),
    "a check without structures": (variant(check=lambda self: None), "its `check` takes"),
    "a method that is none": (variant(label=3, annotations={"label": ClassVar[int]}), "its `label` is no method"),
    "a property": (variant(label=property(lambda self: None)), "its `label` is no method"),
    "a coroutine": (variant(label=promised), "its `label` is a coroutine or a generator"),
    "a generator": (variant(label=yielded), "its `label` is a coroutine or a generator"),
    "options that can change": (variant(model_config=ConfigDict(frozen=False)), "has frozen=False; leave that at True"),
    "options that nobody knows": (variant(model_config=ConfigDict(extra="allow")), "has extra='allow'; leave that"),
    "a default of another type": (
        variant(annotations={"grid": int}, grid="fine"),
        "the default of its option 'grid' is 'fine': Input should be a valid integer",
    ),
    "a default out of range": (
        variant(annotations={"grid": int}, grid=Field(0, ge=1)),
        "the default of its option 'grid' is 0: Input should be greater than or equal to 1",
    ),
    "a default beside an option that has to be given": (
        variant(annotations={"given": int, "grid": int}, grid=None),
        "the default of its option 'grid' is None",
    ),
    "a default without an end": (variant(annotations={"grid": float}, grid=np.inf), "'grid' is inf"),
    "a default that is no JSON": (
        variant(annotations={"grid": Any}, grid=print),
        "the default of its option 'grid' is <built-in function print>, which cannot be written as JSON",
    ),
    "bytes that are no text": (variant(annotations={"grid": bytes}, grid=b"\xff"), "cannot be written as JSON"),
    "a default that changes": (
        variant(annotations={"grid": int}, grid=Field(default_factory=lambda: next(COUNTED))),
        "'grid' is another each time it is read",
    ),
    "a default that cannot be made": (
        variant(annotations={"grid": int}, grid=Field(default_factory=lambda: 1 // 0)),
        "its options cannot be read: ZeroDivisionError",
    ),
    "a validator that fails on the default": (Unwilling, "its options cannot be read: KeyError: 'hf'"),
}


@pytest.mark.parametrize(("component", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_class_that_could_not_be_used_is_told_in_a_sentence(component: object, says: str) -> None:
    hook = "psiflow_potentials" if component in POTENTIALS else "psiflow_references"
    found = loaded(point("wrong", having(component, hook=hook)))
    assert list(found.broken) == ["wrong"]
    with pytest.raises(PluginNotFound, match=rf"Broken plugin wrong: (?s:.*){says}"):
        found.find("reference", "nonesuch")
    assert "\n" not in found.broken["wrong"]


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("option", ["check", "options", "parse", "engine", "program", "kind", "model_dump", "copy"])
def test_an_option_that_hides_a_method_or_an_attribute_is_told(option: str) -> None:
    hiding = variant(annotations={option: int}, **{option: 1})
    found = loaded(point("wrong", having(hiding)))
    assert (
        f"its option '{option}' has the name of an attribute of Reference; rename the option" in found.broken["wrong"]
    )


@pytest.mark.parametrize(
    "label",
    [
        lambda self, structure, task: None,
        lambda self, atoms, job: None,
        lambda self, structure, task, extra=1: None,
        lambda self, *arguments, **more: None,
        staticmethod(lambda structure, task: None),
    ],
)
def test_every_signature_that_can_be_called_is_taken(label: object) -> None:
    assert list(faults(variant(label=label), "reference")) == []


@pytest.mark.parametrize("registered", registry().all(), ids=lambda one: f"{one.component.kind}-{one.component.name}")
def test_our_own_have_no_fault(registered: Any) -> None:
    assert list(faults(registered.component, registered.component.kind)) == []


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "returns None, and has to return a list of classes"),
        (Sound, "returns a ModelMetaclass, and has to return a list"),
        ((Sound,), "returns a tuple, and has to return a list"),
        ("Sound", "returns a str, and has to return a list"),
        ({"sound": Sound}, "returns a dict, and has to return a list"),
        (iter([Sound]), "returns a list_iterator, and has to return a list"),
        ((one for one in [Sound]), "returns a generator, and has to return a list"),
    ],
)
def test_a_hook_that_returns_no_list_is_told(returned: object, says: str) -> None:
    assert says in loaded(point("wrong", returning(lambda: returned))).broken["wrong"]


def test_a_hook_that_has_nothing_to_offer_on_this_machine_is_sound() -> None:
    assert loaded(point("idle", having())).broken == {}


def test_a_hook_of_other_parameters_is_told_in_a_line() -> None:
    plugin = SimpleNamespace(psiflow_references=hookimpl(lambda config: [Sound]))
    cause = loaded(point("wrong", plugin)).broken["wrong"]
    assert "config" in cause
    assert "\n" not in cause


@pytest.mark.parametrize("plugin", [SimpleNamespace(), json, object(), None, "text"])
def test_an_entry_point_without_hooks_is_told(plugin: object) -> None:
    cause = loaded(point("idle", plugin)).broken["idle"]
    assert cause.startswith("it implements no hook; define one of psiflow_potentials, psiflow_samplers,")


@pytest.mark.parametrize(
    "error", [SystemExit(3), SystemExit("no licence"), GeneratorExit(), MemoryError(), RuntimeError("a\nb")]
)
def test_whatever_an_import_raises_is_told_in_a_line(error: BaseException) -> None:
    def fails() -> object:
        raise error

    for found in (loaded(point("wrong", error)), loaded(point("wrong", returning(fails)))):
        cause = found.broken["wrong"]
        assert ("sys.exit" if isinstance(error, SystemExit) else type(error).__name__) in cause
        assert "\n" not in cause
        for word in str(error).split():
            assert word in cause


def test_an_interruption_is_no_fault_of_a_plugin() -> None:
    with pytest.raises(KeyboardInterrupt):
        Registry().load([point("slow", KeyboardInterrupt())])


@pytest.mark.parametrize(
    "requires",
    [["psiflow-core>=9"], ["numpy", "psiflow_core >= 9.0 ; python_version > '3'"], ["Psiflow.Core<0.0.1"]],
)
def test_a_plugin_for_another_version_of_psiflow_is_told_before_it_is_imported(requires: list[str]) -> None:
    imported = RuntimeError("it was imported")
    cause = loaded(point("new", imported, "psiflow-new", requires)).broken["new"]
    assert "psiflow-new 1.2.3 needs psiflow-core" in cause
    assert "pip install --upgrade psiflow-core psiflow-new" in cause


@pytest.mark.parametrize(
    "requires",
    [
        None,
        [],
        ["psiflow-core"],
        ["psiflow-core>=0.0.1", "nothing>=9"],
        ["psiflow-core>=9; extra == 'later'"],
        ["psiflow-core-extras>=9"],
        ["psiflow-core>=9; python_version < '3'"],
    ],
)
def test_a_requirement_that_is_met_or_does_not_apply_is_no_fault(requires: list[str] | None) -> None:
    assert loaded(point("good", having(variant(name="good")), requires=requires)).broken == {}


@pytest.mark.parametrize("entry", ["aaa", "builtin", "zzz"])
@pytest.mark.parametrize("distribution", ["aaa", "zzz"])
def test_psiflows_own_keep_their_names(entry: str, distribution: str) -> None:
    newcomer = variant(name="ase", __qualname__="Newcomer")
    found = loaded(point(entry, having(newcomer), distribution))
    assert "reference 'ase' is psiflow's own; give Variant another name" in found.broken[entry]
    assert found.clashes == {}
    assert found.find("sampler", "ase").distribution == "psiflow-core"


def test_a_class_that_is_returned_twice_is_told() -> None:
    good = variant(name="good")
    assert "it offers reference 'good' twice" in loaded(point("wrong", having(good, good))).broken["wrong"]
    other = variant(name="good", __doc__="Another.")
    assert "it offers reference 'good' twice" in loaded(point("wrong", having(good, other))).broken["wrong"]


def test_entry_points_of_one_distribution_that_are_alike_are_told_and_the_first_works() -> None:
    good, plugin = variant(name="good"), having(variant(name="good"))
    same = loaded(point("a", plugin, "mine"), point("a", plugin, "mine"))
    assert same.broken == {"a": "mine has two entry points 'a' in group 'psiflow'; remove or rename one"}
    copy = loaded(point("a", plugin, "mine"), point("b", plugin, "mine"))
    assert copy.broken == {"b": "its entry point is that of mine:a once more; remove one of the two"}
    again = loaded(point("a", plugin, "mine"), point("b", having(good), "mine"))
    assert again.broken == {"b": "another entry point of mine offers reference 'good' too; remove one"}
    for found in (same, copy, again):
        assert found.find("reference", "good").distribution == "mine"


def test_a_distribution_whose_metadata_are_damaged_stops_no_other() -> None:
    nameless = point("nameless", having(variant(name="good")))
    nameless.dist.name = nameless.dist.version = None
    assert loaded(nameless).find("reference", "good").version == "0"


def test_a_default_is_one_of_its_type_in_every_spec() -> None:
    found = loaded().find("reference", "sound")
    assert json.dumps(spec_by(found, {}).options) == json.dumps(spec_by(found, {"cutoff": 400.0}).options)


def test_plugins_and_doctor_tell_what_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    found = loaded(point("wrong", having(variant(name=3))), point("idle", SimpleNamespace()))
    for module in (components, diagnosis):
        monkeypatch.setattr(module, "registry", lambda: found)
    monkeypatch.setattr("psiflow_core.environments.catalogue.registry", lambda: found)
    from psiflow_core.cli import main

    with pytest.raises(SystemExit, match="0"):
        main(["plugins"])
    said = " ".join(capsys.readouterr().out.split())
    assert "broken wrong: " in said
    assert "`name` is 3, and has to be text" in said
    assert "broken idle: it implements no hook" in said
    assert "A reference [with brackets], [/such] as these." in said
    bad = {finding.check: finding for finding in diagnosis.plugins() if finding.verdict == "bad"}
    assert set(bad) == {"plugin wrong", "plugin idle"}
    assert all(finding.fix for finding in bad.values())


def test_installed_plugins_that_are_broken_stop_no_command(tmp_path: Path) -> None:
    """As they are found on the path of modules, each with metadata of its own."""
    for name, text in {
        "exits": "raise SystemExit('no licence')",
        "silent": "",
        "new": "raise AssertionError",
        "nameless": "from typing import ClassVar\n"
        "from psiflow_core.builtin.ase_reference import AseReference\n"
        "from psiflow_core.registry.hookspecs import hookimpl\n"
        "class Nameless(AseReference):\n    name: ClassVar[str] = 3\n"
        "@hookimpl\ndef psiflow_references(): return [Nameless]\n",
    }.items():
        (tmp_path / f"broken_{name}.py").write_text(text)
        metadata = tmp_path / f"broken_{name}-1.0.dist-info"
        metadata.mkdir()
        wants = "Requires-Dist: psiflow-core>=9\n" if name == "new" else ""
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: broken-{name}\nVersion: 1.0\n{wants}")
        (metadata / "entry_points.txt").write_text(f"[psiflow]\n{name} = broken_{name}\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from psiflow_core.cli import main; main(['plugins'])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    said = " ".join(done.stdout.split())
    for cause in (
        "exits: broken_exits: it ends Python (sys.exit('no licence') was called)",
        "silent: it implements no hook",
    ):
        assert f"broken {cause}" in said
    assert "broken new: broken_new: broken-new 1.0 needs psiflow-core>=9" in said
    assert "broken nameless:" in said
    assert "random-displacement" in said
