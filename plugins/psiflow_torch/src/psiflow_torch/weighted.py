"""The loss of a batch: weighted squared errors."""

from __future__ import annotations

from dataclasses import dataclass

from psiflow_torch.architecture import Output
from psiflow_torch.engine import torch
from psiflow_torch.graphs import Batch


@dataclass(frozen=True)
class Labels:
    """The labels of a batch, in float64."""

    energies: torch.Tensor
    """Without offsets, shape (structures,). [eV]"""
    forces: torch.Tensor
    """Shape (atoms, 3). [eV/Å]"""
    stresses: torch.Tensor
    """Shape (structures, 3, 3); zero where there is none. [eV/Å³]"""
    known: torch.Tensor
    """1 where there is a stress, else 0, shape (structures,)."""


def weighted(
    output: Output, labels: Labels, batch: Batch, energy: torch.Tensor, forces: torch.Tensor, stress: torch.Tensor
) -> torch.Tensor:
    """Weighted mean squared errors: energies per atom, force components, and, if they are predicted, known stresses.

    It is the loss of `mace_run_train` and of `nequip-train`, with the mean over atoms of all structures for forces.

    Args:
        energy, forces, stress: the weights.
    """
    off = (output.energies - labels.energies.to(output.energies.dtype)) / batch.sizes
    total = energy * off.square().mean()
    total = total + forces * (output.forces - labels.forces.to(output.forces.dtype)).square().mean()
    if output.stresses is None:
        return total
    dtype = output.stresses.dtype
    stresses = labels.known.to(dtype)[:, None, None] * (output.stresses - labels.stresses.to(dtype))
    return total + stress * stresses.square().mean()
