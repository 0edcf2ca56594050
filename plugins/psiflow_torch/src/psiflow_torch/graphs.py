"""Structures as graphs of atoms, with edges between neighbours, and several graphs as one batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from psiflow_core.errors import StructureError
from psiflow_core.structures import Array
from psiflow_torch.engine import torch

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Graph:
    """One structure."""

    positions: Array
    """Shape (atoms, 3). [Å]"""
    species: Integers
    """Index of each atom in the model's list of species, shape (atoms,)."""
    edges: Integers
    """Centre and neighbour of each edge, shape (2, edges); every pair is there in both directions."""
    unit_shifts: Array
    """Cell vectors between the centre and the neighbour's image, shape (edges, 3)."""
    cell: Array
    """Shape (3, 3); the unit matrix for structures without a volume. [Å]"""
    has_stress: bool
    """Whether the structure is periodic in all three directions."""

    def __len__(self) -> int:
        return len(self.species)


class GraphBuilder:
    """Makes graphs for one model: its cutoff [Å] and its chemical symbols. Threads may share it."""

    def __init__(self, cutoff: float, symbols: Sequence[str]) -> None:
        self._cutoff = cutoff
        self._thread = threading.local()
        self._place = np.full(len(chemical_symbols), -1)
        self._place[[atomic_numbers[symbol] for symbol in symbols]] = np.arange(len(symbols))

    def graph(self, atoms: Atoms) -> Graph:
        """The graph of a structure.

        Raises:
            StructureError: the structure has a species that the model does not know.
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


@dataclass(frozen=True)
class Batch:
    """Several structures as one graph of unconnected parts, on a device. Real numbers are in float64."""

    positions: torch.Tensor
    """Shape (atoms, 3). [Å]"""
    species: torch.Tensor
    """Shape (atoms,)."""
    edges: torch.Tensor
    """Centre and neighbour of each edge, shape (2, edges)."""
    unit_shifts: torch.Tensor
    """Cell vectors between the centre and the neighbour's image, shape (edges, 3)."""
    shifts: torch.Tensor
    """The same in Cartesian coordinates, shape (edges, 3). [Å]"""
    cells: torch.Tensor
    """Shape (structures, 3, 3). [Å]"""
    structure: torch.Tensor
    """The structure of each atom, shape (atoms,)."""
    sizes: torch.Tensor
    """Atoms in each structure, shape (structures,)."""

    @property
    def count(self) -> int:
        """Number of structures; symbolic while the network is traced."""
        return self.sizes.shape[0]


def collate(graphs: Sequence[Graph], device: torch.device) -> Batch:
    """Graphs as one batch."""
    sizes = np.array([len(graph) for graph in graphs])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    edges = [graph.edges + start for graph, start in zip(graphs, starts, strict=True)]
    unit_shifts = np.concatenate([graph.unit_shifts for graph in graphs])
    cells = np.stack([graph.cell for graph in graphs])
    of_edges = np.repeat(cells, [graph.edges.shape[1] for graph in graphs], axis=0)

    def there(array: Array | Integers) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return Batch(
        positions=there(np.concatenate([graph.positions for graph in graphs])),
        species=there(np.concatenate([graph.species for graph in graphs])),
        edges=there(np.concatenate(edges, axis=1)),
        unit_shifts=there(unit_shifts),
        shifts=there(np.einsum("es,esc->ec", unit_shifts, of_edges)),
        cells=there(cells),
        structure=there(np.repeat(np.arange(len(graphs)), sizes)),
        sizes=there(sizes),
    )


def minibatches(graphs: Sequence[Graph], max_edges: int) -> Iterator[Sequence[Graph]]:
    """The graphs in order, in batches of at most `max_edges` edges (or one graph): edges decide the memory."""
    start, edges = 0, 0
    for end, graph in enumerate(graphs):
        edges += graph.edges.shape[1]
        if edges > max_edges and end > start:
            yield graphs[start:end]
            start, edges = end, graph.edges.shape[1]
    yield graphs[start:]
