"""A component that is known from its record says of its options what the class itself would say."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    JsonValue,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from psiflow_core.components import Component, Policy, Reference
from psiflow_core.components.options import options
from psiflow_core.components.schema import schema_of
from psiflow_core.components.schema_reading import class_from
from psiflow_core.environments.catalogue import spec_by
from psiflow_core.errors import OptionError, PluginBroken, PluginNotFound, PsiflowError
from psiflow_core.registry.plugins import Registered, registry
from psiflow_core.structures import Plain


class Toy(Reference):
    """What the toys below have in common."""

    name: ClassVar[str] = "every-kind"
    engine: ClassVar[str] = "heavy.package"

    def label(self, structure: Any, task: Any) -> Any: ...


class Cycle(Policy):
    """How often it is tried."""

    most: PositiveInt = 50
    """Iterations. [count]"""
    mixing: float = Field(0.3, gt=0, le=1)
    """Share of the new density. [fraction]"""


class Mesh(Policy):
    """A policy in which one option has to be given."""

    spacing: PositiveFloat
    """Distance between points. [Å]"""
    cycle: Cycle = Cycle()
    """A policy in a policy."""


class Cluster(BaseModel):
    """A model that is no policy, and is read with other rules."""

    model_config = ConfigDict(str_strip_whitespace=True, extra="forbid")

    host: str = Field("localhost", min_length=2)
    gpus: list[NonNegativeInt] = [0, 1]


class Dog(BaseModel):
    species: Literal["dog"] = "dog"
    barks: bool = True


class Cat(BaseModel):
    species: Literal["cat"] = "cat"
    lives: int = Field(9, ge=0)


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class EveryKind(Toy):
    """One option of each kind.

    A second paragraph.
    """

    given: int
    """It has to be given. [1]"""
    grid: Mesh
    """A policy that has to be given."""
    cycle: Cycle = Cycle()
    """A policy with nothing changed in it."""
    changed: Cycle = Cycle(most=7)
    """A policy with something changed in it."""
    perhaps: Cycle | None = None
    """A policy, or none."""
    host: Cluster = Field(default_factory=Cluster)
    """A model that is no policy."""
    several: list[Cycle] = Field([])
    """A list of them."""
    cell: tuple[float, float, float] = (1.0, 2.0, 3)
    """A tuple of a length. [Å]"""
    numbers: tuple[PositiveInt, ...] = ()
    """A tuple of any length."""
    charges: dict[str, float] = Field({"H": 1})
    """A dictionary."""
    anything: dict[str, JsonValue] = Field(default_factory=dict)
    """Whatever JSON holds."""
    free: Any = None
    """Whatever there is."""
    folder: Path = Path("here/there")
    """A path."""
    files: list[Path] = Field([Path("a"), Path("b")])
    """Paths."""
    share: Annotated[float, Field(ge=0, lt=1), "a remark"] = 0.5
    """Annotated bounds. [fraction]"""
    bits: Annotated[int, Field(gt=0, multiple_of=8)] | None = 64
    """Bounds in a union."""
    mixed: int | str | None = None
    """A union of three."""
    words: list[Literal["one", "two"]] = Field(["one"])
    """A list of choices."""
    choice: Literal["a", 1, True, None] = None
    """A choice of several types."""
    made: list[int] = Field(default_factory=lambda: [1, 2], min_length=1, max_length=3)
    """A list that is made."""
    digest: str | None = Field(None, pattern="^[0-9a-f]{4}$")
    """Text of a pattern."""
    short: Annotated[str, StringConstraints(max_length=3, to_lower=True)] = "abc"
    """Text of a length."""
    strict: int = Field(3, strict=True)
    """A number, and nothing like one."""
    whole: float = 300
    """A float whose default is written as an integer. [K]"""
    price: Decimal = Field(Decimal("1.50"), max_digits=4)
    """A decimal number."""
    time: timedelta = timedelta(minutes=5)
    """A span of time."""
    names: set[str] = Field({"one"})
    """A set."""
    colour: Colour = Colour.RED
    """A member of an enumeration."""
    size: Size = Size.LARGE
    """A member that is text."""
    level: Level = Level.HIGH
    """A member that is a number."""
    pet: Dog | Cat = Field(Cat(lives=3), discriminator="species")
    """A model that says which one it is."""
    pets: list[Annotated[Dog | Cat, Field(discriminator="species")]] = Field([])
    """Several of them."""
    spelt: int = Field(4, alias="written", ge=0)
    """An option that has another name in YAML."""
    undescribed: bool = False


class Bare(Toy):
    """Without a single option."""


class Silent(Toy):
    some: int = 1


class Indented(Toy):
    """One line.
    Another one, that is not indented more.

        And one that is.

    Options:
        are also a word of its own.
    """

    some: int = 1
    """An option."""


VOLUME = {"name": "volume"}

NEEDED: dict[str, Plain] = {
    "AseReference": {"calculator": "emt"},
    "OpenMM": {"temperature": 300.0},
    "EveryKind": {"given": 1, "grid": {"spacing": 0.2}},
    "Diverse": {"count": 3},
    "Distance": {"atoms": [0, 1]},
    "Angle": {"atoms": [0, 1, 2]},
    "Dihedral": {"atoms": [0, 1, 2, 3]},
    "Coordination": {"centers": [0], "neighbors": [1], "radius": 1.5},
    "Function": {"function": "module:name"},
    "Combination": {"variables": [VOLUME], "coefficients": [1.0]},
    "Harmonic": {"variable": VOLUME, "center": 1.0, "stiffness": 2.0},
    "MovingHarmonic": {"variable": VOLUME, "stop": 1.0, "steps": 10, "stiffness": 2.0},
    "UpperWall": {"variable": VOLUME, "edge": 1.0, "stiffness": 2.0},
    "LowerWall": {"variable": VOLUME, "edge": 1.0, "stiffness": 2.0},
    "Grid": {"variables": [VOLUME], "start": [0.0], "stop": [1.0], "points": [4], "energies": [0.0, 1.0, 0.0, 1.0]},
    "Metadynamics": {"variables": [VOLUME], "sigma": [0.1], "height": 0.1},
    "AseCalculator": {"calculator": "emt"},
    "Plumed": {"input": "d: DISTANCE ATOMS=1,2"},
    "Pen": {"variable": VOLUME, "edge": 1.0, "stiffness": 2.0},
    "Umbrella": {"variable": VOLUME, "start": 0.0, "stop": 1.0, "stiffness": 2.0},
    "Incremental": {"variable": VOLUME, "start": 0.0, "stop": 1.0, "stiffness": 2.0, "steps": 3},
}
"""The options that have to be given, by class."""

INSTALLED = [
    registered.component
    for registered in registry().all()
    if registered.component.kind != "executor" or registered.component.name in ("local", "threads")
]
"""An executor starts workers in the driver: those of plugins are never used by their records."""
TOYS = [EveryKind, Bare, Silent, Indented]

each = pytest.mark.parametrize("real", [*INSTALLED, *TOYS], ids=lambda it: f"{it.kind}-{it.name}-{it.__name__}")


def from_json(component: type[Component]) -> type[Component]:
    """The component as it comes out of its record; dictionaries need not keep their order."""
    return class_from(json.loads(json.dumps(schema_of(component), allow_nan=False, sort_keys=True)))


def needed(component: type[Component]) -> Plain:
    return NEEDED.get(component.__name__, {})


@each
def test_a_recorded_component_is_documented_as_the_class_is(real: type[Component]) -> None:
    found = from_json(real)
    assert (found.kind, found.name, found.engine, found.__name__) == (real.kind, real.name, real.engine, real.__name__)
    assert list(options(found)) == list(options(real))
    assert inspect.cleandoc(found.__doc__ or "") == inspect.cleandoc(real.__doc__ or "")
    assert not found.__abstractmethods__, "nothing abstract is in the way"


@each
def test_a_record_of_the_recorded_is_the_record(real: type[Component]) -> None:
    assert schema_of(from_json(real)) == schema_of(real)


@each
def test_a_recorded_component_has_the_defaults_of_the_class(real: type[Component]) -> None:
    assert same_json(from_json(real).parse(needed(real)).options(), real.parse(needed(real)).options())


def is_plain(value: Any) -> bool:
    return value is not object


def same_json(one: Plain, other: Plain) -> bool:
    """As text: 300 and 300.0 have different hashes."""
    return json.dumps(one) == json.dumps(other)


# Messages --------------------------------------------------------------------------------------------------

BAD: list[Any] = [None, True, 0, -1, 3, 10**6, 0.5, -0.5, 1e-12, math.nan, math.inf, "", "no such", "3", b"x", object]
BAD += [[], [1], ["one", "three"], [-1, "x"], [1.0, 2.0, 3.0], {}, {"a": 1}, {"most": 0}, {"no_such": 1}]
BAD += [{"spacing": 1, "cycle": {"mixing": 2}}, {"species": "cat", "lives": -1}, {"species": "cow"}, [{"most": "x"}]]
BAD += ["red", "Red", "small", 2, "12ab", "ABC", "ABCD", Path("x"), {"host": " x "}, {"gpus": [-1]}, 1.55555, 5]


def said(component: type[Component], given: Plain) -> str:
    try:
        component.parse(given)
    except (OptionError, PluginNotFound) as error:
        return str(error)
    return ""


def own_code_spoke(component: type[Component], given: Plain) -> bool:
    """Whether a validator of the plugin's own is among the problems, or an option that code reads before its type does;
    a policy inside is none."""
    read_by_code = {"variable", "variables"} if component.kind in ("bias", "variable") else set()
    validators = [one.info for one in component.__pydantic_decorators__.field_validators.values()]
    read_by_code |= {name for one in validators if one.mode != "after" for name in one.fields}
    try:
        component.model_validate(given)
    except ValidationError as error:
        return any(
            (
                problem["type"] in ("value_error", "assertion_error")
                and not isinstance(problem["ctx"]["error"], OptionError)
            )
            or read_by_code & {*problem["loc"][:1]}
            for problem in error.errors()
        )
    except PluginNotFound:
        return True
    return False


def compare(real: type[Component], found: type[Component], given: Plain) -> None:
    if not own_code_spoke(real, given):
        assert said(found, given) == said(real, given), given


def test_messages_are_compared() -> None:
    """The test of the tests: most of the bad values are told as such by the fields themselves."""
    bad = [{**needed(EveryKind), name: value} for name in EveryKind.model_fields for value in BAD]
    told = [one for one in bad if said(EveryKind, one) and not own_code_spoke(EveryKind, one)]
    assert len(told) > len(bad) / 2


@each
def test_each_bad_value_of_each_option_is_told_as_the_class_tells_it(real: type[Component]) -> None:
    found = from_json(real)
    for name, field in real.model_fields.items():
        for value in BAD:
            compare(real, found, {**needed(real), field.alias or name: value})


@each
def test_unknown_and_missing_options_are_told_as_the_class_tells_it(real: type[Component]) -> None:
    found, given = from_json(real), needed(real)
    compare(real, found, {})
    compare(real, found, {**given, "no_such_option": 1})
    for name in real.model_fields:
        compare(real, found, {**given, f"{name}s": 1})
        compare(real, found, {**given, name.upper(): 1})
        compare(real, found, {key: value for key, value in given.items() if key != name})
    assert "unknown option" in said(found, {**given, "no_such_option": 1})


@each
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_several_problems_at_once_are_told_as_the_class_tells_them(real: type[Component], data: st.DataObject) -> None:
    names = [*real.model_fields, "no_such_option"]
    given = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(BAD) | st.floats() | st.text()))
    compare(real, from_json(real), {**needed(real), **given})


@each
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_what_both_take_has_the_same_spec(real: type[Component], data: st.DataObject) -> None:
    """A validator that changes what it is given apart."""
    changed = {name for one in real.__pydantic_decorators__.field_validators.values() for name in one.info.fields}
    given = needed(real)
    for name in sorted(set(real.model_fields) - changed):
        more = {**given, name: data.draw(st.sampled_from(BAD).filter(is_plain))}
        given = given if said(real, more) else more
    specs = [spec_by(Registered(one, "psiflow-toy", "1.0"), given) for one in (from_json(real), real)]
    assert same_json(specs[0].options, specs[1].options)


# Code, which cannot be recorded ----------------------------------------------------------------------------


def lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Foreign:
    """A type that only its own plugin knows."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return handler(int)


