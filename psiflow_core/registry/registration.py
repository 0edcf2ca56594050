"""The requirements on a class before its registration: each fault is a sentence with a remedy.

The command line, specs, records of environments and workers rely on these checks.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from reprlib import repr as shortened
from types import FunctionType

from pydantic import ValidationError

from psiflow_core.components import (
    Bias,
    Component,
    Executor,
    Kind,
    Potential,
    Reference,
    Sampler,
    Scheme,
    SelectionStrategy,
    Variable,
)
from psiflow_core.components.options import options
from psiflow_core.components.schema import schema_of
from psiflow_core.errors import PsiflowError
from psiflow_core.texts import said_by

HOOKS: dict[Kind, str] = {
    "potential": "psiflow_potentials",
    "sampler": "psiflow_samplers",
    "reference": "psiflow_references",
    "executor": "psiflow_executors",
    "selection": "psiflow_selections",
    "bias": "psiflow_biases",
    "variable": "psiflow_variables",
}
"""The hook that returns the classes of each kind."""

CONTRACTS: dict[Kind, tuple[type[Component], ...]] = {
    "potential": (Potential,),
    "sampler": (Sampler,),
    "reference": (Reference,),
    "executor": (Executor,),
    "selection": (SelectionStrategy,),
    "bias": (Bias, Scheme),
    "variable": (Variable,),
}
"""The contracts of each kind; a class has to inherit from one of them."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")

YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
"""Words that YAML does not read as text."""


def faults(component: object, kind: Kind) -> Iterator[str]:
    """The faults of an object as a component of this kind, one sentence each."""
    if not isinstance(component, type):
        instance = isinstance(component, Component)
        yield f"it is an instance; return the class {type(component).__name__}" if instance else "it is no class"
        return
    contract = next((one for one in CONTRACTS[kind] if issubclass(component, one)), None)
    if contract is None:
        yield _other_kind(component, CONTRACTS[kind])
    else:
        yield from _faults(component, contract)


def _other_kind(component: type, contracts: Sequence[type[Component]]) -> str:
    for kind, others in CONTRACTS.items():
        if issubclass(component, others):
            return f"it is a {kind}; return it from {HOOKS[kind]}"
    names = " or ".join(contract.__name__ for contract in contracts)
    return f"it does not inherit from psiflow_core.components.{names}"


def _faults(component: type[Component], contract: type[Component]) -> Iterator[str]:
    found = [
        *_attributes(component, contract),
        *_unfinished(component),
        *_shadows(component, contract),
        *_rules(component),
        *_methods(component),
    ]
    yield from found or _options(component)


def _attributes(component: type[Component], contract: type[Component]) -> Iterator[str]:
    if getattr(component, "kind", None) != contract.kind:
        yield f"its `kind` is {getattr(component, 'kind', None)!r}; leave that to {contract.__name__}"
    for attribute in ("__doc__", *_texts(contract)):
        value = getattr(component, attribute, "")
        if not isinstance(value, str) and not (attribute == "__doc__" and value is None):
            yield f"its `{attribute}` is {shortened(value)}, and has to be text"
    name = getattr(component, "name", "")
    if name == "":
        yield "it has no `name`; give it one"
    elif isinstance(name, str) and (not NAME.fullmatch(name) or name.lower() in YAML_WORDS):
        yield (
            f"its `name` {shortened(name)} cannot be written everywhere, on a command line and in YAML; begin with a "
            "letter, go on with letters, digits, '.', '-' and '_', and take no word of YAML's such as 'true'"
        )


@cache
def _texts(contract: type[Component]) -> list[str]:
    """The attributes of a contract that are text."""
    owners = [owner for owner in contract.__mro__ if issubclass(owner, Component)]
    return [name for owner in owners for name, kind in inspect.get_annotations(owner).items() if "[str]" in str(kind)]


def _unfinished(component: type[Component]) -> Iterator[str]:
    missing: frozenset[str] = getattr(component, "__abstractmethods__", frozenset())
    if missing:
        yield f"it does not implement {', '.join(sorted(missing))}"


def _shadows(component: type[Component], contract: type[Component]) -> Iterator[str]:
    """Options with the name of an attribute of the contract."""
    taken = {*dir(contract)}
    for base in component.__mro__[1:]:
        if issubclass(base, Component):
            taken |= {name for name, what in vars(base).items() if isinstance(what, property | FunctionType)}
    for option in sorted({*component.model_fields} & taken):
        yield f"its option '{option}' has the name of an attribute of {contract.__name__}; rename the option"


