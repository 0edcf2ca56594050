"""Options are checked by name, and a foundation model is named by its content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ase import Atoms
from psiflow_mace.potential import Mace

import psiflow_core as psiflow
from psiflow_core.errors import OptionError, StructureError
from psiflow_core.registry.plugins import build

CATION, TRIPLET = {"charge": 1, "spin": 2}, {"charge": 0, "spin": 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"r_max": -1}, "r_max=-1: .* greater than 0"),
        ({"num_chanels": 8}, "unknown option 'num_chanels'. Did you mean 'num_channels'?"),
        ({"dtype": "float16"}, "dtype='float16': .*'float32' or 'float64'"),
        ({"max_L": 3, "max_ell": 2}, "max_L=3 needs max_ell of at least 3"),
        ({"energy_weight": 0, "forces_weight": 0}, "energy_weight and forces_weight are both zero"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: .* less than 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: .*finite"),
        ({"foundation_digest": "0" * 64}, "foundation_digest without foundation_model"),
        ({"foundation_model": "missing.model"}, r"foundation_model='/.*/missing.model' cannot be read: No such file"),
        ({"steps": 0, "batch_size": 0}, "steps=0: .*; batch_size=0: "),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        psiflow.potential("mace", **options)


def test_every_option_is_documented_with_its_unit() -> None:
    for name, field in Mace.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith("]"), name


def test_a_spec_holds_the_full_path_and_the_content_of_a_foundation_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "some.model"
    file.write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    specs = [psiflow.potential("mace", foundation_model=path) for path in ("some.model", "~/some.model", str(file))]
    assert specs[0] == specs[1] == specs[2]
    assert specs[0].options["foundation_model"] == str(file)
    assert specs[0].options["foundation_digest"] == hashlib.sha256(b"weights").hexdigest()
    file.write_bytes(b"other weights")
    assert psiflow.potential("mace", foundation_model="some.model").digest != specs[0].digest
    file.unlink()
    monkeypatch.chdir("/")
    assert build(specs[0]).options() == specs[0].options  # a worker that only predicts need not see the file


def test_structures_that_differ_only_in_charge_or_spin_are_refused() -> None:
    neutral, ion, triplet = (Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], info=info) for info in ({}, CATION, TRIPLET))
    Mace().check([neutral, neutral, Atoms("O", info={"spin": 3})])
    with pytest.raises(StructureError, match=r"O2 comes with charge 0 and spin 1, and with charge 1 and spin 2"):
        Mace().check([neutral, ion])
    with pytest.raises(StructureError, match=r"charge 0 and spin 3.* cannot distinguish them"):
        Mace().check([neutral, triplet])