class Tree(BaseModel):
    """A model that holds itself."""

    branches: list[Tree] = []


class Mended(BaseModel):
    """A model that may be written in another way."""

    number: int = 0

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        return {"number": given} if isinstance(given, int) else given


class WithCode(Toy):
    """Options that validators read, and that no record can hold the code of."""

    method: Literal["hf", "dft"] = "hf"
    """Read before its type reads it."""
    basis: Annotated[Literal["small", "large"], BeforeValidator(lowered)] = "small"
    """The same, in its type."""
    steps: Annotated[int, BeforeValidator(lowered), Field(gt=0)] = 5
    """With a bound. [count]"""
    items: list[Annotated[int, BeforeValidator(lowered)]] = Field([1])
    """The same, in a part of its type."""
    later: Annotated[int, Field(gt=0), AfterValidator(lambda value: value + 1)] = 1
    """Read after its type has read it."""
    shown: Annotated[int, PlainSerializer(float)] = 1
    """Written by code."""
    even: int = 2
    """Read after its type has read it."""
    file: FilePath | None = None
    """A file on the worker."""
    foreign: Annotated[Foreign, Field(gt=0)] | None = None
    """Of a foreign type."""
    tree: Tree = Tree()
    """Of a type that holds itself."""
    mended: Mended = Mended()
    """Of a type that is read by code."""

    @field_validator("method", mode="before")
    @classmethod
    def _method(cls, given: Any) -> Any:
        return lowered(given)

    @field_validator("even")
    @classmethod
    def _even(cls, given: int) -> int:
        if given % 2:
            raise ValueError("it is odd")
        return given

    @model_validator(mode="after")
    def _fit(self) -> WithCode:
        if self.even > self.steps:
            raise ValueError("even is larger than steps")
        return self


