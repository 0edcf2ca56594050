"""The network of pairs of neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from psiflow_torch.architecture import Architecture, Statistics
from psiflow_torch.engine import torch
from psiflow_torch.graphs import Batch

from psiflow_core.structures import Plain
from psiflow_toys_torch.potential import Pairs


class PairNetwork(torch.nn.Module):
    """The energy of each pair, which is zero at the cutoff."""

    def __init__(self, cutoff: float, width: int, species: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("centres", torch.linspace(0.0, cutoff, width))
        self.cutoff, self.species = cutoff, species
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(width + 2 * species, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, width),
            torch.nn.SiLU(),
            torch.nn.Linear(width, 1),
        )

    def forward(self, distances: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        width = self.cutoff / len(self.centres)
        gaussians = torch.exp(-((distances[:, None] - self.centres) ** 2) / (2 * width**2))
        kinds = torch.nn.functional.one_hot(pairs, self.species).flatten(1).to(distances.dtype)
        decay = (1 - (distances / self.cutoff).clamp(max=1) ** 2) ** 3
        return self.scale * decay * self.layers(torch.cat([gaussians, kinds], 1)).squeeze(1)


class PairArchitecture(Architecture):
    in_tensors: ClassVar[tuple[str, ...]] = ("scale",)

    def plan(self, options: Pairs, energies: Mapping[str, float], statistics: Statistics) -> Plain:
        return {
            "cutoff": options.r_max,
            "width": options.width,
            "species": len(energies),
            "scale": statistics.force,
        }

    def build(self, plan: Plain) -> torch.nn.Module:
        return PairNetwork(**plan)

    def energies(self, network: torch.nn.Module, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        pairs = network(torch.linalg.norm(vectors, dim=1), batch.species[batch.edges].T)
        sums = pairs.new_zeros(batch.count)
        return sums.index_add(0, batch.structure[batch.edges[0]], pairs)

    def features(self, network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The sum of an atom's Gaussians of distances."""
        centres, neighbours = batch.edges
        vectors = batch.positions[neighbours] - batch.positions[centres] + batch.shifts
        distances = torch.linalg.norm(vectors, dim=1).to(network.scale.dtype)
        decay = (1 - (distances / network.cutoff).clamp(max=1) ** 2) ** 3
        near = decay[:, None] * torch.exp(-((distances[:, None] - network.centres) ** 2))
        return near.new_zeros(len(batch.positions), near.shape[1]).index_add(0, centres, near)
