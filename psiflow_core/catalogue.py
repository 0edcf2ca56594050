"""Everything that can be asked for by name: components of this interpreter, and of the environments beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from psiflow_core.components import Component, Kind, Spec
from psiflow_core.environments import environments, known
from psiflow_core.errors import OptionError, PluginBroken, PluginNotFound, did_you_mean
from psiflow_core.plugins import Registered, registry
from psiflow_core.served import ask_once


@dataclass(frozen=True)
class Entry:
    """A component, and where it lives."""

    registered: Registered
    environment: str = ""
    """Empty for the driver's own interpreter."""


def find(kind: Kind, name: str) -> Entry:
    """The component of this kind and name, here or in an environment.

    Raises:
        PluginNotFound: it is nowhere; the message suggests a name and what to install.
        PluginBroken: two plugins offer it, or the one that may offer it did not load.
    """
    try:
        return Entry(registry().find(kind, name))
    except (PluginNotFound, PluginBroken) as error:
        elsewhere = [entry for entry in _elsewhere() if entry.registered.component.kind == kind]
        for entry in elsewhere:
            if entry.registered.component.name == name:
                return entry
        if isinstance(error, PluginBroken) or not elsewhere:
            raise
        names = dict.fromkeys(entry.registered.component.name for entry in elsewhere)
        there = f"{did_you_mean(name, names)} In environments: {', '.join(names)}."
        raise PluginNotFound(f"{error}{there}") from None


def entries() -> Iterator[Entry]:
    """Every component, those of this interpreter first."""
    yield from (Entry(registered) for registered in registry().all())
    yield from _elsewhere()


def _elsewhere() -> Iterator[Entry]:
    """What environments have; executors start workers, so they are the driver's."""
    for environment in environments():
        for registered in environment.components():
            if registered.component.kind != "executor":
                yield Entry(registered, environment.name)


def spec(kind: Kind, name: str, options: dict[str, object]) -> Spec:
    """The checked spec of a component.

    Raises:
        PluginNotFound, PluginBroken: it is not there.
        OptionError: an option is unknown, missing or out of range.
    """
    return find(kind, name).registered.spec(options)


def settled(spec: Spec) -> Spec:
    """The spec as its own plugin parses it, where that is in an environment which can be started here.

    A record knows no validator of the plugin's own: what that refuses, or changes, comes out of this.

    Raises:
        OptionError: an option is wrong.
    """
    environment = find(spec.kind, spec.name).environment
    if not environment:
        return spec
    launch = known(environment).launch
    if shutil.which(launch[0]) is None:
        return spec  # it is started on other machines: a worker tells
    return Spec.from_plain(ask_once(launch, {"do": "parse", "spec": spec.to_plain()}))


def as_spec(kind: Kind, given: Spec | Component | str) -> Spec:
    """A spec from what a user may give for a component: a spec, an object, or a name; raises `OptionError`."""
    if isinstance(given, str):
        return spec(kind, given, {})
    if isinstance(given, Component):
        return spec(kind, given.name, given.options())
    if not isinstance(given, Spec):
        raise OptionError(f"{kind}: write psiflow.{kind}(…), or a name, not {given!r}")
    return given


def _by_name(kind: Kind) -> Callable[..., Spec]:
    def checked_spec(name: str, /, **options: object) -> Spec:
        return spec(kind, name, options)

    checked_spec.__name__ = kind
    checked_spec.__doc__ = f"""The {kind} of this name with these options, checked, as a `Spec`.

    `psiflow plugins NAME` prints the options with types, units and defaults.

    Raises:
        PluginNotFound, PluginBroken: there is no such {kind}, or its plugin does not load.
        OptionError: an option is unknown, missing or out of range.
    """
    return checked_spec


potential = _by_name("potential")
sampler = _by_name("sampler")
reference = _by_name("reference")
executor = _by_name("executor")