def test_options_that_code_reads_are_documented_as_ever() -> None:
    found = from_json(WithCode)
    assert list(options(found)) == list(options(WithCode))
    made, real = found.parse({}).options(), WithCode.parse({}).options()
    assert {name for name in real if made[name] != real[name]} == {"later"}, "code of the worker's reads this default"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "HF"),
        ("basis", "LARGE"),
        ("items", ["1"]),
        ("tree", {"branches": [{"branches": []}]}),
        ("mended", 3),
        ("foreign", 4),
        ("file", __file__),
    ],
)
def test_what_code_makes_valid_is_not_refused(name: str, value: Any) -> None:
    assert not said(WithCode, {name: value})
    assert from_json(WithCode).parse({name: value}).options()[name] == value, "the worker will read it"


@pytest.mark.parametrize(("name", "value"), [("even", 3), ("even", 8), ("file", "/no/such/file"), ("method", "mp5")])
def test_what_only_code_refuses_is_left_to_the_worker(name: str, value: Any) -> None:
    assert said(WithCode, {name: value})
    assert not said(from_json(WithCode), {name: value})


@pytest.mark.parametrize(("name", "value"), [("even", "x"), ("later", 0), ("shown", "x"), ("evn", 2)])
def test_what_a_type_refuses_before_any_code_is_refused(name: str, value: Any) -> None:
    assert said(from_json(WithCode), {name: value}) == said(WithCode, {name: value}) != ""


