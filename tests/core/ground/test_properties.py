"""Properties that hold for whatever there may be: of the journal, of the structure hash, of options and specs."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unittest import mock

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st

from psiflow_core.components import Spec
from psiflow_core.electrons import charge_of, says_electrons, spin_of
from psiflow_core.environments.catalogue import spec_by
from psiflow_core.errors import OptionError
from psiflow_core.learning.driver.journal import Journal, Line
from psiflow_core.registry.plugins import Registered, build, registry
from psiflow_core.structures import Plain, digest, from_plain, to_plain

text = st.text(st.characters(), max_size=20)
"""Any characters, zero and lone surrogates too."""

number = st.one_of(st.integers(), st.floats(allow_nan=False), st.floats(allow_nan=False, width=32))

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), number, text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=12,
)
"""All that JSON, as Python writes it, can say."""


# The journal -----------------------------------------------------------------------------------------------

kinds = st.sampled_from(["opened", "labelled", "", "ångström | ⁴I°₁₅⸝₂"])

sessions = st.lists(
    st.tuples(
        st.sampled_from(["ext4", "nfs"]), st.lists(st.tuples(kinds, st.dictionaries(text, anything)), max_size=4)
    ),
    min_size=1,
    max_size=3,
)
"""Of drivers, one after the other: the file system that each finds, and what it writes, kind and data."""


@settings(deadline=None, max_examples=60)
@given(sessions, st.data())
def test_a_journal_gives_back_whatever_was_written_in_whichever_modes(
    written: list[tuple[str, list[tuple[str, Plain]]]], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        path, expected = Path(folder) / "journal.sqlite", []
        for kind_of_disk, events in written:
            with mounted(kind_of_disk):
                journal = Journal(path, write=True)
            assert same(list(journal.events()), expected), "a new session reads what the others wrote"
            for kind, content in events:
                expected.append(journal.append(kind, content))
            if data.draw(st.booleans()):
                assert same(read(path), expected), "a reader does, while the session lasts"
            journal.close()
        assert same(read(path), expected)
        after = data.draw(st.integers(0, len(expected)))
        assert same(read(path, after), expected[after:])
    assert [event.number for event in expected] == list(range(1, len(expected) + 1))
    assert [(event.kind, event.data) for event in expected] == [event for _, events in written for event in events]


def mounted(kind: str) -> Any:
    """Every folder lies on a file system of this kind."""
    found = [SimpleNamespace(mountpoint="/", fstype=kind)]
    return mock.patch.object(psutil, "disk_partitions", return_value=found)


def read(path: Path, after: int = 0) -> list[Line]:
    """What a reader finds who looks and leaves."""
    reader = Journal(path)
    found = list(reader.events(after))
    reader.close()
    return found


def same(one: list[Line], other: list[Line]) -> bool:
    """Equal, and so are the types: 1 is not 1.0, nor true."""
    return one == other and repr(one) == repr(other)


# The hash of a structure -----------------------------------------------------------------------------------

coordinate = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 0.1]))
vector = st.lists(coordinate, min_size=3, max_size=3)


@st.composite
def structures(draw: st.DrawFn) -> Atoms:
    """Any species, positions, cell, periodicity, charge, spin and magnetic moments."""
    numbers = draw(st.lists(st.integers(1, 94), min_size=1, max_size=4))
    atoms = Atoms(
        numbers,
        [draw(vector) for _ in numbers],
        cell=[draw(vector) for _ in range(3)],
        pbc=draw(st.lists(st.booleans(), min_size=3, max_size=3)),
        info=draw(st.fixed_dictionaries({}, optional={"charge": st.integers(-3, 3), "spin": st.integers(1, 6)})),
    )
    moments = draw(st.one_of(st.none(), st.lists(coordinate, min_size=len(atoms), max_size=len(atoms))))
    if moments is not None:
        atoms.set_initial_magnetic_moments(moments)
    return atoms


Change = Callable[[Atoms, st.DataObject], object]


def per_atom(atoms: Atoms, data: st.DataObject, what: st.SearchStrategy[Any]) -> list[Any]:
    return [data.draw(what) for _ in atoms]


def other_cell(atoms: Atoms, data: st.DataObject) -> None:
    rows = [row if periodic else data.draw(vector) for row, periodic in zip(atoms.cell, atoms.pbc, strict=True)]
    atoms.set_cell(rows)


def other_info(atoms: Atoms, data: st.DataObject) -> None:
    given = data.draw(st.dictionaries(text.filter(lambda key: not says_electrons(key)), anything, max_size=3))
    atoms.info.update(given, weights=np.arange(3))


def flipped_zeros(atoms: Atoms, data: st.DataObject) -> None:
    for array in (atoms.positions, atoms.cell.array, *([magnetic(atoms)] if magnetic(atoms) is not None else [])):
        array[array == 0] *= -1


def declared(atoms: Atoms, data: st.DataObject) -> None:
    """The charge and the spin that it has anyway are written down: moments may say more than the defaults."""
    charge, spin = charge_of(atoms), spin_of(atoms)
    atoms.info["charge"] = data.draw(st.sampled_from([charge, float(charge), np.int64(charge)]))
    atoms.info["spin"] = data.draw(st.sampled_from([spin, float(spin), np.int64(spin)]))


def no_moments(atoms: Atoms, data: st.DataObject) -> None:
    if magnetic(atoms) is None:
        atoms.set_initial_magnetic_moments(np.zeros(len(atoms)))
    elif not magnetic(atoms).any():
        del atoms.arrays["initial_magmoms"]


IRRELEVANT: dict[str, Change] = {
    "momenta": lambda atoms, data: atoms.set_momenta(per_atom(atoms, data, vector)),
    "tags": lambda atoms, data: atoms.set_tags(per_atom(atoms, data, st.integers(0, 9))),
    "names": lambda atoms, data: atoms.set_array("names", np.array(per_atom(atoms, data, st.sampled_from("ab")))),
    "masses": lambda atoms, data: atoms.set_masses(per_atom(atoms, data, st.floats(1.0, 300.0))),
    "a calculator": lambda atoms, data: setattr(atoms, "calc", EMT()),
    "constraints": lambda atoms, data: atoms.set_constraint(FixAtoms([0])),
    "other info": other_info,
    "the cell where it is not periodic": other_cell,
    "the sign of zeros": flipped_zeros,
    "charge and spin that are declared": declared,
    "moments of zero": no_moments,
    "a way through JSON": lambda atoms, data: setattr(atoms, "arrays", through_json(atoms).arrays),
}


@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("what", IRRELEVANT)
@given(structures(), st.data())
def test_the_structure_hash_does_not_depend_on(what: str, atoms: Atoms, data: st.DataObject) -> None:
    other = atoms.copy()
    IRRELEVANT[what](other, data)
    assert digest(other) == digest(atoms)
    assert digest(through_json(other)) == digest(atoms)


def last_bit(atoms: Atoms, data: st.DataObject) -> None:
    nudge(atoms.positions, data)


def last_bit_of_the_cell(atoms: Atoms, data: st.DataObject) -> None:
    axis = data.draw(st.sampled_from(np.flatnonzero(atoms.pbc).tolist()))
    nudge(atoms.cell.array[axis : axis + 1], data)


def nudge(array: Any, data: st.DataObject) -> None:
    """One number of an array becomes its neighbour; zero, of either sign, the smallest number there is."""
    place = data.draw(st.tuples(*(st.integers(0, length - 1) for length in array.shape)))
    array[place] = np.nextafter(array[place], data.draw(st.sampled_from([-np.inf, np.inf])))


def other_species(atoms: Atoms, data: st.DataObject) -> None:
    atoms.numbers[data.draw(st.integers(0, len(atoms) - 1))] += data.draw(st.integers(1, 20))


def other_charge(atoms: Atoms, data: st.DataObject) -> None:
    atoms.info["charge"] = atoms.info.get("charge", 0) + data.draw(st.integers(1, 3))


def other_spin(atoms: Atoms, data: st.DataObject) -> None:
    atoms.info["spin"] = atoms.info.get("spin", 1) + data.draw(st.integers(1, 3))


def other_periodicity(atoms: Atoms, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, 2))
    atoms.pbc[axis] = not atoms.pbc[axis]


def other_moments(atoms: Atoms, data: st.DataObject) -> None:
    if magnetic(atoms) is None:
        atoms.set_initial_magnetic_moments(np.zeros(len(atoms)))
    nudge(magnetic(atoms), data)


def one_atom_more(atoms: Atoms, data: st.DataObject) -> None:
    atoms.append("H")


RELEVANT: dict[str, Change] = {
    "every last bit of the positions": last_bit,
    "every last bit of the periodic cell": last_bit_of_the_cell,
    "the species": other_species,
    "the charge": other_charge,
    "the spin": other_spin,
    "the periodicity": other_periodicity,
    "the magnetic moments": other_moments,
    "the number of atoms": one_atom_more,
}


@settings(deadline=None, max_examples=25)
@pytest.mark.parametrize("what", RELEVANT)
@given(structures(), st.data())
def test_the_structure_hash_depends_on(what: str, atoms: Atoms, data: st.DataObject) -> None:
    if what == "every last bit of the periodic cell":
        atoms.pbc[data.draw(st.integers(0, 2))] = True
    other = atoms.copy()
    RELEVANT[what](other, data)
    assert digest(other) != digest(atoms)
    assert digest(through_json(other)) == digest(other)


@settings(deadline=None, max_examples=50)
@given(structures(), st.data())
def test_the_structure_hash_depends_on_the_order_of_atoms_that_differ(atoms: Atoms, data: st.DataObject) -> None:
    other = atoms[data.draw(st.permutations(range(len(atoms))))]
    columns = ["numbers", "positions", *(["initial_magmoms"] if magnetic(atoms) is not None else [])]
    alike = all(np.array_equal(atoms.arrays[name], other.arrays[name]) for name in columns)
    assert (digest(other) == digest(atoms)) == alike


def magnetic(atoms: Atoms) -> Any:
    """The array of initial magnetic moments itself; None where there is none."""
    return atoms.arrays.get("initial_magmoms")


def through_json(atoms: Atoms) -> Atoms:
    return from_plain(json.loads(json.dumps(to_plain(atoms))))


# Options and specs -----------------------------------------------------------------------------------------

VARIABLE = st.sampled_from(
    [{"name": "distance", "atoms": [0, 1]}, {"name": "angle", "atoms": [0, 1, 2]}, {"name": "volume"}]
)
POSITIVE = st.floats(1e-3, 1e3)
LEVEL = st.floats(-1e3, 1e3)
SPRING = {"variable": VARIABLE, "stiffness": POSITIVE}
GIVEN: dict[tuple[str, str], dict[str, st.SearchStrategy[Any]]] = {
    ("bias", "ase"): {"calculator": st.sampled_from(["emt", "lj"])},
    ("bias", "grid"): {
        "variables": st.just([{"name": "distance", "atoms": [0, 1]}]),
        "start": st.just([0.5]),
        "stop": st.just([2.5]),
        "points": st.just([5]),
        "energies": st.lists(LEVEL, min_size=5, max_size=5),
    },
    ("bias", "harmonic"): {**SPRING, "center": LEVEL},
    ("bias", "incremental"): {**SPRING, "start": LEVEL, "stop": LEVEL, "steps": st.integers(1, 9)},
    ("bias", "lower-wall"): {**SPRING, "edge": LEVEL},
    ("bias", "metadynamics"): {
        "variables": st.just([{"name": "distance", "atoms": [0, 1]}]),
        "sigma": st.lists(POSITIVE, min_size=1, max_size=1),
        "height": POSITIVE,
    },
    ("bias", "moving"): {**SPRING, "stop": LEVEL, "steps": st.integers(1, 9)},
    ("bias", "plumed"): {"input": st.sampled_from(["d: DISTANCE ATOMS=1,2\nRESTRAINT ARG=d AT=1 KAPPA=2"])},
    ("bias", "toy-pen"): {**SPRING, "edge": LEVEL},
    ("bias", "umbrella"): {**SPRING, "start": LEVEL, "stop": LEVEL},
    ("bias", "upper-wall"): {**SPRING, "edge": LEVEL},
    ("executor", "aws"): {
        "image": st.sampled_from(["ami-0123456789abcdef0", "ami-12ab"]),
        "instance_type": st.sampled_from(["c7i.8xlarge", "m5.large"]),
        "tags": st.dictionaries(st.sampled_from(["group", "project"]), text),
    },
    ("executor", "googlecloud"): {
        "project": st.just("my-project"),
        "zone": st.sampled_from(["europe-west4-a", "us-central1-b"]),
        "machine_type": st.just("c3-standard-44"),
        "image": st.just("projects/my-project/global/images/psiflow"),
        "labels": st.dictionaries(st.sampled_from(["group", "project"]), st.sampled_from(["a", "b-1"])),
    },
    ("executor", "kubernetes"): {
        "container": st.sampled_from(["registry.example.org/group/psiflow:1.0", "psiflow"]),
        "volumes": st.dictionaries(st.sampled_from(["/data", "/work"]), st.sampled_from(["pvc:data", "/srv"])),
    },
    ("executor", "parsl"): {"provider": st.just("psiflow_toys.executor:provider")},
    ("executor", "toy-batch"): {"queue": text},
    ("selection", "diverse"): {"count": st.integers(1, 9)},
    ("variable", "angle"): {"atoms": st.permutations([0, 1, 2])},
    ("variable", "combination"): {
        "variables": st.just([{"name": "distance", "atoms": [0, 1]}]),
        "coefficients": st.lists(LEVEL, min_size=1, max_size=1),
    },
    ("variable", "coordination"): {"centers": st.just([0]), "neighbors": st.just([1, 2]), "radius": POSITIVE},
    ("variable", "dihedral"): {"atoms": st.permutations([0, 1, 2, 3])},
    ("variable", "distance"): {"atoms": st.permutations([0, 1])},
    ("variable", "function"): {"function": st.just("psiflow_toys.wells:height")},
    ("reference", "ase"): {"calculator": st.sampled_from(["emt", "lj", "package.module:Class"])},
    ("reference", "pyscf"): {"functional": st.sampled_from(["pbe", "B3LYP"]), "basis": st.sampled_from(["sto-3g"])},
    ("sampler", "openmm"): {"temperature": st.floats(1.0, 5000.0)},
    ("potential", "mace"): {"foundation_model": st.none(), "foundation_digest": st.none()},  # it would be a file
}
"""Options of which the type does not say enough; they are always given."""

COMPONENTS = registry().all()


def values(annotation: Any, rules: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """What a type allows, within the bounds that are annotated."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(parts[0], (*rules, *parts[1:]))
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(part, () if part is types.NoneType else rules) for part in parts))
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is dict:
        return st.dictionaries(text, anything.filter(finite), max_size=3)
    bounded = st.from_type(Annotated[(annotation, *rules)] if rules else annotation)  # type: ignore[arg-type]
    return bounded.filter(finite)


