"""A component known only from its record: what a driver checks options with where the class cannot be imported.

`record` is called in the environment that holds the plugin, `recorded` in the driver; JSON is between them. The class
that comes out has the real one's name, docstring and options: types, bounds, choices, defaults, meanings. Its methods
are never called, and it has none.

Code cannot be recorded. What a validator of the plugin's own says or changes is missing in the driver, and comes on
the worker, where every component is parsed again before anything expensive starts. So a record may let pass what the
class refuses. It does not refuse what the class takes, except where a "before" validator of the class as a whole mends
what the fields would refuse: an option that has to pass through code first, or whose type is no common one, is taken
as it is given.
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
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import BaseMetadata, Ge, Gt, Interval, Le, Len, Lt, MaxLen, MinLen, MultipleOf
from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    RootModel,
    Strict,
    StringConstraints,
    TypeAdapter,
    WrapSerializer,
)
from pydantic.fields import FieldInfo
from pydantic_core import core_schema, to_jsonable_python

from psiflow_core.components import Component, Kind, Policy
from psiflow_core.errors import PluginBroken, PsiflowError
from psiflow_core.options import documented, type_text
from psiflow_core.structures import Plain

FORMAT = 1
"""Of records; a record of another format is refused."""


def _by_name(*known: Any) -> dict[str, Any]:
    return {one.__name__: one for one in known}


TYPES: dict[str, Any] = {
    "None": types.NoneType,
    "...": ...,
    **_by_name(Any, JsonValue, bool, int, float, str, bytes, Path, Decimal, date, datetime, time, timedelta),
    **_by_name(list, tuple, dict, set, frozenset, Sequence, Mapping),
}
"""The types that a record knows by a word."""

CHOICES: dict[str, Any] = _by_name(StrEnum, IntEnum, str, int, float, Enum)
"""What the members of an enumeration are, the most special first: it decides how they are read and written."""

RULES: dict[str, Any] = {
    "Field": Field,
    **_by_name(Gt, Ge, Lt, Le, Interval, MultipleOf, MinLen, MaxLen, Len, Strict, AllowInfNan, StringConstraints),
}
"""The constraints that a record knows by a word; `Field` stands for those that pydantic keeps to itself."""

LATER = (AfterValidator, PlainSerializer, WrapSerializer)
"""Code that only sees what a type has let pass."""

ATTRIBUTES = (
    "alias",
    "validation_alias",
    "serialization_alias",
    "alias_priority",
    "discriminator",
    "exclude",
    "validate_default",
)
"""What else of a field bears on how options are read and written."""

NOT_KEPT = {"title", "use_attribute_docstrings", "defer_build"}
"""Parts of a model's configuration that bear on neither."""


class _Recorded(Component):
    """The root of classes that are made from records."""


# Writing ---------------------------------------------------------------------------------------------------


def record(component: type[Component]) -> Plain:
    """What there is to know of a component without its code, as JSON.

    A default factory is asked once, here.

    Raises:
        PluginBroken: a default is nothing that JSON can hold, so no spec could be made with it.
    """
    head = {"format": FORMAT, "kind": component.kind, "name": component.name, "engine": component.engine}
    return {**head, **_model(component, ())}


def _model(model: type[BaseModel], within: tuple[type, ...]) -> Plain:
    """A class with its fields, in their order; `within` are the models that it is a part of, the outermost first."""
    config = {key: value for key, value in model.model_config.items() if _json_has(value) and key not in NOT_KEPT}
    return {
        "class": model.__name__,
        "doc": _own_words(model),
        "config": config,
        "options": [_option(model, name, field, (*within, model)) for name, field in model.model_fields.items()],
    }


def _option(model: type[BaseModel], name: str, field: FieldInfo, within: tuple[type, ...]) -> Plain:
    kind = _type(_annotated(field.annotation, field.metadata), within)
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
    """Whether a validator of the plugin's own sees the option before its type does."""
    decorators = model.__pydantic_decorators__
    code = [found.info for found in decorators.field_validators.values()]
    return any(one.mode != "after" and {name, "*"} & set(one.fields) for one in code)


def _type(annotation: Any, within: tuple[type, ...]) -> Plain:
    """A type as a tree: each node `is` a word, and is made `of` parts."""
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
    """Taken as it is given: where code comes first, or nobody knows what the rules are for."""
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
    """What a constraint was made with, as far as JSON can hold it."""
    if isinstance(rule, FieldInfo):
        given = {name: value for part in rule.metadata for name, value in _given(part).items()}
        return given | ({"discriminator": rule.discriminator} if isinstance(rule.discriminator, str) else {})
    found = {one.name: getattr(rule, one.name) for one in fields(rule)} if is_dataclass(rule) else vars(rule)
    return {name: value for name, value in found.items() if value is not None and _json_has(value)}


def _changes(rule: Any) -> bool:
    """Whether the rule is code that may take what the type alone would refuse."""
    if isinstance(rule, FieldInfo | BaseMetadata) or type(rule) in RULES.values() or isinstance(rule, LATER):
        return False
    return hasattr(rule, "__get_pydantic_core_schema__")