def test_a_default_that_no_spec_could_hold_is_told() -> None:
    class Endless(Toy):
        limit: float = math.inf

    class Object(Toy):
        thing: Any = object()

    with pytest.raises(PluginBroken, match=r"Endless\.limit has a default that is no plain data: inf"):
        schema_of(Endless)
    with pytest.raises(PluginBroken, match=r"Object\.thing has a default that is no plain data: <object"):
        schema_of(Object)


# Records of others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [None, [], {}, {"format": 0}, {**schema_of(Silent), "format": 2}])
def test_a_record_of_another_format_says_what_to_do(plain: Any) -> None:
    with pytest.raises(PsiflowError, match=r"cannot be read \(its format is .*psiflow env update NAME"):
        class_from(plain)


def damaged(*changes: tuple[str, Any], option: bool = False) -> Plain:
    plain = json.loads(json.dumps(schema_of(EveryKind)))
    (plain["options"][0] if option else plain).update(changes)
    return plain


@pytest.mark.parametrize(
    "plain",
    [
        {"format": 1},
        damaged(("kind", "engine")),
        damaged(("kind", [])),
        damaged(("name", "")),
        damaged(("engine", None)),
        damaged(("options", None)),
        damaged(("options", [{}])),
        damaged(("class", 3)),
        damaged(("type", {"is": "tensor"}), option=True),
        damaged(("type", {"is": "int", "of": 3}), option=True),
        damaged(("type", {"is": "annotated", "of": [{"is": "int"}], "rules": [{"rule": "Odd"}]}), option=True),
        damaged(("default", {"python": "__import__('os')"}), option=True),
        damaged(("name", "_private"), option=True),
    ],
)
def test_a_damaged_record_says_what_to_do_in_a_line(plain: Plain) -> None:
    with pytest.raises(PsiflowError, match=r"cannot be read .*; renew it: psiflow env update NAME") as told:
        class_from(plain)
    assert "\n" not in str(told.value)


class SomeKinds(Toy):
    """Small, with a bit of everything that a record has."""

    mesh: Mesh = Mesh(spacing=1.0)
    """A policy. [Å]"""
    colour: Colour | None = Colour.RED
    """A colour."""
    words: list[Literal["one", "two"]] = Field(["one"])
    """Words."""
    digest: str = Field("abcd", pattern="^[0-9a-f]{4}$")
    """A pattern."""


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda it: st.lists(it, max_size=2))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_record_with_anything_in_it_is_read_or_refused(data: st.DataObject) -> None:
    plain = json.loads(json.dumps(schema_of(SomeKinds)))
    places = list(places_in(plain))
    place, key = data.draw(st.sampled_from(places))
    place[key] = data.draw(JSON)
    with suppress(PsiflowError):  # any other error is a failure
        class_from(plain)


def places_in(plain: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in JSON data."""
    keys = plain if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else ()
    for key in keys:
        yield plain, key
        yield from places_in(plain[key])
