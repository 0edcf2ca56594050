"""What holds for every component."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any, ClassVar

import pytest

from psiflow_core.components import Spec
from psiflow_core.environments import catalogue
from psiflow_core.errors import OptionError
from psiflow_core.registry.plugins import registry
from psiflow_core.structures import Plain

HEAVY = ("torch", "mace", "e3nn", "nequip", "openmm", "pyscf", "tblite", "gpaw", "jax", "parsl")


ELSEWHERE = """
import importlib, json, sys
module, heavy, kind, name, options = json.load(sys.stdin)
importlib.import_module(module)
engines = [engine for engine in heavy if engine in sys.modules]
from psiflow_core.environments.catalogue import spec
print(json.dumps({"engines": engines, "digest": spec(kind, name, options).digest}))
"""


class ComponentContract:
    """Options, specs and imports of a component."""

    component: ClassVar[type[Any]]
    """The class under test."""
    options: ClassVar[Plain] = {}
    """The options of the test; at least those without a default."""
    expected_failures: ClassVar[dict[str, str]] = {}
    """Checks that are known to fail: name → reason."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        unknown = [name for name in cls.expected_failures if not hasattr(cls, name)]
        if unknown:
            raise TypeError(f"{cls.__name__}.expected_failures names no check of its contract: {unknown}")

    @pytest.fixture(autouse=True)
    def _gaps_are_explicit(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.function.__name__)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @classmethod
    def build(cls) -> Any:
        """The component with the options of this test."""
        return cls.component.parse(cls.options)

    def test_it_is_found_by_its_name(self) -> None:
        assert registry().find(self.component.kind, self.component.name).component is self.component

    def test_its_spec_survives_json(self) -> None:
        spec = catalogue.spec(self.component.kind, self.component.name, self.options)
        again = Spec.from_plain(json.loads(json.dumps(spec.to_plain(), allow_nan=False)))
        assert again == spec
        assert self.component.parse(again.options) == self.build()

    def test_its_spec_hashes_alike_in_every_process(self) -> None:
        spec = catalogue.spec(self.component.kind, self.component.name, self.options)
        assert self.elsewhere()["digest"] == spec.digest

    def test_importing_it_loads_no_engine(self) -> None:
        assert self.elsewhere()["engines"] == []

    def test_every_option_says_what_it_means(self) -> None:
        silent = [name for name, field in self.component.model_fields.items() if not field.description]
        assert not silent, "write a docstring beneath each option"

    def test_an_unknown_option_is_refused_by_name(self) -> None:
        with pytest.raises(OptionError, match="no_such_option"):
            self.component.parse({**self.options, "no_such_option": 1})

    def test_options_cannot_change(self) -> None:
        component = self.build()
        for name in self.component.model_fields:
            with pytest.raises(ValueError, match="frozen"):
                setattr(component, name, None)

    @classmethod
    def elsewhere(cls) -> Plain:
        """What another process sees of this component: engines that its import loads, its spec's hash."""
        heavy = [*HEAVY, *filter(None, [cls.component.engine.partition(".")[0]])]
        given = [cls.component.__module__, heavy, cls.component.kind, cls.component.name, cls.options]
        return dict(json.loads(_seen_elsewhere(json.dumps(given)).splitlines()[-1]))


@cache
def _seen_elsewhere(given: str) -> str:
    return fresh_python(ELSEWHERE, json.loads(given), PYTHONHASHSEED="42")


def fresh_python(code: str, given: Any, **environment: str) -> str:
    """What another Python process prints that runs this code with JSON on its standard input."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
