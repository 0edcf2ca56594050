"""Discovery of plugins, and look-up of components by kind and name.

Entry points of the group ``psiflow`` are loaded one at a time. A broken plugin does not affect the others; its error
is kept, and reported when one of its components is requested.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points, version
from threading import RLock
from typing import Any

import pluggy

from psiflow_core.components import Component, Kind, Spec
from psiflow_core.errors import PluginBroken, PluginNotFound, PsiflowError, did_you_mean
from psiflow_core.registry import hookspecs
from psiflow_core.registry.registration import HOOKS, faults
from psiflow_core.texts import one_line, said_by

GROUP = "psiflow"

SAID = 2000
"""Characters shown of a broken plugin's error."""

CORE = "psiflow-core"
"""The distribution whose components keep their names."""

OFFICIAL: dict[tuple[str, str], str] = {
    ("potential", "mace"): "psiflow-mace",
    ("potential", "nequip"): "psiflow-nequip",
    ("potential", "allegro"): "psiflow-nequip",
    ("reference", "cp2k"): "psiflow-cp2k",
    ("reference", "pyscf"): "psiflow-pyscf",
    ("sampler", "openmm"): "psiflow-openmm-sampler",
    ("executor", "kubernetes"): "psiflow-kubernetes",
    ("executor", "lsf"): "psiflow-lsf",
    ("executor", "pbspro"): "psiflow-pbspro",
    ("executor", "slurm"): "psiflow-slurm",
    ("executor", "googlecloud"): "psiflow-googlecloud",
    ("executor", "aws"): "psiflow-aws",
}
"""Distributions of the official plugins, for the hints of error messages only."""


@dataclass(frozen=True)
class Registered:
    """An installed component."""

    component: type[Component]
    distribution: str
    version: str


class Registry:
    """The components of a set of plugins."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self.begun = False
        """Whether the loading of this interpreter's plugins has begun."""
        self._seen: dict[str, object] = {}
        self._found: dict[tuple[Kind, str], Registered] = {}
        self.broken: dict[str, str] = {}
        """Plugins that could not be loaded: entry point, after its distribution where two have the same → cause."""
        self.clashes: dict[tuple[Kind, str], str] = {}
        """Names offered by two plugins, usable from neither: (kind, name) → message."""

    def load(self, found: Iterator[EntryPoint] | list[EntryPoint]) -> Registry:
        """Register plugins by entry point; the error of a broken plugin is kept, and the others are registered."""
        for point in sorted(found, key=_order):
            distribution, version = _distribution(point)
            try:
                _check_requirements(point)
                plugin = point.load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # an import can raise anything, also sys.exit
                self._break(point.name, distribution, f"{point.value}: {_said(error)}")
                continue
            self.register(plugin, point.name, distribution, version)
        return self

    def register(self, plugin: object, name: str, distribution: str, version: str) -> None:
        """Register the classes returned by the hooks of one plugin, or keep its error."""
        unique = f"{distribution}:{name}"  # two distributions may have chosen the same name
        try:
            self._check_new(plugin, unique)
            self._manager.register(plugin, unique)
            self._check_hooks(plugin)
            offered = list(self._offered(plugin))
            self._check_names(offered, distribution)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # `find` and `psiflow plugins` report the cause
            self._break(name, distribution, _said(error))
            return
        for kind, component in offered:
            self._add(kind, component, distribution, version)

    def find(self, kind: Kind, name: str) -> Registered:
        """The component of this kind and name.

        Raises:
            PluginNotFound: no plugin offers it; the message suggests a name and a distribution to install.
            PluginBroken: two plugins offer it, or a plugin that may offer it did not load.
        """
        key = (kind, name)
        if key in self.clashes:
            raise PluginBroken(self.clashes[key])
        if key not in self._found:
            raise self._unknown(kind, name)
        return self._found[key]

    def has(self, kind: Kind, name: str) -> bool:
        """Whether `find` would succeed."""
        return (kind, name) in self._found and (kind, name) not in self.clashes

    def all(self) -> list[Registered]:
        """Every usable component, by kind and name."""
        return [self._found[key] for key in sorted(self._found) if key not in self.clashes]

    def _add(self, kind: Kind, component: type[Component], distribution: str, version: str) -> None:
        key = (kind, component.name)
        if key in self._found:
            other = self._found[key].distribution
            self.clashes[key] = (
                f"{kind} '{component.name}' is offered by both {other} and {distribution}; uninstall one of them"
            )
            return
        self._found[key] = Registered(component, distribution, version)

    def _break(self, name: str, distribution: str, cause: str) -> None:
        self.broken[f"{distribution}:{name}" if name in self.broken else name] = cause

    def _check_new(self, plugin: object, unique: str) -> None:
        distribution, _, name = unique.partition(":")
        if unique in self._seen:
            raise PluginBroken(f"{distribution} has two entry points '{name}' in group '{GROUP}'; remove or rename one")
        for other, seen in self._seen.items():
            if seen is plugin:
                raise PluginBroken(f"its entry point is that of {other} once more; remove one of the two")
        self._seen[unique] = plugin

    def _check_hooks(self, plugin: object) -> None:
        callers = self._manager.get_hookcallers(plugin) or ()
        for hook in callers:
            if hook.name not in HOOKS.values():
                hint = did_you_mean(hook.name, HOOKS.values())
                raise PluginBroken(f"it implements '{hook.name}', which is no hook of psiflow.{hint}")
        for attribute in dir(plugin):
            meant = get_close_matches(attribute, HOOKS.values(), n=1, cutoff=0.85)
            if meant and self._manager.parse_hookimpl_opts(plugin, attribute) is None:
                hint = "" if attribute in HOOKS.values() else did_you_mean(attribute, meant)
                raise PluginBroken(f"its '{attribute}' lacks @hookimpl, of psiflow_core.registry.hookspecs.{hint}")
        if not callers:
            raise PluginBroken(f"it implements no hook; define one of {', '.join(HOOKS.values())}, with @hookimpl")

    def _offered(self, plugin: object) -> Iterator[tuple[Kind, type[Component]]]:
        """The classes returned by the hooks of a plugin, each checked for the kind of its hook."""
        kinds = {hook: kind for kind, hook in HOOKS.items()}
        for hook in self._manager.get_hookcallers(plugin) or ():
            kind = kinds[hook.name]
            for component in _returned(hook, plugin):
                problems = list(faults(component, kind))
                if problems:
                    raise PluginBroken(f"{component!r} is not a {kind}: {'; '.join(problems)}")
                yield kind, component

    def _check_names(self, offered: list[tuple[Kind, type[Component]]], distribution: str) -> None:
        """Refuse names that are taken, by the plugin itself, by its distribution, or by psiflow."""
        own: set[tuple[Kind, str]] = set()
        for kind, component in offered:
            called, other = f"{kind} '{component.name}'", self._found.get((kind, component.name))
            if (kind, component.name) in own:
                raise PluginBroken(f"it offers {called} twice; return one class of this name, and rename the other")
            if other and other.distribution == distribution:
                raise PluginBroken(f"another entry point of {distribution} offers {called} too; remove one")
            if other and other.distribution == CORE:
                raise PluginBroken(f"{called} is psiflow's own; give {component.__name__} another name")
            own.add((kind, component.name))

    def _unknown(self, kind: Kind, name: str) -> PsiflowError:
        known = [registered for other, registered in self._found if other == kind]
        official = OFFICIAL.get((kind, name))
        suspects = [point for point in self.broken if name in point or point in (official or name)]
        if suspects:
            cause = "; ".join(f"{point} ({self.broken[point]})" for point in suspects)
            return PluginBroken(f"{kind} '{name}' is not available because its plugin is broken: {cause}")
        hint = did_you_mean(name, [*known, *(other for of, other in OFFICIAL if of == kind)])
        if official:
            apart = f"psiflow env create {name} {official}"
            hint = f" Install it: pip install {official}; where it conflicts with what is installed: {apart}."
        others = "".join(f" Broken plugin {point}: {cause}." for point, cause in self.broken.items())
        return PluginNotFound(f"no {kind} '{name}'.{hint} Installed: {', '.join(known) or 'none'}.{others}")


