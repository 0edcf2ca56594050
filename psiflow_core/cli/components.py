"""`psiflow plugins`: the components that are installed, and their options. No engine is imported for it."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from psiflow_core.components import Component, Kind
from psiflow_core.errors import PluginNotFound, did_you_mean
from psiflow_core.plugins import OFFICIAL, Registered, registry

UNIT = re.compile(r"\s*\[([^\]]+)\]$")
"""A description ends in its unit, in brackets."""


@dataclass(frozen=True)
class Option:
    """One option of a component, as a person reads it."""

    name: str
    type: str
    range: str
    """Empty where every value of the type is allowed."""
    default: str
    """Empty where the option has to be given."""
    unit: str
    """Empty where it has none."""
    meaning: str


def overview(kind: Kind | None = None) -> RenderableType:
    """Every component, a line each, and the plugins that did not load."""
    table = Table("kind", "name", "distribution", "version", "what it is", box=box.SIMPLE_HEAD)
    for registered in registry().all():
        component = registered.component
        if kind in (None, component.kind):
            table.add_row(
                component.kind, component.name, registered.distribution, registered.version, first_line(component)
            )
    return Group(table, *_broken(), Text("psiflow plugins NAME shows the options of one.", style="dim"))


def options_of(name: str, kind: Kind | None = None) -> RenderableType:
    """The options of the components of this name.

    Raises:
        PluginNotFound, PluginBroken: there is none.
    """
    return Group(*(_sheet(registered) for registered in named(name, kind)))


def named(name: str, kind: Kind | None = None) -> list[Registered]:
    """The components of this name, of every kind unless one is given.

    Raises:
        PluginNotFound, PluginBroken: there is none.
    """
    if kind is not None:
        return [registry().find(kind, name)]
    found = [registered for registered in registry().all() if registered.component.name == name]
    if found:
        return found
    for other in get_args(Kind):
        try:
            registry().find(other, name)  # knows best what to say of one that is broken, or offered twice
        except PluginNotFound:
            if (other, name) in OFFICIAL:
                raise
    known = sorted({registered.component.name for registered in registry().all()})
    raise PluginNotFound(f"no component '{name}'.{did_you_mean(name, known)} Installed: {', '.join(known)}")


def options(component: type[Component]) -> Iterator[Option]:
    """Every option, from the fields of the class."""
    for name, field in component.model_fields.items():
        description = " ".join((field.description or "").split())
        unit = UNIT.search(description)
        yield Option(
            name=name,
            type=type_text(field.annotation),
            range=", ".join(bounds([*field.metadata, *_metadata(field.annotation)])),
            default=_default(field),
            unit=unit[1] if unit else "",
            meaning=UNIT.sub("", description),
        )


def type_text(annotation: Any) -> str:
    """A type as it is written: `float`, `int | None`; the words of a choice, as they are."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_text(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(part) for part in get_args(annotation))
    if annotation is types.NoneType:
        return "None"
    if origin is not None:
        return f"{type_text(origin)}[{', '.join(type_text(part) for part in get_args(annotation))}]"
    return str(getattr(annotation, "__name__", annotation))


def bounds(metadata: Iterable[Any]) -> Iterator[str]:
    """The constraints of a type, in the signs of mathematics."""
    for rule in metadata:
        match rule:
            case Gt():
                yield f"> {rule.gt}"
            case Ge():
                yield f"≥ {rule.ge}"
            case Lt():
                yield f"< {rule.lt}"
            case Le():
                yield f"≤ {rule.le}"
            case Interval():
                yield from bounds(rule)
            case MinLen():
                yield f"length ≥ {rule.min_length}"
            case MaxLen():
                yield f"length ≤ {rule.max_length}"


def first_line(component: type[Component]) -> str:
    """What a component is, in a line: the first paragraph's of its docstring."""
    return (inspect.cleandoc(component.__doc__ or "")).partition("\n")[0]


def _sheet(registered: Registered) -> RenderableType:
    component = registered.component
    title = Text.assemble(
        (f"{component.kind} {component.name}", "bold"), f"  {registered.distribution} {registered.version}"
    )
    meaning = Text(inspect.cleandoc(component.__doc__ or "").partition("\n\n")[0])
    table = Table("option", "type", "range", "default", "unit", "meaning", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for option in options(component):
        default = option.default or Text("required", style="bold")
        table.add_row(option.name, option.type, option.range, default, option.unit, option.meaning)
    return Group(title, meaning, table if component.model_fields else Text("It has no options."))


def _broken() -> Iterator[Text]:
    for point, cause in registry().broken.items():
        yield Text.assemble(("broken ", "bold red"), f"{point}: {cause}")
    for clash in registry().clashes.values():
        yield Text.assemble(("clash ", "bold red"), clash)


def _metadata(annotation: Any) -> Iterator[Any]:
    """Constraints of the parts of a type: of the number in `PositiveInt | None`."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _metadata(part)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    return str(field.get_default(call_default_factory=True, validated_data={}))
