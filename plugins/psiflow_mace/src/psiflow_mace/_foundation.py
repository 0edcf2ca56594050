"""Foundation models: MACE's own model files, as the start of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from psiflow_core.errors import OptionError
from psiflow_core.structures import Plain, species
from psiflow_mace._engine import DTYPES, precision, quiet, torch
from psiflow_mace._model import Model, build


def check(file: Path, structures: Sequence[Atoms]) -> None:
    """Refuse a foundation model that cannot be a start for these structures.

    Raises:
        OptionError: the file cannot be read, is of another kind, or does not know a species.
    """
    _select(_read(file), species(structures), file)


def model(file: Path, atomic_energies: dict[str, float], dtype: str) -> Model:
    """The foundation model cut down to the species of ``atomic_energies``, which replace its own.

    Raises:
        OptionError: as `check`.
    """
    from mace.tools import AtomicNumberTable
    from mace.tools.finetuning_utils import load_foundations_elements

    foundation = _read(file).to(DTYPES[dtype])
    numbers = _select(foundation, list(atomic_energies), file)
    plan = _architecture(foundation, numbers)
    with torch.random.fork_rng(devices=[]):
        network = build(plan, dtype)
    with precision(dtype):
        load_foundations_elements(
            network,
            foundation,
            AtomicNumberTable(numbers),
            load_readout=True,
            max_L=foundation.products[0].linear.irreps_out.lmax,
            default_dtype=DTYPES[dtype],
        )
    shape = {"foundation_model": file.name, "dtype": dtype}
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    return Model(plan, dict(atomic_energies), dtype, shape, weights)


def _read(file: Path) -> Any:
    try:
        with quiet():
            network = torch.load(file, map_location="cpu", weights_only=False)  # the user named this file
    except Exception as error:  # whatever unpickling makes of a file that holds no module
        raise OptionError(f"foundation_model={str(file)!r} cannot be read as a MACE model: {error}") from error
    if type(network).__name__ != "ScaleShiftMACE":
        raise OptionError(f"foundation_model={str(file)!r} holds a {type(network).__name__}, not a ScaleShiftMACE")
    if len(getattr(network, "heads", ["Default"])) > 1:
        heads = ", ".join(network.heads)
        raise OptionError(f"foundation_model={str(file)!r} has heads {heads}: take one out with mace_select_head")
    return network


def _select(network: Any, symbols: Sequence[str], file: Path) -> list[int]:
    known = [int(number) for number in network.atomic_numbers]
    missing = [symbol for symbol in symbols if atomic_numbers[symbol] not in known]
    if missing:
        names = ", ".join(chemical_symbols[number] for number in known)
        raise OptionError(f"foundation_model={str(file)!r} knows {names}, and not {', '.join(missing)}")
    return sorted(atomic_numbers[symbol] for symbol in symbols)


def _architecture(network: Any, numbers: list[int]) -> Plain:
    """The module's architecture as plain data, for fewer species."""
    from mace.tools.scripts_utils import extract_config_mace_model

    plan = extract_config_mace_model(network)
    for key in ("num_elements", "atomic_energies", "cueq_config", "heads", "embedding_specs"):
        plan.pop(key)
    for key in ("interaction_cls", "interaction_cls_first", "readout_cls", "gate"):
        plan[key] = getattr(plan[key], "__name__", "None")
    for key in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        plan[key] = None if plan[key] is None else str(plan[key])
    for key in ("atomic_inter_scale", "atomic_inter_shift"):
        plan[key] = float(np.asarray(plan[key]).reshape(-1)[0])
    plan["distance_transform"] = plan["distance_transform"] or "None"
    plan["atomic_numbers"] = numbers
    return plan