def _returned(hook: pluggy.HookCaller, plugin: object) -> Iterator[Any]:
    for implementation in hook.get_hookimpls():
        if implementation.plugin is plugin:
            found: object = implementation.function()
            if not isinstance(found, list):
                what = "None" if found is None else f"a {type(found).__name__}"
                raise PluginBroken(f"its '{hook.name}' returns {what}, and has to return a list of classes")
            yield from found


def _order(point: EntryPoint) -> tuple[bool, str, str]:
    """The sort key: psiflow's entry points first, so that a plugin with one of their names is refused."""
    distribution, _ = _distribution(point)
    return distribution != CORE, point.name, distribution


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """The name and version of the distribution that an entry point belongs to; its metadata may be damaged."""
    found = (point.dist.name, point.dist.version) if point.dist else (None, None)
    return found[0] or point.name, found[1] or "0"


def _check_requirements(point: EntryPoint) -> None:
    """Refuse a plugin that was written for another version of psiflow, before it is imported."""
    for text in getattr(point.dist, "requires", None) or ():
        if re.match(r"psiflow[-_.]+core(?![\w.-])", text, re.IGNORECASE):
            _check_requirement(text, *_distribution(point))


def _check_requirement(text: str, distribution: str, its_version: str) -> None:
    from packaging.requirements import Requirement

    wanted, here = Requirement(text), version(CORE)
    applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    if applies and not wanted.specifier.contains(here, prereleases=True):
        raise PluginBroken(
            f"{distribution} {its_version} needs {CORE}{wanted.specifier}, and {here} is installed; "
            f"install versions that belong together: pip install --upgrade {CORE} {distribution}"
        )


def _said(error: BaseException) -> str:
    """The error of a plugin, in one line."""
    text = one_line(said_by(error), SAID)
    if isinstance(error, SystemExit):
        return f"it ends Python ({text}); let it raise an exception instead"
    return text if isinstance(error, PsiflowError) else f"{one_line(type(error).__name__, SAID)}: {text}"


_own = Registry()
_loading = RLock()


def registry() -> Registry:
    """The plugins of this interpreter, loaded at first use.

    A plugin's options may name components of those before it, psiflow's own for instance, while it is loaded.
    """
    with _loading:
        if not _own.begun:
            _own.begun = True
            _own.load(list(entry_points(group=GROUP)))
        return _own


def build(spec: Spec) -> Component:
    """The object of a spec, built by the plugins of this interpreter."""
    return registry().find(spec.kind, spec.name).component.parse(spec.options)
