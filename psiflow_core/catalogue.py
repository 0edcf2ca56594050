"""Everything that can be asked for by name: components of this interpreter, and of the environments beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from psiflow_core.components import Component, Kind, Spec
from psiflow_core.environments import environments
from psiflow_core.errors import PluginBroken, PluginNotFound
from psiflow_core.plugins import Registered, registry


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
    except (PluginNotFound, PluginBroken):
        if kind != "executor":  # executors start workers, so they are the driver's
            for environment in environments():
                found = environment.find(kind, name)
                if found is not None:
                    return Entry(found, environment.name)
        raise


def entries() -> Iterator[Entry]:
    """Every component, those of this interpreter first."""
    yield from (Entry(registered) for registered in registry().all())
    for environment in environments():
        yield from (Entry(registered, environment.name) for registered in environment.components())


def spec(kind: Kind, name: str, options: dict[str, object]) -> Spec:
    """The checked spec of a component.

    Raises:
        PluginNotFound, PluginBroken: it is not there.
        OptionError: an option is unknown, missing or out of range.
    """
    return find(kind, name).registered.spec(options)


def as_spec(kind: Kind, given: Spec | Component | str) -> Spec:
    """A spec from what a user may give for a component: a spec, an object, or a name."""
    if isinstance(given, str):
        return spec(kind, given, {})
    if isinstance(given, Component):
        return spec(kind, given.name, given.options())
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
