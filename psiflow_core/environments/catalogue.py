"""All components by name: those of this interpreter, and those of the other environments."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from psiflow_core.components import Bias, Component, Kind, Scheme, SelectionStrategy, Spec, Variable
from psiflow_core.components.named import within
from psiflow_core.environments.environment import environments, known
from psiflow_core.environments.process import ask_once
from psiflow_core.errors import OptionError, PluginBroken, PluginNotFound, did_you_mean
from psiflow_core.registry.plugins import Registered, registry
from psiflow_core.registry.registration import HOOKS

OF_THE_DRIVER = ("executor", "selection")
"""The kinds of components that only the driver's own interpreter uses."""


@dataclass(frozen=True)
class Entry:
    """A component and its environment."""

    registered: Registered
    environment: str = ""
    """The environment's name; empty for the driver's own interpreter."""


def find(kind: Kind, name: str) -> Entry:
    """The component of this kind and name, in this interpreter or in another environment.

    Raises:
        PluginNotFound: no environment has it; the message suggests a name and a package to install.
        PluginBroken: two plugins provide it, or the plugin that should provide it did not load.
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
        hint = f"{did_you_mean(name, names)} In environments: {', '.join(names)}."
        raise PluginNotFound(f"{error}{hint}") from None


def entries() -> Iterator[Entry]:
    """Every component, those of this interpreter first."""
    yield from (Entry(registered) for registered in registry().all())
    yield from _elsewhere()


def _elsewhere() -> Iterator[Entry]:
    """The components of other environments, except those that only a driver uses."""
    for environment in environments():
        for registered in environment.components():
            if registered.component.kind not in OF_THE_DRIVER:
                yield Entry(registered, environment.name)


def spec(kind: Kind, name: str, options: dict[str, object]) -> Spec:
    """The checked spec of a component.

    Raises:
        PluginNotFound, PluginBroken: the component is not installed, or its plugin does not load.
        OptionError: an option is unknown, missing or out of range.
    """
    return spec_by(find(kind, name).registered, options)


def spec_by(registered: Registered, options: dict[str, object]) -> Spec:
    """The checked spec of a registered component; raises `OptionError`."""
    return _spec(registered, registered.component.parse(options))


def spec_of(component: Component) -> Spec:
    """The spec of a component object.

    Raises:
        PluginNotFound, PluginBroken: no plugin provides it, or its plugin does not load.
    """
    return _spec(find(component.kind, component.name).registered, component)


def _spec(registered: Registered, component: Component) -> Spec:
    parts = {part.digest: part for part in map(spec_of, within(component))}
    plain = component.options()
    return Spec(
        component.kind, component.name, plain, registered.distribution, registered.version, tuple(parts.values())
    )


def settled(spec: Spec) -> Spec:
    """The spec as its own plugin parses it, if the plugin's environment can be started on this machine.

    The description of an environment does not contain the plugin's validators. The plugin itself applies them: it
    may refuse an option or change its value.

    Raises:
        OptionError: an option is wrong.
    """
    environment = find(spec.kind, spec.name).environment
    if not environment:
        return spec
    launch = known(environment).launch
    if shutil.which(launch[0]) is None:
        return spec  # the environment exists on other machines only: a worker will check the options
    return Spec.from_plain(ask_once(launch, {"do": "parse", "spec": spec.to_plain()}))


def one_of(kind: Kind, given: object) -> Component:
    """A component object, given as an object, a name, or `{name: …}` with options.

    Raises:
        OptionError: it is none of these, an option is wrong, or no plugin has registered its class.
        PluginNotFound, PluginBroken: no plugin provides this name, or the plugin does not load.
    """
    if isinstance(given, Component) and given.kind == kind:
        return _registered(given)
    written = {"name": given} if isinstance(given, str) else given
    if not isinstance(written, dict) or not isinstance(written.get("name"), str):
        raise OptionError(f"write a {kind} as {{name: …}} with options, not {given!r}")
    options = {key: value for key, value in written.items() if key != "name"}
    return find(kind, written["name"]).registered.component.parse(options)


def _registered(component: Component) -> Component:
    """The same component, if its class is registered: only then can a restart and a worker find it."""
    kind, name, own = component.kind, component.name, type(component)
    try:
        registered = find(kind, name).registered.component
    except PluginNotFound as error:
        raise OptionError(f"{own.__name__}: no plugin has registered {kind} '{name}'; {_register(own)}") from error
    if registered is not own:
        raise OptionError(f"{own.__name__} is not the class that is registered as {kind} '{name}'; {_register(own)}")
    return component


def _register(component: type[Component]) -> str:
    return (
        f"a restart and a worker could not find it again. Return it from the hook {HOOKS[component.kind]} of a plugin "
        "(docs/writing-a-plugin.md)"
    )


def as_spec(kind: Kind, given: Spec | Component | str) -> Spec:
    """The spec of a component, given as a spec, an object or a name; raises `OptionError` for anything else."""
    if isinstance(given, str):
        return spec(kind, given, {})
    if isinstance(given, Component):
        return spec_of(given)
    if not isinstance(given, Spec):
        raise OptionError(f"{kind}: write psiflow.{kind}(…) or a name, not {given!r}")
    return given


def selection(name: str, /, **options: object) -> SelectionStrategy:
    """The selection strategy of this name with these options.

    `psiflow plugins NAME` prints the options with types, units and defaults.

    Raises:
        PluginNotFound, PluginBroken: there is no such strategy, or its plugin does not load.
        OptionError: an option is unknown, missing or out of range.
    """
    return cast(SelectionStrategy, one_of("selection", {**options, "name": name}))


def bias(name: str, /, **options: object) -> Bias | Scheme:
    """The bias of this name with these options; raises as `selection`. Those of psiflow are classes too."""
    return cast(Bias | Scheme, one_of("bias", {**options, "name": name}))


def variable(name: str, /, **options: object) -> Variable:
    """The collective variable of this name with these options; raises as `selection`. Those of psiflow are classes
    too."""
    return cast(Variable, one_of("variable", {**options, "name": name}))


def _by_name(kind: Kind) -> Callable[..., Spec]:
    def checked_spec(name: str, /, **options: object) -> Spec:
        return spec(kind, name, options)

    checked_spec.__name__ = kind
    checked_spec.__doc__ = f"""The {kind} of this name with these options, checked, as a `Spec`.

    `psiflow plugins NAME` prints the options with types, units and defaults.

    Raises:
        PluginNotFound, PluginBroken: no plugin provides this {kind}, or the plugin does not load.
        OptionError: an option is unknown, missing or out of range.
    """
    return checked_spec


potential = _by_name("potential")
sampler = _by_name("sampler")
reference = _by_name("reference")
executor = _by_name("executor")
