"""`psiflow plugins` and `psiflow options`: the installed components and all options. No engine is imported."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from psiflow_core.components import Kind, Policy
from psiflow_core.components.options import Option, options
from psiflow_core.environments.catalogue import Entry, entries, find
from psiflow_core.environments.environment import environments
from psiflow_core.errors import OptionError, PluginNotFound
from psiflow_core.registry.plugins import OFFICIAL, Registered, registry

WIDE = 110
"""The width of a terminal that has room for a table of options. [columns]"""


def overview(kind: Kind | None = None) -> RenderableType:
    """All components, one line each, and the plugins that did not load."""
    places = _places(kind)
    where = ["environment"] if any(any(homes) for homes in places.values()) else []
    table = Table("kind", "name", "distribution", "version", *where, "description", box=box.SIMPLE_HEAD)
    kinds = get_args(Kind)
    for registered, homes in sorted(places.items(), key=lambda place: kinds.index(place[0].component.kind)):
        component = registered.component
        words = [component.kind, component.name, registered.distribution, registered.version]
        table.add_row(*words, *(", ".join(homes) for _ in where), first_line(component))
    return Group(table, *_broken(), Text("psiflow plugins NAME shows the options of a component.", style="dim"))


def options_of(name: str, kind: Kind | None = None) -> RenderableType:
    """The options of the components of this name.

    Raises:
        PluginNotFound, PluginBroken: no component has this name, or its plugin does not load.
    """
    return Group(*(_sheet(entry) for entry in named(name, kind)))


def named(name: str, kind: Kind | None = None) -> list[Entry]:
    """The components of this name, of all kinds unless one is given. Of several copies, the one a campaign would use.

    Raises:
        PluginNotFound, PluginBroken: no component has this name, or its plugin does not load.
    """
    if kind is not None:
        return [find(kind, name)]
    every = list(entries())
    kinds = {entry.registered.component.kind for entry in every if entry.registered.component.name == name}
    if kinds:
        return [find(one, name) for one in sorted(kinds)]
    for other in get_args(Kind):
        try:
            find(other, name)  # its error is the best one for a plugin that is broken, or a name that is used twice
        except PluginNotFound:
            if (other, name) in OFFICIAL:
                raise
    known = sorted({entry.registered.component.name for entry in every})
    raise PluginNotFound(f"no component '{name}'.{_alike(name, known)} Installed: {', '.join(known)}")


def _places(kind: Kind | None) -> dict[Registered, list[str]]:
    """Components with the names of their environments; the name is empty for components of this interpreter."""
    places: dict[tuple[str, ...], tuple[Registered, list[str]]] = {}
    for entry in entries():
        registered, component = entry.registered, entry.registered.component
        key = (component.kind, component.name, registered.distribution, registered.version)
        homes = places.setdefault(key, (registered, []))[1]
        if "" not in homes and kind in (None, component.kind):
            homes.append(entry.environment)
    return {registered: homes for registered, homes in places.values() if homes}


def policies() -> dict[str, type[Policy]]:
    """The policies of a campaign by their place in it, such as `walking.segment`. The campaign itself comes first."""
    from psiflow_core.online import OnlineLearning

    return {"": OnlineLearning, **dict(_within(OnlineLearning))}


def options_of_policies(name: str | None = None) -> RenderableType:
    """The options of one policy, by its name or place. Without a name: the options of a campaign and its policies.

    Raises:
        OptionError: no policy has this name.
    """
    every = policies()
    if name is None:
        hint = Text("psiflow options NAME shows the options of a policy.", style="dim")
        return Group(_policy_sheet("", every[""]), _listed(every), hint)
    for place, policy in every.items():
        if name.lower() in (place, policy.__name__.lower()):
            return _policy_sheet(place, policy)
    known = [policy.__name__ for policy in every.values()]
    raise OptionError(f"no policy '{name}'.{_alike(name, known)} Policies: {', '.join(known)}")


def _within(owner: type[BaseModel], place: str = "") -> Iterator[tuple[str, type[Policy]]]:
    for name, field in owner.model_fields.items():
        for part in _parts(field.annotation):
            if get_origin(part) is None and isinstance(part, type) and issubclass(part, Policy):
                yield f"{place}{name}", part
                yield from _within(part, f"{place}{name}.")


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _listed(every: dict[str, type[Policy]]) -> RenderableType:
    table = Table("policy", "in YAML", "description", box=box.SIMPLE_HEAD)
    for place, policy in every.items():
        if place:
            table.add_row(policy.__name__, place, Text(first_line(policy)))
    return table


def _policy_sheet(place: str, policy: type[Policy]) -> RenderableType:
    title = Text.assemble((f"psiflow.{policy.__name__}", "bold"), f"  in YAML under {place}" if place else "")
    return Group(title, Text(first_paragraph(policy)), Sheet(list(options(policy))))


def _alike(name: str, known: list[str]) -> str:
    """A suggestion of all known names that resemble this one; empty if none does."""
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""


@dataclass(frozen=True)
class Sheet:
    """Options as a table; on a terminal too narrow for it, as one paragraph each."""

    options: list[Option]

    def __rich_console__(self, console: Console, how: ConsoleOptions) -> Iterator[RenderableType]:
        if how.max_width >= WIDE:
            yield self._table()
            return
        for option in self.options:
            yield Text("")
            yield Text.assemble((option.name, "bold"), option.head().removeprefix(option.name))
            yield Padding(Text(option.meaning), (0, 0, 0, 4))

    def _table(self) -> Table:
        table = Table("option", "type", "range", "default", "unit", "meaning", box=box.SIMPLE_HEAD)
        table.columns[0].no_wrap = True
        for option in self.options:
            default = Text(option.default) if option.default else Text("required", style="bold")
            cells = Text(option.name), Text(option.type), Text(option.range), default, Text(option.unit)
            table.add_row(*cells, Text(option.meaning))
        return table


def first_line(what: type[Any]) -> str:
    """The first line of the docstring of a component or policy."""
    return (inspect.cleandoc(what.__doc__ or "")).partition("\n")[0]


def first_paragraph(what: type[Any]) -> str:
    """The first paragraph of its docstring."""
    return inspect.cleandoc(what.__doc__ or "").partition("\n\n")[0]


def _sheet(entry: Entry) -> RenderableType:
    registered, component = entry.registered, entry.registered.component
    where = f"  in environment {entry.environment}" if entry.environment else ""
    title = Text.assemble(
        (f"{component.kind} {component.name}", "bold"), f"  {registered.distribution} {registered.version}{where}"
    )
    shown = Sheet(list(options(component))) if component.model_fields else Text("It has no options.")
    return Group(title, Text(first_paragraph(component)), shown)


def _broken() -> Iterator[Text]:
    for point, cause in registry().broken.items():
        yield Text.assemble(("broken ", "bold red"), f"{point}: {cause}")
    for clash in registry().clashes.values():
        yield Text.assemble(("clash ", "bold red"), clash)
    for environment in environments():
        for plugin, cause in environment.description["broken"].items():
            yield Text.assemble(("broken ", "bold red"), f"{plugin} in environment {environment.name}: {cause}")
