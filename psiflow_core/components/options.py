"""The options of a class for people: name, type, range, default, unit and meaning of each field."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

WIDTH = 100
"""Characters in a line of a docstring."""


def in_full(value: Any) -> Any:
    """A value with absolute paths of existing files; relative paths start from psiflow's working directory.

    For options with arbitrary content: tasks run in other folders, where a relative path would be wrong.
    """
    if isinstance(value, dict):
        return {name: in_full(one) for name, one in value.items()}
    if isinstance(value, list):
        return [in_full(one) for one in value]
    return str(Path(value).absolute()) if isinstance(value, str) and _is_file(value) else value


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file() or ("/" in value and Path(value).is_dir())
    except (OSError, ValueError):  # too long for a path, or with illegal characters
        return False


@dataclass(frozen=True)
class Option:
    """One option of a component or a policy."""

    name: str
    type: str
    range: str
    """Empty if every value of the type is allowed."""
    default: str
    """Empty if the option is required."""
    unit: str
    """Empty without a unit."""
    meaning: str

    def head(self) -> str:
        """All but the meaning, in one line: `friction: float > 0 [1/ps], default 5.0`."""
        what = " ".join(part for part in (self.type, self.range, self.unit and f"[{self.unit}]") if part)
        return f"{self.name}: {what}, " + (f"default {self.default}" if self.default else "required")


def options(owner: type[BaseModel]) -> Iterator[Option]:
    """Every option, from the fields of the class."""
    for name, field in owner.model_fields.items():
        meaning, unit = _split(" ".join((field.description or "").split()))
        yield Option(
            name=name,
            type=type_text(field.annotation),
            range=", ".join(bounds([*field.metadata, *_metadata(field.annotation)])),
            default=_default(field),
            unit=unit,
            meaning=meaning,
        )


def documented(owner: type[BaseModel]) -> str | None:
    """The class's docstring followed by its options; None without a docstring."""
    own = owner.__dict__.get("__doc__")
    if not own or not owner.model_fields:
        return own
    listed = [f"    {option.head()}\n{_indented(option.meaning)}" for option in options(owner)]
    return "\n".join([inspect.cleandoc(own), "", "Options:", *listed])


def type_text(annotation: Any) -> str:
    """A type in Python's notation: `float`, `int | None`; the values of a choice, unchanged."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_text(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(part) for part in get_args(annotation))
    if annotation is types.NoneType:
        return "None"
    if annotation is Ellipsis:
        return "..."
    if origin is not None:
        return f"{type_text(origin)}[{', '.join(type_text(part) for part in get_args(annotation))}]"
    return str(getattr(annotation, "__name__", annotation))


def bounds(metadata: Iterable[Any]) -> Iterator[str]:
    """The constraints of a type, in mathematical notation."""
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


def _split(description: str) -> tuple[str, str]:
    """Meaning and unit: a description ends in its unit, in brackets."""
    if not description.endswith("]"):
        return description, ""
    meaning, _, unit = description.rpartition("[")
    return meaning.rstrip(), unit.removesuffix("]")


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=8 * " ", subsequent_indent=8 * " ")


def _metadata(annotation: Any) -> Iterator[Any]:
    """Constraints of the parts of a type: of the number in `PositiveInt | None`."""
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _metadata(part)


def _default(field: FieldInfo) -> str:
    """The default in Python's notation; an unchanged policy or component by its name."""
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel) and not value.model_dump(exclude_defaults=True).keys() & type(value).model_fields:
        return getattr(type(value), "name", None) or f"{type(value).__name__}()"
    return str(value)
