"""Options are checked by name, and knowing them needs no engine."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from psiflow_mace.potential import Mace

from psiflow_core import plugins
from psiflow_core.errors import OptionError
from psiflow_core.plugins import build


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
        ({"steps": 0, "batch_size": 0}, "steps=0: .*; batch_size=0: "),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        plugins.potential("mace", **options)


def test_every_option_is_documented_with_its_unit() -> None:
    for name, field in Mace.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith("]"), name


def test_a_spec_makes_the_same_potential_again() -> None:
    spec = plugins.potential("mace", r_max=4.2, patience=3)
    again = build(type(spec).from_plain(json.loads(json.dumps(spec.to_plain()))))
    assert again == Mace(r_max=4.2, patience=3)
    assert spec.distribution == "psiflow-mace"


def test_options_need_no_engine() -> None:
    code = (
        "import sys; from psiflow_core import plugins; plugins.potential('mace', r_max=4.0);"
        "print(sorted({'torch', 'mace', 'e3nn', 'vesin', 'parsl'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
