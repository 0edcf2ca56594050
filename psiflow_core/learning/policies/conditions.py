"""Conditions of walkers: options of the sampler that a group has to itself, or that change with the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, PositiveInt

from psiflow_core.components import Policy, Spec
from psiflow_core.environments import catalogue
from psiflow_core.errors import OptionError, did_you_mean
from psiflow_core.sampling.schemes import Biases
from psiflow_core.structures import Plain

SYMBOLS = {"temperature": "T", "pressure": "P"}
"""Short names of options."""


def _named(given: Sequence[Any], *names: str) -> dict[str, Any]:
    """Options that were given without their names."""
    if len(given) > len(names):
        raise OptionError(f"{len(given)} values without a name; give {', '.join(names)}, and all others by their names")
    return dict(zip(names, given, strict=False))


class Ramp(Policy):
    """A number that rises, or falls, with the labels that the campaign has: `Ramp(300, 900)`."""

    start: float
    """Its value before the first label. [unit of the option]"""
    stop: float
    """Its value when the budget of labels is spent. [unit of the option]"""

    def __init__(self, *ends: float, **options: Any) -> None:
        super().__init__(**_named(ends, "start", "stop"), **options)

    def value(self, progress: float) -> float:
        """Its value at a fraction of the budget. [unit of the option]"""
        return self.start + (self.stop - self.start) * min(max(progress, 0.0), 1.0)


def _ramp(given: Any) -> Any:
    ends = isinstance(given, dict) and given and given.keys() <= {"start", "stop"}
    return Ramp(**given) if ends else given


class Walkers(Policy):
    """A group of walkers under its own conditions: `Walkers(8, temperature=600)`.

    Any option of the campaign's sampler can be given by its name, as a value or as a `Ramp`; all others are the
    sampler's, or those of `Walking.ramps`. In YAML: `{count: 8, temperature: 600}`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Ramp | JsonValue, BeforeValidator(_ramp)]] = Field(init=False)

    count: PositiveInt
    """Walkers of the group."""
    bias: Biases | None = None
    """Biases and schemes of the group, instead of those of `Walking`; none of them where this is empty."""

    def __init__(self, *count: int, **options: Any) -> None:
        super().__init__(**_named(count, "count"), **options)

    @property
    def options(self) -> Mapping[str, Ramp | JsonValue]:
        """The options of the sampler that were given."""
        return self.__pydantic_extra__

    @property
    def conditions(self) -> str:
        """Its own conditions, in a few characters: `T=600`."""
        told = [f"{SYMBOLS.get(name, name)}={_short(value)}" for name, value in self.options.items()]
        if self.bias is not None:
            told.append("bias=" + ("+".join(one.name for one in self.bias) or "none"))
        return " ".join(told)


def groups_of(given: Any) -> int | tuple[Walkers, ...]:
    """The walkers of a campaign as they were given; a single group without its own conditions is its count.

    Raises:
        OptionError, ValueError: they are neither a number nor groups.
    """
    several = [given] if isinstance(given, Walkers | dict) else given
    if isinstance(several, list | tuple) and several:
        groups = tuple(_group(one) for one in several)
        plain = len(groups) == 1 and not groups[0].options and groups[0].bias is None
        return groups[0].count if plain else groups
    if not isinstance(given, int) or isinstance(given, bool):
        raise ValueError("write a number of walkers, or a list of groups such as psiflow.Walkers(8, temperature=300)")
    if given <= 0:
        raise ValueError("Input should be greater than 0")
    return given


@lru_cache
def one_group(count: int) -> tuple[Walkers, ...]:
    """Walkers without conditions of their own; kept, for the plan asks for them again and again."""
    return (Walkers(count),)


def _group(given: Any) -> Walkers:
    if isinstance(given, dict):
        return Walkers(**given)
    return given if isinstance(given, Walkers) else Walkers(given)


@dataclass(frozen=True)
class Conditions:
    """The sampler of a group of walkers, from the first label to the last."""

    sampler: Spec
    """With the fixed options of the group."""
    ramps: Mapping[str, Ramp]

    @classmethod
    def of(cls, sampler: Spec, group: Walkers, ramps: Mapping[str, Ramp]) -> Conditions:
        """The conditions of a group.

        Args:
            sampler: the campaign's.
            ramps: those of all walkers; an option of the group comes before them.

        Raises:
            OptionError: the sampler has no such option, refuses a value, or an option that ramps is no number.
        """
        own = {name: value for name, value in group.options.items() if isinstance(value, Ramp)}
        fixed = {name: value for name, value in group.options.items() if name not in own}
        base = _with(sampler, fixed) if fixed else sampler
        every = {**{name: ramp for name, ramp in ramps.items() if name not in fixed}, **own}
        for name in every:
            _refuse_unless_number(base, name)
        found = cls(base, every)
        for progress in (0.0, 1.0) if every else ():
            _with(base, found.at(progress).options)
        return found

    def at(self, progress: float) -> Spec:
        """The sampler at a fraction of the budget of labels."""
        options = self.sampler.options
        ramped = {name: _like(options[name], ramp.value(progress)) for name, ramp in self.ramps.items()}
        return replace(self.sampler, options={**options, **ramped})


def _with(sampler: Spec, options: Plain) -> Spec:
    """The sampler with other options; raises `OptionError`."""
    return catalogue.spec("sampler", sampler.name, {**sampler.options, **options})


def _refuse_unless_number(sampler: Spec, name: str) -> None:
    value = sampler.options.get(name)
    if _is_number(value):
        return
    numbers = [option for option, one in sampler.options.items() if _is_number(one)]
    known = f"Numbers: {', '.join(numbers) or 'none'}"
    if name not in sampler.options:
        raise OptionError(f"sampler '{sampler.name}' has no {name} to ramp.{did_you_mean(name, numbers)} {known}")
    if value is None:
        raise OptionError(f"sampler '{sampler.name}' has no {name} to ramp: give it one. {known}")
    raise OptionError(f"sampler '{sampler.name}': {name}={value!r} is no number, and cannot ramp. {known}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _like(before: object, value: float) -> float:
    """A whole number where the option is one."""
    return round(value) if isinstance(before, int) else value


def _short(value: Ramp | JsonValue) -> str:
    if isinstance(value, Ramp):
        return f"{value.start:g}→{value.stop:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)