def finite(value: Any) -> bool:
    """Whether strict JSON can say it."""
    try:
        json.dumps(value, allow_nan=False).encode()
    except ValueError:
        return False
    return True


@st.composite
def options(draw: st.DrawFn, component: Registered) -> Plain:
    """Valid options of a component: drawn one by one, those that the others do not allow left out."""
    known = component.component.model_fields
    special = GIVEN.get((component.component.kind, component.component.name), {})
    found = {name: draw(strategy) for name, strategy in special.items()}
    for name in draw(st.permutations(sorted(set(known) - set(found)))):
        value = draw(values(known[name].annotation, tuple(known[name].metadata)))
        if draw(st.booleans()) and valid(component, {**found, name: value}):
            found[name] = value
    return found


def valid(component: Registered, given: Plain) -> bool:
    try:
        spec_by(component, given)
    except OptionError:
        return False
    return True


each_component = pytest.mark.parametrize(
    "component", COMPONENTS, ids=lambda it: f"{it.component.kind}-{it.component.name}"
)


@each_component
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_a_spec_survives_json_and_the_way_to_a_worker(component: Registered, data: st.DataObject) -> None:
    spec = spec_by(component, data.draw(options(component)))
    again = Spec.from_plain(json.loads(json.dumps(spec.to_plain(), allow_nan=False)))
    assert again == spec
    assert again.digest == spec.digest
    assert build(again) == build(spec)
    assert spec_by(component, build(again).options()) == spec, "options are what they were after they have been checked"