def _rules(component: type[Component]) -> Iterator[str]:
    """Required pydantic settings of components."""
    for rule in ("frozen", "extra"):
        wanted, found = Component.model_config.get(rule), component.model_config.get(rule)
        if found != wanted:
            yield f"its model_config has {rule}={found!r}; leave that at {wanted!r}"


def _methods(component: type[Component]) -> Iterator[str]:
    """Methods that do not accept psiflow's arguments."""
    for name, promised in _promised(component).items():
        if name not in component.model_fields and name not in component.__abstractmethods__:
            yield from _method(component, name, promised)


def _promised(component: type[Component]) -> dict[str, inspect.Signature]:
    """The signatures of the methods of a class's contracts."""
    contracts = [owner for owner in component.__mro__ if owner.__module__.startswith("psiflow_core.components.")]
    return {
        name: inspect.signature(method)
        for owner in reversed(contracts)
        for name, method in vars(owner).items()
        if inspect.isfunction(getattr(owner, name)) and not name.startswith("_")
    }


def _method(component: type[Component], name: str, promised: inspect.Signature) -> Iterator[str]:
    given = getattr(component, name)
    if not callable(given) or isinstance(given, type):
        yield f"its `{name}` is no method; write def {name}{promised}"
        return
    if inspect.iscoroutinefunction(given) or inspect.isgeneratorfunction(given) or inspect.isasyncgenfunction(given):
        yield f"its `{name}` is a coroutine or a generator, and has to return its answer"
    bound = inspect.ismethod(given) or isinstance(inspect.getattr_static(component, name), staticmethod)
    signature = inspect.signature(given)
    if not _can_be_called(signature, list(promised.parameters.values())[1:], 0 if bound else 1):
        yield f"its `{name}` takes {signature}, and has to take {_bare(promised)}"


def _can_be_called(signature: inspect.Signature, parameters: list[inspect.Parameter], own: int) -> bool:
    """Whether every call with these parameters fits a method; ``own`` counts its self."""
    needed = [parameter for parameter in parameters if parameter.default is parameter.empty]
    optional = {parameter.name: None for parameter in parameters if parameter.default is not parameter.empty}
    for number, by_name in ((len(needed), {}), (len(parameters), {}), (len(needed), optional)):
        try:
            signature.bind(*[None] * (own + number), **by_name)
        except TypeError:
            return False
    return True


def _bare(signature: inspect.Signature) -> str:
    parameters = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


# Options ---------------------------------------------------------------------------------------------------


def _options(component: type[Component]) -> Iterator[str]:
    """Defaults that a spec cannot hold, and options that cannot be shown."""
    try:
        found = [*_defaults(component), *_unwritable(component)]
        if not found:
            list(options(component))
            schema_of(component)
            found = [*_changed(component)]
    except PsiflowError as error:
        found = [str(error)]
    except Exception as error:  # validators and factories of the plugin's own can raise anything
        found = [f"its options cannot be read: {type(error).__name__}: {said_by(error)}"]
    yield from found


def _defaults(component: type[Component]) -> Iterator[str]:
    """Defaults that their own options refuse."""
    try:
        component.model_validate({})
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            where, given = problem["loc"], problem["type"] != "missing" or len(problem["loc"]) > 1
            if where and given:
                yield f"the default of its option '{where[0]}' is {shortened(problem['input'])}: {problem['msg']}"


def _unwritable(component: type[Component]) -> Iterator[str]:
    """Defaults that JSON cannot hold."""
    made = component.model_construct()
    for option in component.model_fields:
        try:
            json.dumps(made.model_dump(mode="json", include={option}, warnings=False), allow_nan=False)
        except (ValueError, TypeError):
            default = shortened(getattr(made, option))
            yield f"the default of its option '{option}' is {default}, which cannot be written as JSON"


def _changed(component: type[Component]) -> Iterator[str]:
    """Defaults that change in JSON, or from one read to the next: no two specs would agree."""
    try:
        first = component.model_validate({}).options()
    except ValidationError:
        return  # some option is required
    specs = [first, component.parse({}).options(), component.parse(json.loads(json.dumps(first))).options()]
    for option in component.model_fields:
        if any(spec[option] != first[option] for spec in specs):
            yield f"the default of its option '{option}' is another each time it is read; choose one that stays"
