"""A distance between structures that is invariant to orientation, order of like atoms and choice of images.

Each atom is described by its sorted distances to the atoms of each species, periodic images included: pointwise
distance distributions (Widdowson and Kurlin, "Resolving the data ambiguity for periodic crystals", NeurIPS 2022). Two
structures are compared by pairing their like atoms so that the worst pair agrees best, the bottleneck distance: a
change at one atom counts as much in a large structure as in a small one. A species is an element with its initial
charge and magnetic moment. Mirror images have distance zero, because their energies are equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from psiflow_core.electrons import charge_of, spin_of
from psiflow_core.structures import Array

NEAREST = 16
"""The number of neighbours of each species that describe an atom of a periodic structure."""

SAME = 3
"""Decimals of initial charges and magnetic moments by which two atoms are of different species."""

REACH = 6.0
"""The first search radius for neighbours in a periodic structure. [Å]"""

Key = tuple[tuple[tuple[float, ...], ...], tuple[bool, ...], int, int]


@dataclass(frozen=True)
class Surroundings:
    """The distances that describe a structure."""

    species: NDArray[np.int64]
    """The number of each atom's species, sorted, shape (atoms,)."""
    distances: Array
    """Of each atom, in this order, to the nearest atoms of each species in turn, sorted; in a finite structure to all
    atoms. Shape (atoms, distances). [Å]"""

    @property
    def means(self) -> Array:
        """Over the atoms of each species, weighted by their share: average minimum distances (Widdowson, Mosca,
        Pulido, Kurlin and Cooper, MATCH 87, 529 (2022)). Shape (species, distances). [Å]"""
        kinds = np.unique(self.species)
        shares = [self.distances[self.species == kind].sum(axis=0) / len(self.species) for kind in kinds]
        return np.array(shares)


def distance(one: Atoms, other: Atoms) -> float:
    """The largest difference of the sorted distances of two paired atoms, for the best pairing. [Å]

    Moving every atom by up to ε changes it by at most 2 ε. Infinite if species, charge, spin or periodicity differ. In
    a periodic structure, differences beyond the 16 nearest atoms of each species are not seen.
    """
    if key(one) != key(other):
        return float("inf")
    return apart(surroundings(one), surroundings(other))


def key(atoms: Atoms) -> Key:
    """The properties that comparable structures share: species, periodicity, charge and spin."""
    species = tuple(sorted(tuple(map(float, row)) for row in _species(atoms)))
    return species, tuple(bool(periodic) for periodic in atoms.pbc), charge_of(atoms), spin_of(atoms)


def surroundings(atoms: Atoms) -> Surroundings:
    """The sorted distances of each atom to the atoms of each species."""
    _, species = np.unique(_species(atoms), axis=0, return_inverse=True)
    species = species.reshape(-1).astype(np.int64)
    order = np.argsort(species, kind="stable")
    by_kind = [_nearest(atoms, species == kind) for kind in range(species.max() + 1)]
    return Surroundings(species[order], np.concatenate(by_kind, axis=1)[order])


def _species(atoms: Atoms) -> Array:
    """Element, initial charge and magnetic moment of each atom, shape (atoms, 3), or (atoms, 5) for moment vectors."""
    moments = np.asarray(atoms.get_initial_magnetic_moments(), float).reshape(len(atoms), -1)
    columns = np.column_stack([atoms.numbers, atoms.get_initial_charges(), moments])
    return np.asarray(np.round(columns, SAME) + 0.0)  # −0 is 0


def apart(one: Surroundings, other: Surroundings) -> float:
    """The distance of two structures that have the same `key`. [Å]"""
    return max(_bottleneck(costs) for costs in _costs(one, other))


def alike(one: Surroundings, other: Surroundings, tolerance: float) -> bool:
    """Whether two structures that have the same `key` are at most this far apart. [Å]"""
    return all(_has_pairing(costs <= tolerance) for costs in _costs(one, other))


def _costs(one: Surroundings, other: Surroundings) -> Iterator[Array]:
    """For each species, the largest difference of the distances of each two atoms, shape (atoms, atoms). [Å]"""
    from scipy.spatial.distance import cdist

    for kind in np.unique(one.species):
        yield cdist(one.distances[one.species == kind], other.distances[other.species == kind], "chebyshev")


def _bottleneck(costs: Array) -> float:
    """The least largest cost of a pairing of rows with columns."""
    least = max(costs.min(axis=0).max(), costs.min(axis=1).max())  # each atom has a partner
    values = np.unique(costs[costs >= least])
    first, last = 0, len(values) - 1
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if _has_pairing(costs <= values[middle]) else (middle + 1, last)
    return float(values[first])


def _has_pairing(allowed: NDArray[np.bool_]) -> bool:
    """Whether each row has an allowed column of its own."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    return bool((maximum_bipartite_matching(csr_matrix(allowed), perm_type="column") >= 0).all())


class Kept:
    """A collection of structures, no two of which are closer than a tolerance. [Å]"""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._by_key: defaultdict[Key, list[tuple[Array, Surroundings]]] = defaultdict(list)

    def add(self, atoms: Atoms) -> bool:
        """Keep a structure, unless it is closer than the tolerance to a kept one; returns whether it is kept.

        The difference of means is a cheap lower bound of the distance, and distinguishes most structures.
        """
        kept, seen = self._by_key[key(atoms)], surroundings(atoms)
        means = seen.means
        if kept:
            others = np.array([other for other, _ in kept])
            bounds = np.abs(others - means).max(axis=2).sum(axis=1)
            near = np.flatnonzero(bounds <= self._tolerance)
            if any(alike(seen, kept[number][1], self._tolerance) for number in near):
                return False
        kept.append((means, seen))
        return True


def _nearest(atoms: Atoms, chosen: Array) -> Array:
    """Sorted distances of each atom to the chosen atoms, or to the nearest of them, shape (atoms, distances). [Å]"""
    if atoms.pbc.any():
        return _nearest_images(atoms, chosen)
    from scipy.spatial.distance import cdist

    every = np.sort(cdist(atoms.positions, atoms.positions[chosen]) + _itself(chosen), axis=1)
    return np.where(np.isfinite(every), every, 0.0)


def _itself(chosen: Array) -> Array:
    """Infinity where an atom would be its own neighbour, shape (atoms, chosen atoms)."""
    return np.where(np.arange(len(chosen))[:, None] == np.flatnonzero(chosen)[None], np.inf, 0.0)


def _nearest_images(atoms: Atoms, chosen: Array) -> Array:
    from psiflow_core.checks import neighbour_distances

    reach = REACH
    while True:
        first, second, lengths = neighbour_distances(atoms, reach)
        mine = chosen[second]
        counts = np.bincount(first[mine], minlength=len(atoms))
        if counts.min() >= NEAREST:
            break
        reach *= 1.5
    order = np.lexsort((lengths[mine], first[mine]))
    sorted_lengths, starts = lengths[mine][order], np.concatenate([[0], np.cumsum(counts)[:-1]])
    return sorted_lengths[starts[:, None] + np.arange(NEAREST)]
