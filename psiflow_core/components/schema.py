"""The schema of a component: its options as JSON, for a driver that cannot import the class.

`schema_of` is called in the environment that holds the plugin, `class_from` in the driver. The class that `class_from`
makes has the real one's name, docstring and options: types, bounds, choices, defaults, meanings. It has no methods.

A schema holds no code. The validators of the plugin run on the worker only, where every component is parsed again
before anything expensive starts. A schema may therefore accept options that the class refuses. It refuses no options
that the class accepts, with one exception: a "before" validator of the whole class may correct options that the fields
would refuse. An option that is read by code first, or has no common type, is accepted unchecked.
"""

from __future__ import annotations

import ast
import inspect
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import BaseMetadata, Ge, Gt, Interval, Le, Len, Lt, MaxLen, MinLen, MultipleOf
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    Field,
    JsonValue,
    PlainSerializer,
    RootModel,
    Strict,
    StringConstraints,
    WrapSerializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from psiflow_core.components.component import Component
from psiflow_core.components.options import documented, type_text
from psiflow_core.components.policy import Policy
from psiflow_core.errors import PluginBroken
from psiflow_core.structures import Plain

FORMAT = 1
"""The format of schemas; a schema of another format is refused."""


def _by_name(*known: Any) -> dict[str, Any]:
    return {one.__name__: one for one in known}


TYPES: dict[str, Any] = {
    "None": types.NoneType,
    "...": ...,
    **_by_name(Any, JsonValue, bool, int, float, str, bytes, Path, Decimal, date, datetime, time, timedelta),
    **_by_name(list, tuple, dict, set, frozenset, Sequence, Mapping),
}
"""The types known to schemas."""

CHOICES: dict[str, Any] = _by_name(StrEnum, IntEnum, str, int, float, Enum)
"""Types of the members of an enumeration, the most special first: the type decides how they are read and written."""

RULES: dict[str, Any] = {
    "Field": Field,
    **_by_name(Gt, Ge, Lt, Le, Interval, MultipleOf, MinLen, MaxLen, Len, Strict, AllowInfNan, StringConstraints),
}
"""The constraints known to schemas; `Field` stands for pydantic's private ones."""

LATER = (AfterValidator, PlainSerializer, WrapSerializer)
"""Validators that run after the check of the type."""

ATTRIBUTES = (
    "alias",
    "validation_alias",
    "serialization_alias",
    "alias_priority",
    "discriminator",
    "exclude",
    "validate_default",
)
"""Other attributes of a field that affect the reading and writing of options."""

NOT_KEPT = {"title", "use_attribute_docstrings", "defer_build"}
"""Parts of a model's configuration that affect neither."""


def schema_of(component: type[Component]) -> Plain:
    """The schema of a component, as JSON.

    A default factory is called once, here.

    Raises:
        PluginBroken: a default cannot be written as JSON, so that no spec could contain it.
    """
    head = {"format": FORMAT, "kind": component.kind, "name": component.name, "engine": component.engine}
    return {**head, **_model(component, ())}


def _model(model: type[BaseModel], within: tuple[type, ...]) -> Plain:
    """A class with its fields, in their order; `within` are the enclosing models, the outermost first."""
    config = {key: value for key, value in model.model_config.items() if _json_has(value) and key not in NOT_KEPT}
    return {
        "class": model.__name__,
        "doc": _own_words(model),
        "config": config,
        "options": [_option(model, name, field, (*within, model)) for name, field in model.model_fields.items()],
    }


def _option(model: type[BaseModel], name: str, field: FieldInfo, within: tuple[type, ...]) -> Plain:
    kind = _type(annotated(field.annotation, field.metadata), within)
    plain = {
        "name": name,
        "type": _unchecked(kind) if _read_by_code(model, name) else kind,
        "description": field.description,
        **{key: value for key in ATTRIBUTES if (value := getattr(field, key)) is not None and _json_has(value)},
    }
    if not field.is_required():
        default = field.get_default(call_default_factory=True, validated_data={})
        try:
            plain["default"] = _value(default)
        except ValueError as error:
            raise PluginBroken(f"{model.__name__}.{name} has a default that is no plain data: {default!r}") from error
    return plain


def _read_by_code(model: type[BaseModel], name: str) -> bool:
    """Whether a validator of the plugin reads the option before the check of its type."""
    decorators = model.__pydantic_decorators__
    code = [found.info for found in decorators.field_validators.values()]
    return any(one.mode != "after" and {name, "*"} & set(one.fields) for one in code)


