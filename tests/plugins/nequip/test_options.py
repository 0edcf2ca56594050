"""Options are checked by name."""

from __future__ import annotations

import pytest
from ase import Atoms
from psiflow_nequip.potential import Allegro, Nequip

import psiflow_core as psiflow
from psiflow_core.errors import OptionError, StructureError

CATION, TRIPLET = {"charge": 1, "spin": 2}, {"charge": 0, "spin": 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"r_max": -1}, "r_max=-1: .* greater than 0"),
        ({"num_layer": 2}, "unknown option 'num_layer'. Did you mean 'num_layers'?"),
        ({"dtype": "float16"}, "dtype='float16': .*'float32' or 'float64'"),
        ({"l_max": 7}, "l_max=7: .* less than or equal to 4"),
        ({"energy_weight": 0, "forces_weight": 0}, "energy_weight and forces_weight are both zero"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: .* less than 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: .*finite"),
        ({"steps": 0, "batch_size": 0}, "steps=0: .*; batch_size=0: "),
    ],
)
@pytest.mark.parametrize("name", ["nequip", "allegro"])
def test_a_wrong_option_is_named(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=f"potential '{name}': .*{said}"):
        psiflow.potential(name, **options)


def test_an_option_of_the_other_potential_is_unknown() -> None:
    with pytest.raises(OptionError, match="unknown option 'num_features'"):
        psiflow.potential("allegro", num_features=8)
    with pytest.raises(OptionError, match="unknown option 'num_tensor_features'"):
        psiflow.potential("nequip", num_tensor_features=8)


@pytest.mark.parametrize("component", [Nequip, Allegro])
def test_every_option_is_documented_with_its_unit(component: type[Nequip] | type[Allegro]) -> None:
    for name, field in component.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith("]"), name


@pytest.mark.parametrize("component", [Nequip, Allegro])
def test_every_option_of_a_network_is_one_that_parent_and_child_share(
    component: type[Nequip] | type[Allegro],
) -> None:
    own = set(component.model_fields) - (set(Nequip.model_fields) & set(Allegro.model_fields))
    common = {"r_max", "num_bessels", "polynomial_cutoff_p", "num_layers", "l_max", "parity", "dtype"}
    assert set(component().shape) == own | common


@pytest.mark.parametrize("component", [Nequip, Allegro])
def test_structures_that_differ_only_in_charge_or_spin_are_refused(component: type[Nequip] | type[Allegro]) -> None:
    neutral, ion, triplet = (Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], info=info) for info in ({}, CATION, TRIPLET))
    potential = component()
    potential.check([neutral, neutral, Atoms("O", info={"spin": 3})])
    with pytest.raises(StructureError, match=r"O2 comes with charge 0 and spin 1, and with charge 1 and spin 2"):
        potential.check([neutral, ion])
    with pytest.raises(StructureError, match=f"charge 0 and spin 3; potential '{component.name}' cannot"):
        potential.check([neutral, triplet])