@each_component
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_a_spec_is_known_by_what_its_options_are_and_not_by_their_order(
    component: Registered, data: st.DataObject
) -> None:
    given = data.draw(options(component))
    spec = spec_by(component, given)
    shuffled = {name: given[name] for name in data.draw(st.permutations(list(given)))}
    assert spec_by(component, shuffled) == spec
    assert spec_by(component, shuffled).digest == spec.digest
    written_out = {name: spec.options[name] for name in data.draw(st.permutations(list(spec.options)))}
    assert spec_by(component, written_out).digest == spec.digest, "defaults that are written out change nothing"
    other = spec_by(component, data.draw(options(component)))
    assert (other.digest == spec.digest) == (other.options == spec.options)


DIGESTS = """
import json, sys
from psiflow_core.environments.catalogue import spec
for kind, name, options in json.load(sys.stdin):
    print(spec(kind, name, options).digest)
"""


def test_a_spec_has_the_same_hash_in_another_process() -> None:
    drawn: list[tuple[str, str, Plain]] = []
    here: list[str] = []

    @settings(deadline=None, max_examples=40, database=None)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        component = data.draw(st.sampled_from(COMPONENTS))
        given = data.draw(options(component))
        drawn.append((component.component.kind, component.component.name, given))
        here.append(spec_by(component, given).digest)

    draw()
    command = [sys.executable, "-c", DIGESTS]
    told = subprocess.run(command, input=json.dumps(drawn), capture_output=True, text=True, check=True)
    assert told.stdout.split() == here