def _type(annotation: Any, within: tuple[type, ...]) -> Plain:
    """A type as a tree: each node has a word under `is`, and its parts under `of`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _constrained(_type(parts[0], within), parts[1:])
    if origin in (Union, types.UnionType):
        return {"is": "union", "of": [_type(part, within) for part in parts]}
    if origin is Literal and all(map(_json_has, parts)):
        return {"is": "literal", "values": list(parts)}
    known = origin or (types.NoneType if annotation is None else annotation)
    word = next((word for word, one in TYPES.items() if one is known), None)
    if word is not None:
        return {"is": word, "of": [_type(part, within) for part in parts]} if parts else {"is": word}
    if isinstance(annotation, type):
        return _class(annotation, within)
    return _opaque(annotation)


def _class(annotation: type, within: tuple[type, ...]) -> Plain:
    if issubclass(annotation, Enum) and "_missing_" not in vars(annotation):
        return _choices(annotation)
    if not issubclass(annotation, BaseModel) or issubclass(annotation, RootModel) or annotation in within:
        return _opaque(annotation)
    plain = {"is": "model", "policy": issubclass(annotation, Policy), **_model(annotation, within)}
    code = annotation.__pydantic_decorators__.model_validators.values()
    return _unchecked(plain) if any(found.info.mode != "after" for found in code) else plain


def _choices(annotation: type[Enum]) -> Plain:
    members = [[name, member.value] for name, member in annotation.__members__.items()]
    if not all(_json_has(value) for _, value in members):
        return _opaque(annotation)
    base = next(word for word, one in CHOICES.items() if issubclass(annotation, one))
    return {"is": "enum", "name": annotation.__name__, "base": base, "members": members}


def _opaque(annotation: Any) -> Plain:
    return {"is": "opaque", "text": type_text(annotation)}


def _unchecked(kind: Plain) -> Plain:
    """A type without checks: for options read by code first, and for rules without a known type."""
    return {"is": "unchecked", "of": [kind]}


def _constrained(kind: Plain, rules: Sequence[Any]) -> Plain:
    known = [plain for rule in rules for plain in _rule(rule)]
    plain = {"is": "annotated", "of": [kind], "rules": known} if known else kind
    return _unchecked(plain) if any(map(_changes, rules)) or (known and _has_opaque(kind)) else plain


def _has_opaque(kind: Plain) -> bool:
    return kind["is"] in ("opaque", "unchecked") or any(map(_has_opaque, kind.get("of", ())))


def _rule(rule: Any) -> Iterator[Plain]:
    general = isinstance(rule, FieldInfo) or (isinstance(rule, BaseMetadata) and not is_dataclass(rule))
    if (general or type(rule) in RULES.values()) and (given := _given(rule)):
        yield {"rule": "Field" if general else type(rule).__name__, "given": given}


def _given(rule: Any) -> Plain:
    """The arguments of a constraint that JSON can hold."""
    if isinstance(rule, FieldInfo):
        given = {name: value for part in rule.metadata for name, value in _given(part).items()}
        return given | ({"discriminator": rule.discriminator} if isinstance(rule.discriminator, str) else {})
    found = {one.name: getattr(rule, one.name) for one in fields(rule)} if is_dataclass(rule) else vars(rule)
    return {name: value for name, value in found.items() if value is not None and _json_has(value)}


def _changes(rule: Any) -> bool:
    """Whether the rule is code that may accept values that the type alone refuses."""
    if isinstance(rule, FieldInfo | BaseMetadata) or type(rule) in RULES.values() or isinstance(rule, LATER):
        return False
    return hasattr(rule, "__get_pydantic_core_schema__")


def _value(default: Any) -> Plain:
    """A default: as a Python literal, or as JSON that its type reads."""
    text = repr(default)
    try:
        if ast.literal_eval(text) == default:
            return {"python": text}
    except (ValueError, SyntaxError):
        pass  # a path, a model: not a Python literal
    plain = to_jsonable_python(default)
    json.dumps(plain, allow_nan=False)
    return {"json": plain}


def _json_has(value: Any) -> bool:
    """Whether it is None, a boolean, a number or text, and is unchanged by strict JSON."""
    return value is None or type(value) in (bool, int, str) or (type(value) is float and isfinite(value))


def _own_words(model: type[BaseModel]) -> str | None:
    """The docstring without the options that `documented` has appended."""
    whole = model.__dict__.get("__doc__")
    if not whole or not model.model_fields or not issubclass(model, Component | Policy):
        return whole
    beneath = (documented(model) or "").removeprefix(inspect.cleandoc(whole))
    return whole.removesuffix(beneath)


def annotated(kind: Any, rules: Sequence[Any]) -> Any:
    return Annotated[(kind, *rules)] if rules else kind
