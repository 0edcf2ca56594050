"""Export to MACE's own format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from psiflow_torch.engine import DTYPES, torch
from psiflow_torch.model import Model

from psiflow_core.files import write_atomically
from psiflow_mace._engine import quiet
from psiflow_mace._network import MaceNetwork


def export(model: Path, target: Path) -> None:
    """Write the pickled module that `mace.calculators.MACECalculator` reads."""
    held = Model.open(model, "mace")
    network: Any = MaceNetwork().network(held)
    network.atomic_energies_fn.atomic_energies = torch.tensor(held.energies, dtype=DTYPES[held.dtype])
    content = io.BytesIO()
    with quiet():
        torch.save(network, content)
    write_atomically(target, content.getvalue())
