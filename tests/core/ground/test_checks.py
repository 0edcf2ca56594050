"""Structures that nothing should be computed for are refused."""

from __future__ import annotations

import pytest
from ase import Atoms

from psiflow_core.checks import refuse_other_charges
from psiflow_core.errors import StructureError


def oxygen(length: float, **info: int) -> Atoms:
    return Atoms("O2", [[0, 0, 0], [0, 0, length]], info=info)


def test_one_charge_and_spin_for_each_composition_passes() -> None:
    refuse_other_charges(
        [oxygen(1.2, spin=3), oxygen(1.3, spin=3), Atoms("O", info={"charge": -1, "spin": 2})], "blind"
    )
    refuse_other_charges([], "blind")


@pytest.mark.parametrize(
    ("other", "said"), [({"charge": 1, "spin": 2}, "charge 1 and spin 2"), ({"spin": 3}, "charge 0 and spin 3")]
)
def test_a_composition_with_two_charges_or_spins_is_refused(other: dict[str, int], said: str) -> None:
    with pytest.raises(StructureError, match=f"O2 comes with charge 0 and spin 1, and with {said}.* 'blind' cannot"):
        refuse_other_charges([oxygen(1.2), oxygen(1.2, **other)], "blind")
