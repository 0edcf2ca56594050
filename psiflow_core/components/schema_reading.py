"""A component's class built from its schema: a driver checks options with it if it cannot import the plugin."""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from ase import Atoms
from pydantic import BaseModel, Field, PlainSerializer, PlainValidator, TypeAdapter
from pydantic_core import core_schema

from psiflow_core.components.bias import Bias, Memory
from psiflow_core.components.component import Component
from psiflow_core.components.policy import Policy
from psiflow_core.components.prediction import Prediction
from psiflow_core.components.schema import ATTRIBUTES, CHOICES, FORMAT, RULES, TYPES, annotated
from psiflow_core.components.variable import Reading, Variable
from psiflow_core.errors import PluginNotFound, PsiflowError
from psiflow_core.kinds import Kind
from psiflow_core.structures import Plain


class _FromSchema(Component):
    """The base of classes built from schemas."""


class _BiasFromSchema(Bias):
    def evaluate(self, structure: Atoms, memory: Memory) -> Prediction:
        raise _elsewhere(self)


class _VariableFromSchema(Variable):
    def read(self, structure: Atoms) -> Reading:
        raise _elsewhere(self)

    def try_out(self, structures: Sequence[Atoms]) -> None:
        raise _elsewhere(self)


OBJECTS: Mapping[Kind, type[Component]] = {"bias": _BiasFromSchema, "variable": _VariableFromSchema}
"""The bases of components that are objects in a campaign's settings."""


def _elsewhere(component: Component) -> PluginNotFound:
    return PluginNotFound(f"{component.kind} '{component.name}' is in another environment: it can be used there only")


def class_from(plain: Plain) -> type[Component]:
    """A class with the name, the docstring and the options of the component that the schema describes.

    Raises:
        PsiflowError: another version of psiflow wrote the schema, or it is damaged.
    """
    version = plain.get("format") if isinstance(plain, dict) else None
    if version != FORMAT:
        raise _unreadable(f"its format is {version!r}, and this version of psiflow reads {FORMAT}")
    try:
        return _component(plain)
    except Exception as error:  # a damaged schema can fail anywhere
        raise _unreadable(f"{type(error).__name__}: {error}".partition("\n")[0]) from error


def _unreadable(cause: str) -> PsiflowError:
    return PsiflowError(f"the schema of a component cannot be read ({cause}); renew it: psiflow env update NAME")


def _component(plain: Plain) -> type[Component]:
    kind, name, engine = plain["kind"], plain["name"], plain["engine"]
    if kind not in get_args(Kind) or not name or not isinstance(name, str) or not isinstance(engine, str):
        raise ValueError(f"kind {kind!r}, name {name!r}, engine {engine!r}")
    attributes = {"kind": kind, "name": name, "engine": engine}
    return cast(type[Component], _made(plain, OBJECTS.get(kind, _FromSchema), attributes))


def _made(plain: Plain, base: type[BaseModel], attributes: Plain) -> type[BaseModel]:
    """The class that `schema_of` described."""
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
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind  # a default need not satisfy the rules
    return TypeAdapter(bare).validate_json(json.dumps(written["json"]))


def _built(plain: Plain) -> Any:
    """The type that `schema_of` described."""
    parts = tuple(_built(part) for part in plain.get("of", ()))
    match plain["is"]:
        case "annotated":
            return annotated(parts[0], [RULES[one["rule"]](**one["given"]) for one in plain["rules"]])
        case "unchecked":
            return annotated(parts[0], [PlainValidator(_itself), PlainSerializer(_itself)])
        case "union":
            return Union[parts]  # noqa: UP007 (built at run time)
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


def _enumeration(name: str, base: Any, members: list[list[Any]]) -> Any:
    pairs = [(word, value) for word, value in members]
    return base(name, pairs) if issubclass(base, Enum) else cast(Any, Enum)(name, pairs, type=base)


def _placeholder(text: str) -> type:
    """A type of which only the text is known: it accepts everything."""
    schema = classmethod(lambda cls, source, handler: core_schema.any_schema())
    return type(text, (), {"__get_pydantic_core_schema__": schema})


def _itself(value: Any) -> Any:
    return value
