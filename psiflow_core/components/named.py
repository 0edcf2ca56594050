"""Components that are used as objects; as plain data, each is `{name: …}` with its options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError, model_serializer

from psiflow_core.components.component import Component
from psiflow_core.components.policy import refusal
from psiflow_core.structures import Plain


class Named(Component):
    """A component that is part of a campaign's settings: a bias, a collective variable, a selection strategy.

    Raises:
        OptionError: an option is unknown, missing or out of range; every problem is named.
    """

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            owner = type(self)
            raise refusal(error, f"{owner.kind} '{owner.name}'", owner.model_fields) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # `model_validate` keeps the single problems

    @model_serializer(mode="wrap")
    def _with_name(self, handler: Any) -> Plain:
        return {"name": self.name, **handler(self)}

    def options(self) -> Plain:
        return {name: value for name, value in self.to_plain().items() if name != "name"}

    def to_plain(self) -> Plain:
        """As JSON data, its name included."""
        return self.model_dump(mode="json")


def within(owner: BaseModel) -> Iterator[Named]:
    """The named components among the options of another, each before its own parts."""
    for option in type(owner).model_fields:
        yield from _among(getattr(owner, option))


def _among(value: object) -> Iterator[Named]:
    if isinstance(value, Named):
        yield value
    if isinstance(value, BaseModel):
        yield from within(value)
    elif isinstance(value, dict):
        yield from (found for one in value.values() for found in _among(one))
    elif isinstance(value, list | tuple):
        yield from (found for one in value for found in _among(one))
