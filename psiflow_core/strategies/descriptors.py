"""Structures as points in a space of descriptors that orientation, position and the order of atoms leave alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from psiflow_core.components import Model
from psiflow_core.structures import Array, species

CUTOFF = 6.0
"""Neighbours farther away do not count. [Å]"""

CENTERS = np.linspace(0.5, CUTOFF, 24)
"""Of the Gaussians that a distance is spread over. [Å]"""

WIDTH = 0.25
"""Their width. [Å]"""


def descriptors(structures: Sequence[Atoms], model: Model | None) -> Array:
    """One point for each structure, shape (structures, features).

    The features of the atoms of one element are averaged; those of an element that a structure lacks are 0.
    """
    if not structures:
        return np.zeros((0, 0))
    symbols = species(structures)
    features = _features(structures, model, symbols)
    return np.array([_means(one, atoms, symbols) for one, atoms in zip(features, structures, strict=True)])


def _features(structures: Sequence[Atoms], model: Model | None, symbols: Sequence[str]) -> list[Array]:
    if model is not None:
        try:
            return model.features(structures)
        except NotImplementedError:
            pass  # the potential has none
    return [_neighbours(atoms, symbols) for atoms in structures]


def _neighbours(atoms: Atoms, symbols: Sequence[str]) -> Array:
    """Histograms of the distances to neighbours of each element, with a smooth end, for each atom."""
    center, neighbour, distance = neighbor_list("ijd", atoms, CUTOFF)
    fades = 0.5 * (1 + np.cos(np.pi * distance / CUTOFF))
    spread = np.exp(-0.5 * ((distance[:, None] - CENTERS) / WIDTH) ** 2) * fades[:, None]
    found = np.zeros((len(atoms), len(symbols), len(CENTERS)))
    kinds = np.array([symbols.index(symbol) for symbol in atoms.symbols])
    np.add.at(found, (center, kinds[neighbour]), spread)
    return found.reshape(len(atoms), -1)


def _means(features: Array, atoms: Atoms, symbols: Sequence[str]) -> Array:
    names = np.array(atoms.get_chemical_symbols())
    parts = [features[names == symbol] for symbol in symbols]
    return np.concatenate([part.mean(axis=0) if len(part) else np.zeros(features.shape[1]) for part in parts])
