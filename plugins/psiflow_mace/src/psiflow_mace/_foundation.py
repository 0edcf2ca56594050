"""Foundation models: MACE's own model files, as the start of a training."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from psiflow_core.errors import OptionError
from psiflow_core.structures import Plain, species
from psiflow_mace._engine import DTYPES, precision, quiet, torch
from psiflow_mace._model import FOUNDATION_SHAPE, Model, build

if TYPE_CHECKING:
    from psiflow_mace.potential import Mace


NOISE = 0.02
"""Relative spread that a seed gives each weight, so that members of a committee do not start alike: a few steps
of training heal the error that it makes, and the members stay apart. [fraction]"""


def check(options: Mace, structures: Sequence[Atoms]) -> None:
    """Refuse a foundation model that cannot be a start for these structures.

    Raises:
        OptionError: the file cannot be read, is not the one that was named, is of another kind, or does not know
            a species.
    """
    _select(_read(options), species(structures), options)


def model(options: Mace, atomic_energies: dict[str, float], seed: int) -> Model:
    """The foundation model as a member of a committee starts from it.

    It is cut down to the species of ``atomic_energies``, which replace its own, and its weights are moved by
    `NOISE`, which the seed decides.

    Raises:
        OptionError: as `check`.
    """
    from mace.tools import AtomicNumberTable
    from mace.tools.finetuning_utils import load_foundations_elements

    dtype = options.dtype
    foundation = _read(options).to(DTYPES[dtype])
    numbers = _select(foundation, list(atomic_energies), options)
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
    _move(network, seed)
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    chosen = options.options()
    shape = {name: chosen[name] for name in FOUNDATION_SHAPE}
    return Model(plan, dict(atomic_energies), dtype, shape, weights)


def _move(network: Any, seed: int) -> None:
    """Multiply every weight by 1 + `NOISE` × a normal deviate: a weight that is zero by design stays so."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 1 + NOISE * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


def _read(options: Mace) -> Any:
    content = _content(options)
    try:
        with quiet():
            network = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)  # the file as named
    except Exception as error:  # whatever unpickling makes of a file that holds no module
        raise OptionError(f"{_named(options)} cannot be read as a MACE model: {error}") from error
    if type(network).__name__ != "ScaleShiftMACE":
        raise OptionError(f"{_named(options)} holds a {type(network).__name__}, not a ScaleShiftMACE")
    if len(getattr(network, "heads", ["Default"])) > 1:
        heads = ", ".join(network.heads)
        raise OptionError(f"{_named(options)} has heads {heads}: take one out with mace_select_head")
    return network


def _content(options: Mace) -> bytes:
    """The bytes of the file, once they are known to be those that the options were made with."""
    assert options.foundation_model is not None
    try:
        content = Path(options.foundation_model).read_bytes()
    except OSError as error:
        raise OptionError(f"{_named(options)} cannot be read here: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != options.foundation_digest:
        raise OptionError(
            f"{_named(options)} does not have the SHA-256 {options.foundation_digest}: "
            "bring the file back, or make the potential anew"
        )
    return content


def _named(options: Mace) -> str:
    return f"foundation_model={options.foundation_model!r}"


def _select(network: Any, symbols: Sequence[str], options: Mace) -> list[int]:
    known = [int(number) for number in network.atomic_numbers]
    missing = [symbol for symbol in symbols if atomic_numbers[symbol] not in known]
    if missing:
        names = ", ".join(chemical_symbols[number] for number in known)
        raise OptionError(f"{_named(options)} knows {names}, and not {', '.join(missing)}")
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
