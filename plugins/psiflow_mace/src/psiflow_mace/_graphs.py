"""Structures as the graphs that MACE reads: atoms, and edges between neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from psiflow_core.errors import StructureError
from psiflow_core.structures import Array
from psiflow_mace._engine import DTYPES, torch

Integers = NDArray[np.int64]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Graph:
    """One structure."""

    positions: Array
    """Shape (atoms, 3). [Å]"""
    species: Integers
    """Index of each atom in the network's list of atomic numbers, shape (atoms,)."""
    edges: Integers
    """Sender and receiver of each edge, shape (2, edges)."""
    unit_shifts: Array
    """Cell vectors between sender and receiver's image, shape (edges, 3)."""
    cell: Array
    """Shape (3, 3); the unit matrix for structures without a volume. [Å]"""
    has_stress: bool
    """Whether the structure is periodic in all three directions."""

    def __len__(self) -> int:
        return len(self.species)


class GraphBuilder:
    """Makes graphs for one network: its cutoff [Å] and its atomic numbers. Threads may share it."""

    def __init__(self, cutoff: float, numbers: Sequence[int]) -> None:
        self._cutoff = cutoff
        self._thread = threading.local()
        self._place = np.full(len(chemical_symbols), -1)
        self._place[list(numbers)] = np.arange(len(numbers))

    def graph(self, atoms: Atoms) -> Graph:
        """The graph of a structure.

        Raises:
            StructureError: the structure has a species that the network does not know.
        """
        species = self._place[atoms.numbers]
        if (species < 0).any():
            raise StructureError(self._about_unknown(atoms))
        periodic = np.array(atoms.pbc, bool)
        # A molecule's cell has no effect, whatever its size: the neighbours depend on the atoms alone.
        cell = np.array(atoms.cell.complete(), float) if periodic.any() else np.eye(3)
        i, j, shifts = self._neighbours().compute(
            points=atoms.positions, box=cell, periodic=periodic, quantities="ijS", copy=False
        )
        return Graph(
            positions=atoms.positions.copy(),
            species=species,
            edges=np.stack([i, j]).astype(np.int64),
            unit_shifts=shifts.astype(float),
            cell=cell,
            has_stress=bool(periodic.all()) and atoms.cell.rank == 3,
        )

    def _neighbours(self) -> Any:
        """The calling thread's neighbour list; each call overwrites the results of the last one."""
        from vesin import NeighborList

        if not hasattr(self._thread, "neighbours"):
            self._thread.neighbours = NeighborList(cutoff=self._cutoff, full_list=True, n_threads=1)
        return self._thread.neighbours

    def _about_unknown(self, atoms: Atoms) -> str:
        unknown = sorted({chemical_symbols[z] for z in atoms.numbers if self._place[z] < 0})
        known = [chemical_symbols[z] for z in np.flatnonzero(self._place >= 0)]
        return f"the model knows {', '.join(known)} and not {', '.join(unknown)}: train a model on data with them"


def collate(graphs: Sequence[Graph], num_species: int, dtype: str, device: torch.device) -> Tensors:
    """Several structures as one graph of unconnected parts, in the form that MACE's `forward` takes."""
    sizes = np.array([len(graph) for graph in graphs])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    edges = np.concatenate([graph.edges + start for graph, start in zip(graphs, starts, strict=False)], axis=1)
    unit_shifts = np.concatenate([graph.unit_shifts for graph in graphs])
    edge_counts = [graph.edges.shape[1] for graph in graphs]
    cells = np.stack([graph.cell for graph in graphs])
    shifts = np.einsum("es,esc->ec", unit_shifts, np.repeat(cells, edge_counts, axis=0))
    species = np.concatenate([graph.species for graph in graphs])

    def real(array: Array) -> torch.Tensor:
        return torch.from_numpy(array).to(device=device, dtype=DTYPES[dtype])

    def whole(array: Integers) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return {
        "positions": real(np.concatenate([graph.positions for graph in graphs])),
        "node_attrs": real(np.eye(num_species)[species]),
        "edge_index": whole(edges),
        "unit_shifts": real(unit_shifts),
        "shifts": real(shifts),
        "cell": real(cells.reshape(-1, 3)),
        "batch": whole(np.repeat(np.arange(len(graphs)), sizes)),
        "ptr": whole(starts),
    }


def minibatches(graphs: Sequence[Graph], max_edges: int) -> Iterator[Sequence[Graph]]:
    """The graphs in order, in batches of at most `max_edges` edges (or one graph): edges decide the memory."""
    start, edges = 0, 0
    for end, graph in enumerate(graphs):
        edges += graph.edges.shape[1]
        if edges > max_edges and end > start:
            yield graphs[start:end]
            start, edges = end, graph.edges.shape[1]
    yield graphs[start:]
