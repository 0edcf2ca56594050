"""`psiflow plugins` and `psiflow options`: what is installed, and every option of it. No engine is imported for it."""

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

from psiflow_core.catalogue import Entry, entries, find
from psiflow_core.components import Kind, Policy
from psiflow_core.environments import environments
from psiflow_core.errors import OptionError, PluginNotFound
from psiflow_core.options import Option, options
from psiflow_core.plugins import OFFICIAL, Registered, registry
from psiflow_core.variables import VARIABLES

WIDE = 110
"""Columns from which on a table of options has room for its words."""


def overview(kind: Kind | None = None) -> RenderableType:
    """Every component, a line each, and the plugins that did not load."""
    places = _places(kind)
    where = ["environment"] if any(any(found) for found in places.values()) else []
    table = Table("kind", "name", "distribution", "version", *where, "what it is", box=box.SIMPLE_HEAD)
    for registered, found in places.items():
        component = registered.component
        words = [component.kind, component.name, registered.distribution, registered.version]
        table.add_row(*words, *(", ".join(found) for _ in where), first_line(component))
    return Group(table, *_broken(), Text("psiflow plugins NAME shows the options of one.", style="dim"))


def options_of(name: str, kind: Kind | None = None) -> RenderableType:
    """The options of the components of this name.

    Raises:
        PluginNotFound, PluginBroken: there is none.
    """
    return Group(*(_sheet(entry) for entry in named(name, kind)))


def named(name: str, kind: Kind | None = None) -> list[Entry]:
    """The components of this name, of every kind unless one is given; of each that which a campaign would use.

    Raises:
        PluginNotFound, PluginBroken: there is none.
    """
    if kind is not None:
        return [find(kind, name)]
    every = list(entries())
    kinds = {entry.registered.component.kind for entry in every if entry.registered.component.name == name}
    if kinds:
        return [find(one, name) for one in sorted(kinds)]
    for other in get_args(Kind):
        try:
            find(other, name)  # knows best what to say of one that is broken, or offered twice
        except PluginNotFound:
            if (other, name) in OFFICIAL:
                raise
    known = sorted({entry.registered.component.name for entry in every})
    raise PluginNotFound(f"no component '{name}'.{_alike(name, known)} Installed: {', '.join(known)}")


def _places(kind: Kind | None) -> dict[Registered, list[str]]:
    """Components, each with the environments that have it; none is named for what is in this interpreter."""
    places: dict[tuple[str, ...], tuple[Registered, list[str]]] = {}
    for entry in entries():
        registered, component = entry.registered, entry.registered.component
        key = (component.kind, component.name, registered.distribution, registered.version)
        there = places.setdefault(key, (registered, []))[1]
        if "" not in there and kind in (None, component.kind):
            there.append(entry.environment)
    return {registered: found for registered, found in places.values() if found}


def policies() -> dict[str, type[Policy]]:
    """The policies of a campaign by where they stand in it, `walking.segment` for instance; it comes first itself."""
    from psiflow_core.learning.online import OnlineLearning

    return {"": OnlineLearning, **dict(_within(OnlineLearning)), **dict(_by_name())}


def options_of_policies(name: str | None = None) -> RenderableType:
    """The options of one policy, by its name or its place; without a name those of a campaign, and all policies.

    Raises:
        OptionError: there is none of this name.
    """
    found = policies()
    if name is None:
        return Group(_policy_sheet("", found[""]), _listed(found), Text("psiflow options NAME shows one.", style="dim"))
    for place, policy in found.items():
        if name.lower() in (place, policy.__name__.lower(), getattr(policy, "name", "")):
            return _policy_sheet(place, policy)
    known = [policy.__name__ for policy in found.values()]
    raise OptionError(f"no policy '{name}'.{_alike(name, known)} Policies: {', '.join(known)}")


def _within(owner: type[BaseModel], place: str = "") -> Iterator[tuple[str, type[Policy]]]:
    for name, field in owner.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if get_origin(part) is None and isinstance(part, type) and issubclass(part, Policy):
                yield f"{place}{name}", part
                yield from _within(part, f"{place}{name}.")


def _by_name() -> Iterator[tuple[str, type[Policy]]]:
    """Biases and collective variables, which are chosen by their names."""
    from psiflow_core.learning.schemes import ALONG

    yield from ((f"bias:{bias.name}", bias) for bias in ALONG)
    yield from ((f"variable:{variable.name}", variable) for variable in VARIABLES)


def _listed(found: dict[str, type[Policy]]) -> RenderableType:
    table = Table("policy", "in YAML", "what it is about", box=box.SIMPLE_HEAD)
    for place, policy in found.items():
        if place:
            table.add_row(policy.__name__, place, first_line(policy))
    return table


def _policy_sheet(place: str, policy: type[Policy]) -> RenderableType:
    named = place.partition(":")[2]
    where = f"{{name: {named}}}" if named else f"under {place}"
    title = Text.assemble((f"psiflow.{policy.__name__}", "bold"), f"  in YAML {where}" if place else "")
    return Group(title, Text(first_paragraph(policy)), Sheet(list(options(policy))))


def _alike(name: str, known: list[str]) -> str:
    """Every known name that resembles this one."""
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(one) for one in close)}?" if close else ""


@dataclass(frozen=True)
class Sheet:
    """Options as a table; where that would break its words, one paragraph for each."""

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
            default = option.default or Text("required", style="bold")
            table.add_row(option.name, option.type, option.range, default, option.unit, option.meaning)
        return table


def first_line(what: type[Any]) -> str:
    """What a component or a policy is, in a line: the first paragraph's of its docstring."""
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
        for plugin, cause in environment.offers["broken"].items():
            yield Text.assemble(("broken ", "bold red"), f"{plugin} in environment {environment.name}: {cause}")