def _value(default: Any) -> Plain:
    """A default: as Python writes it, or as JSON that its type reads."""
    text = repr(default)
    try:
        if ast.literal_eval(text) == default:
            return {"python": text}
    except (ValueError, SyntaxError):
        pass  # a path, a model: nothing that Python writes as a literal
    plain = to_jsonable_python(default)
    json.dumps(plain, allow_nan=False)
    return {"json": plain}


def _json_has(value: Any) -> bool:
    """Whether it is nothing, a truth, a number or text, and strict JSON gives it back as it was."""
    return value is None or type(value) in (bool, int, str) or (type(value) is float and isfinite(value))


def _own_words(model: type[BaseModel]) -> str | None:
    """The docstring without the options that `documented` has put beneath it."""
    whole = model.__dict__.get("__doc__")
    if not whole or not model.model_fields or not issubclass(model, Component | Policy):
        return whole
    beneath = (documented(model) or "").removeprefix(inspect.cleandoc(whole))
    return whole.removesuffix(beneath)


# Reading ---------------------------------------------------------------------------------------------------


def recorded(plain: Plain) -> type[Component]:
    """A class with the name, the docstring and the options of the component that was recorded.

    Raises:
        PsiflowError: another version of psiflow wrote the record, or it is damaged.
    """
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        raise _unreadable(f"its format is {found!r}, and this version of psiflow reads {FORMAT}")
    try:
        return _component(plain)
    except Exception as error:  # a damaged record can fail anywhere
        raise _unreadable(f"{type(error).__name__}: {error}".partition("\n")[0]) from error


def _unreadable(cause: str) -> PsiflowError:
    return PsiflowError(f"the record of a component cannot be understood ({cause}); renew it: psiflow env update NAME")


def _component(plain: Plain) -> type[Component]:
    kind, name, engine = plain["kind"], plain["name"], plain["engine"]
    if kind not in get_args(Kind) or not name or not isinstance(name, str) or not isinstance(engine, str):
        raise ValueError(f"kind {kind!r}, name {name!r}, engine {engine!r}")
    return cast(type[Component], _made(plain, _Recorded, {"kind": kind, "name": name, "engine": engine}))


def _made(plain: Plain, base: type[BaseModel], attributes: Plain) -> type[BaseModel]:
    """The class that `_model` described."""
    kinds = {one["name"]: _built(one["type"]) for one in plain["options"]}
    body = {
        **attributes,
        **{one["name"]: _field(one, kinds[one["name"]]) for one in plain["options"]},
        "__annotations__": kinds,
        "__doc__": plain["doc"],
        "__module__": __name__,
        "model_config": {**plain["config"], "use_attribute_docstrings": False, "protected_namespaces": ()},
    }
    return types.new_class(plain["class"], (base,), exec_body=lambda space: space.update(body))


def _field(plain: Plain, kind: Any) -> Any:
    given = {name: plain[name] for name in ("description", *ATTRIBUTES) if name in plain}
    return Field(default=_default(plain["default"], kind), **given) if "default" in plain else Field(**given)


def _default(written: Plain, kind: Any) -> Any:
    if "python" in written:
        return ast.literal_eval(written["python"])
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind  # a default need not keep the rules
    return TypeAdapter(bare).validate_json(json.dumps(written["json"]))


def _built(plain: Plain) -> Any:
    """The type that `_type` described."""
    parts = tuple(_built(part) for part in plain.get("of", ()))
    match plain["is"]:
        case "annotated":
            return _annotated(parts[0], [RULES[one["rule"]](**one["given"]) for one in plain["rules"]])
        case "unchecked":
            return _annotated(parts[0], [PlainValidator(_itself), PlainSerializer(_itself)])
        case "union":
            return Union[parts]  # noqa: UP007 (it has to be made)
        case "literal":
            return Literal[tuple(plain["values"])]
        case "enum":
            return _enumeration(plain["name"], CHOICES[plain["base"]], plain["members"])
        case "model":
            return _made(plain, Policy if plain["policy"] else BaseModel, {})
        case "opaque":
            return _placeholder(plain["text"])
        case word:
            return TYPES[word][parts] if "of" in plain else TYPES[word]


def _annotated(kind: Any, rules: Sequence[Any]) -> Any:
    return Annotated[(kind, *rules)] if rules else kind


def _enumeration(name: str, base: Any, members: list[list[Any]]) -> Any:
    pairs = [(word, value) for word, value in members]
    return base(name, pairs) if issubclass(base, Enum) else cast(Any, Enum)(name, pairs, type=base)


def _placeholder(text: str) -> type:
    """A type of which only the text is known: it takes everything."""
    schema = classmethod(lambda cls, source, handler: core_schema.any_schema())
    return type(text, (), {"__get_pydantic_core_schema__": schema})


def _itself(value: Any) -> Any:
    return value
