"""Options that belong to no component, and the messages for wrong options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from psiflow_core.components.options import documented
from psiflow_core.errors import OptionError, Problem, did_you_mean


class Policy(BaseModel):
    """Options that belong to no component, but to a campaign or to the monitor of its samplers; frozen.

    Raises:
        OptionError: an option is unknown, missing or out of range; every problem is named.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **rest: Any) -> None:
        super().__pydantic_init_subclass__(**rest)
        cls.__doc__ = documented(cls)

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise refusal(error, type(self).__name__, type(self).model_fields) from None


def refusal(error: ValidationError, owner: str, known: Iterable[str]) -> OptionError:
    """The error for users: one clause for each problem found by pydantic: the option, its value, the allowed values."""
    names, found = list(known), error.errors()
    message = f"{owner}: " + "; ".join(_clause(problem, names) for problem in found)
    return OptionError(message, [one for problem in found for one in _problems(problem, names)])


def _problems(found: Any, known: list[str]) -> Iterator[Problem]:
    """A problem found by pydantic, or those of the policy or component that is the value of this option."""
    where, inner = found["loc"], found.get("ctx", {}).get("error")
    if isinstance(inner, OptionError) and inner.problems:
        owner = ".".join(map(str, where))
        for one in inner.problems:
            yield Problem((*where, *one.where), f"{owner}: {one.words}" if owner else one.words, one.wants_text)
    else:
        place = where[:-1] if found["type"] == "missing" else where
        yield Problem(place, _clause(found, known), found["type"] == "string_type")


def _policies(root: type[Policy] = Policy) -> Iterator[type[Policy]]:
    """All imported policies."""
    for found in root.__subclasses__():
        yield found
        yield from _policies(found)


def _clause(problem: Any, known: list[str]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown option '{where}'.{did_you_mean(where, known)} Options: {', '.join(known) or 'none'}"
    if problem["type"] == "missing":
        return f"option '{where}' is missing"
    value, context = problem["input"], problem.get("ctx", {})
    if isinstance(context.get("error"), OptionError):
        return _passed_on(where, str(context["error"]))
    owner = _policy(context.get("class_name"))
    said = _how_to_write(owner, where, value) if owner else problem["msg"].removeprefix("Value error, ")
    return f"{where}={value!r}: {said}" if where else said


def _passed_on(where: str, said: str) -> str:
    """The message of a nested component or policy, with the name of its option instead of its own name."""
    owner, _, rest = said.partition(": ")
    if _policy(owner):
        return f"{where}: {rest}"
    return said if said.startswith(where) else f"{where}: {said}"


def _policy(name: str | None) -> type[Policy] | None:
    return next((policy for policy in _policies() if policy.__name__ == name), None)


def _how_to_write(policy: type[Policy], option: str, value: object) -> str:
    """The correct notation instead of a bare value: `Budget(labels=12)`."""
    field = next(iter(policy.model_fields))
    number = f"{value!r}" if policy.model_fields[field].is_required() and isinstance(value, int | float) else "…"
    return f"write {policy.__name__}({field}={number}), in YAML {option}: {{{field}: {number}}}"
