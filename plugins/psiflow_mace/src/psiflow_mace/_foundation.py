"""Foundation models: MACE's own model files as the start of a training."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from psiflow_torch.engine import DTYPES, alone, precision, torch
from psiflow_torch.model import Model
from psiflow_torch.predictor import TorchPredictor

from psiflow_core.components import TrainingTask
from psiflow_core.errors import OptionError
from psiflow_core.structures import Plain, label_of, species
from psiflow_mace._engine import quiet
from psiflow_mace._network import MaceNetwork
from psiflow_mace.options import MaceOptions

NOISE = 0.02
"""Relative random change of each weight, by the seed, so that members of a committee start differently. A few steps
of training remove the error that it causes; the members remain different. [fraction]"""

FAR = 1.0
"""Largest error of the energies at the start; beyond it, the file was trained on other materials or units. [eV/atom]"""

DETERMINED = 0.01
"""Singular values of the compositions below this fraction of the largest do not determine the energies of species.
[fraction]"""


def check(options: MaceOptions, structures: Sequence[Atoms]) -> None:
    """Refuse a foundation model that cannot serve as a start for these structures.

    Raises:
        OptionError: the file cannot be read, has changed, is of another kind, or does not know a species.
    """
    _select(_read(options), species(structures), options)


def model(options: MaceOptions, task: TrainingTask) -> Model:
    """The foundation model as the start of one member of a committee.

    It is reduced to the species of the reference's isolated atoms. Its weights change at random by `NOISE`, drawn with
    the seed. Its atomic energies are replaced by energies fitted to the labels.

    Raises:
        OptionError: as in `check`; or its energies are further than `FAR` from the labels.
    """
    bare = _without_energies(options, list(task.atomic_energies), task.seed)
    energies = _atomic_energies(bare, task, options)
    return replace(bare, atomic_energies=energies)


def _without_energies(options: MaceOptions, symbols: Sequence[str], seed: int) -> Model:
    """Architecture and weights, with atomic energies of zero."""
    from mace.tools import AtomicNumberTable
    from mace.tools.finetuning_utils import load_foundations_elements

    dtype = options.dtype
    foundation = _read(options).to(DTYPES[dtype])
    numbers = _select(foundation, symbols, options)
    plan = _architecture(foundation, numbers)
    network = MaceNetwork().new(plan, dtype)
    with alone(), precision(dtype):
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
    energies = {chemical_symbols[number]: 0.0 for number in numbers}
    return Model(options.name, plan, energies, float(plan["r_max"]), dtype, options.shape, weights)


def _atomic_energies(bare: Model, task: TrainingTask, options: MaceOptions) -> dict[str, float]:
    """The energy of each species with which the foundation model starts near the labels. [eV]

    The file's own energies cannot be used: they belong to another reference, and in many files they are averages over
    compounds, so that the network predicts a part of each free atom's energy. Hence each species first gets the energy
    that makes its isolated atom agree with the reference. The remaining error per atom is fitted by a shift of each
    species: by least squares, with no shift where the labels do not determine one.

    Raises:
        OptionError: the fitted energies are further than `FAR` from the labels.
    """
    symbols = bare.symbols
    structures = [*(Atoms(symbol) for symbol in symbols), *task.training]
    predictions = TorchPredictor(MaceNetwork(), bare, task.resources.device).predict(structures)
    predicted = np.array([prediction.energy for prediction in predictions])
    exact = np.array([task.atomic_energies[symbol] for symbol in symbols]) - predicted[: len(symbols)]
    counts = np.array([_counts(structure, symbols) for structure in task.training])
    atoms = counts.sum(axis=1)
    labels = np.array([label_of(structure).energy for structure in task.training])
    off = (labels - predicted[len(symbols) :] - counts @ exact) / atoms
    shift = np.linalg.lstsq(counts / atoms[:, None], off, rcond=DETERMINED)[0]
    left = float(np.sqrt(np.mean((off - counts @ shift / atoms) ** 2)))
    if not left <= FAR:
        raise OptionError(
            f"{_named(options)} starts {left:.2f} eV/atom from the labels (allowed: {FAR:g}), although its atomic "
            "energies were fitted to them: it was trained on other materials, or in units other than eV; "
            "choose another file, or leave foundation_model out"
        )
    return dict(zip(symbols, (exact + shift).tolist(), strict=True))


def _counts(structure: Atoms, symbols: Sequence[str]) -> list[int]:
    """Atoms of each species."""
    return [int(np.count_nonzero(structure.numbers == atomic_numbers[symbol])) for symbol in symbols]


def _move(network: Any, seed: int) -> None:
    """Multiply every weight by 1 + `NOISE` × a normal deviate: weights that are zero by design stay zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 1 + NOISE * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


def _read(options: MaceOptions) -> Any:
    content = _content(options)
    try:
        with alone(), quiet():
            network = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)  # the file as named
    except Exception as error:  # unpickling may raise anything if the file holds no module
        raise OptionError(f"{_named(options)} cannot be read as a MACE model: {error}; choose another file") from error
    if type(network).__name__ != "ScaleShiftMACE":
        raise OptionError(
            f"{_named(options)} holds a {type(network).__name__}, not a ScaleShiftMACE; choose another file"
        )
    if len(getattr(network, "heads", ["Default"])) > 1:
        heads = ", ".join(network.heads)
        raise OptionError(f"{_named(options)} has several heads ({heads}); extract one with mace_select_head")
    return network


def _content(options: MaceOptions) -> bytes:
    """The bytes of the file, checked against the digest in the options."""
    assert options.foundation_model is not None
    try:
        content = Path(options.foundation_model).read_bytes()
    except OSError as error:
        raise OptionError(
            f"{_named(options)} cannot be read here: {error.strerror}; make it readable for all workers"
        ) from error
    if hashlib.sha256(content).hexdigest() != options.foundation_digest:
        raise OptionError(
            f"{_named(options)} does not have the SHA-256 {options.foundation_digest}: "
            "restore the file, or define the potential again"
        )
    return content


def _named(options: MaceOptions) -> str:
    return f"foundation_model={options.foundation_model!r}"


def _select(network: Any, symbols: Sequence[str], options: MaceOptions) -> list[int]:
    known = [int(number) for number in network.atomic_numbers]
    missing = [symbol for symbol in symbols if atomic_numbers[symbol] not in known]
    if missing:
        names = ", ".join(chemical_symbols[number] for number in known)
        raise OptionError(f"{_named(options)} knows {names}, and not {', '.join(missing)}; choose another file")
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
