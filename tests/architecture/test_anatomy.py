"""Who has read one plugin has read them all; every option says what it means."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pydantic import BaseModel

from psiflow_core.components import Kind, Policy
from psiflow_core.environments.catalogue import entries
from psiflow_core.learning.policies.settings import Settings
from psiflow_core.registry.plugins import GROUP, Registered, registry
from psiflow_core.sampling.monitor import Limits

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = sorted(folder for folder in (ROOT / "plugins").iterdir() if (folder / "pyproject.toml").is_file())
LIBRARIES = {"psiflow_torch"}
"""Distributions that plugins are built on; they register nothing."""
PLUGINS = [folder for folder in DISTRIBUTIONS if folder.name not in LIBRARIES]
ROLES: tuple[Kind, ...] = ("potential", "sampler", "reference", "executor")
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "handler", "misc", "common"}


@pytest.fixture(params=PLUGINS, ids=lambda folder: folder.name)
def plugin(request: pytest.FixtureRequest) -> Path:
    """The folder of a plugin."""
    folder: Path = request.param
    return folder


@pytest.fixture(params=DISTRIBUTIONS, ids=lambda folder: folder.name)
def distribution(request: pytest.FixtureRequest) -> Path:
    """The folder of a plugin or of a library of plugins."""
    folder: Path = request.param
    return folder


def project(plugin: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    return found


def package(plugin: Path) -> Path:
    return plugin / "src" / plugin.name


def test_there_are_plugins() -> None:
    assert len(PLUGINS) >= 3


def test_a_plugin_has_the_files_that_every_plugin_has(plugin: Path) -> None:
    assert (plugin / "README.md").is_file()
    files = {file.name for file in package(plugin).glob("*") if file.is_file()}
    assert {"__init__.py", "options.py", "_engine.py", "py.typed"} <= files


def test_its_public_modules_are_named_after_what_they_are(plugin: Path) -> None:
    public = {file.stem for file in package(plugin).glob("*.py") if not file.name.startswith("_")}
    assert public & set(ROLES)
    assert public <= {"options", *ROLES}


def test_its_package_holds_hook_implementations_and_nothing_else(plugin: Path) -> None:
    tree = ast.parse((package(plugin) / "__init__.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    rest = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom)]
    assert len(rest) == 1, "a docstring, imports and hook implementations"
    assert functions
    for function in functions:
        assert [ast.unparse(decorator) for decorator in function.decorator_list] == ["hookimpl"]


def test_its_distribution_and_package_have_one_name(distribution: Path) -> None:
    assert project(distribution)["name"].replace("-", "_") == distribution.name
    registered = project(distribution).get("entry-points", {}).get(GROUP, {})
    assert list(registered.values()) == [distribution.name][: distribution.name not in LIBRARIES]


def test_a_library_registers_nothing_and_says_what_it_is() -> None:
    for name in LIBRARIES:
        library = ROOT / "plugins" / name
        assert (library / "README.md").is_file()
        assert (package(library) / "py.typed").is_file()
        assert len(ast.parse((package(library) / "__init__.py").read_text()).body) == 1, "a docstring"


def test_it_can_be_installed_beside_others(distribution: Path) -> None:
    requirements = [Requirement(text) for text in project(distribution)["dependencies"]]
    assert "psiflow-core" in {requirement.name for requirement in requirements}
    pinned = [str(one) for one in requirements if any(rule.operator in ("==", "~=") for rule in one.specifier)]
    assert not pinned, "open ranges: pins belong in constraints.txt"
    unbounded = [str(one) for one in requirements if not one.specifier]
    assert not unbounded, "a lower bound keeps pip from taking a version of years ago"


def test_it_says_licence_and_python(distribution: Path) -> None:
    assert project(distribution)["requires-python"] == ">=3.11"
    assert project(distribution)["license"] == {"text": "MIT"}


def test_it_is_installed_and_offers_something(plugin: Path) -> None:
    found = [one for one in entries() if one.registered.distribution.replace("-", "_") == plugin.name]
    assert found, "here or in an environment"
    for one in found:
        component = one.registered.component
        if not one.environment:
            assert component.__module__ == f"{plugin.name}.{component.kind}"
        assert component.engine or component.program, "the package that does its work: psiflow doctor looks for it"


def test_its_tests_are_where_those_of_all_are(distribution: Path) -> None:
    folder = ROOT / "tests" / "plugins" / distribution.name.removeprefix("psiflow_")
    assert list(folder.glob("test_*.py"))


@pytest.mark.parametrize("one", registry().all(), ids=lambda one: f"{one.component.kind}-{one.component.name}")
def test_every_option_of_a_component_says_what_it_means(one: Registered) -> None:
    assert one.component.__doc__
    silent = [name for name, field in one.component.model_fields.items() if not field.description]
    assert not silent, "write a docstring beneath each option"


def test_every_option_of_a_campaign_says_what_it_means() -> None:
    policies = list(_below(Policy))
    assert Settings in policies
    options: list[type[BaseModel]] = [*policies, Limits]
    for policy in options:
        silent = [f"{policy.__name__}.{name}" for name, field in policy.model_fields.items() if not field.description]
        assert not silent


def test_no_module_has_a_name_that_fits_anything() -> None:
    sources = [*(ROOT / "psiflow_core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    assert [str(file) for file in sources if file.stem.strip("_") in EMPTY_NAMES] == []


def _below(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for found in kind.__subclasses__():
        if found.__module__.startswith("psiflow_core"):
            yield found
            yield from _below(found)
