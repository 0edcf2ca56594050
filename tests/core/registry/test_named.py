"""Selection strategies, biases and variables are registered and looked up as every component is."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from ase.build import molecule
from psiflow_toys.policies import Pen, Spread

import psiflow_core as psiflow
from psiflow_core.components import Memory
from psiflow_core.components.schema import schema_of
from psiflow_core.environments import catalogue, environment
from psiflow_core.environments.catalogue import one_of, spec_of
from psiflow_core.environments.environment import Environment
from psiflow_core.errors import PluginBroken, PluginNotFound
from psiflow_core.registry.hookspecs import hookimpl
from psiflow_core.registry.plugins import Registry


def offering(hook: str, *found: Any) -> object:
    """A plugin whose hook returns this."""
    return SimpleNamespace(**{hook: hookimpl(lambda: list(found), specname=hook)})


def broken(hook: str, *found: Any) -> str:
    registry = Registry()
    registry.register(offering(hook, *found), "wrong", "psiflow-wrong", "1.0")
    return registry.broken["wrong"]


class WithoutMemory(Pen):
    """It cannot be called as it is called."""

    name: ClassVar[str] = "without-memory"

    def evaluate(self, structure: Any) -> Any:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("hook", "found", "says"),
    [
        ("psiflow_variables", Pen, "it is a bias; return it from psiflow_biases"),
        ("psiflow_biases", dict, "it does not inherit from psiflow_core.components.Bias or Scheme"),
        ("psiflow_biases", WithoutMemory, "its `evaluate` takes"),
        ("psiflow_variables", Spread(), "it is an instance; return the class Spread"),
    ],
)
def test_what_is_no_policy_is_not_registered(hook: str, found: Any, says: str) -> None:
    assert says in broken(hook, found)


def test_two_plugins_cannot_have_one_name() -> None:
    registry = Registry()
    for number in (1, 2):
        registry.register(offering("psiflow_biases", Pen), f"plugin{number}", f"psiflow-{number}", "1.0")
    with pytest.raises(PluginBroken, match="bias 'toy-pen' is offered by both psiflow-1 and psiflow-2"):
        registry.find("bias", "toy-pen")


@pytest.fixture
def distant(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment that has a bias and a variable which the driver lacks."""
    offers = []
    for component, name in ((Pen, "distant-pen"), (Spread, "distant-spread")):
        known = {**json.loads(json.dumps(schema_of(component))), "name": name}
        offers.append({"component": known, "distribution": "psiflow-distant", "version": "2.0", "engine": ""})
    there = Environment("far", ("/nowhere/python",), {"components": offers, "broken": {}})
    for module in (catalogue, environment):
        monkeypatch.setattr(module, "environments", lambda: [there])
    return there


def test_a_bias_of_another_environment_is_checked_here_and_computed_there(distant: Environment) -> None:
    bias: Any = one_of("bias", {"name": "distant-pen", "variable": "distant-spread", "edge": 1, "stiffness": 2})
    assert psiflow.Walking(bias=[bias]).bias == (bias,)
    assert spec_of(bias).distribution == "psiflow-distant"
    with pytest.raises(ValueError, match="stiffness=-2: Input should be greater than 0"):
        one_of("bias", {"name": "distant-pen", "variable": "distant-spread", "edge": 1, "stiffness": -2})
    with pytest.raises(PluginNotFound, match="bias 'distant-pen' is in another environment"):
        bias.evaluate(molecule("H2O"), Memory())


def test_a_task_runs_where_all_its_parts_are(distant: Environment) -> None:
    spring = psiflow.Harmonic(variable="distant-spread", center=1.0, stiffness=1.0)
    needs = spec_of(spring).all
    assert [(need.kind, need.name, need.version) for need in needs][1] == ("variable", "distant-spread", "2.0")
    with pytest.raises(PluginNotFound, match="environment 'far' has no bias 'harmonic'"):
        environment.choose(needs)
    assert environment.choose([spec_of(spring).parts[0]]) is distant
