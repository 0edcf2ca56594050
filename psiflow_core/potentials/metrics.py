"""Errors of predictions against labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from psiflow_core.structures import Array, Plain, label_of


@dataclass(frozen=True)
class Errors:
    """Errors of predictions on some labelled structures: root mean squares, and mean absolute values."""

    structures: int
    """The number of structures."""
    force_rmse: float
    """Over all force components. [eV/Å]"""
    force_mae: float
    """[eV/Å]"""
    energy_rmse: float
    """Over the energies per atom. [eV/atom]"""
    energy_mae: float
    """[eV/atom]"""
    total_energy_rmse: float
    """[eV]"""
    total_energy_mae: float
    """[eV]"""
    stress_rmse: float | None = None
    """Over all stress components, if label and prediction have a stress; None without any. [eV/Å³]"""
    stress_mae: float | None = None
    """[eV/Å³]"""


def errors(structures: Sequence[Atoms], predictions: Sequence[Plain]) -> Errors:
    """Errors of predictions against labels.

    Args:
        structures: labelled.
        predictions: ``{"energy", "forces", …}`` in the same order.
    """
    labels = [label_of(structure) for structure in structures]
    atoms = np.array([len(structure) for structure in structures])
    pairs = list(zip(labels, predictions, strict=True))
    forces = np.concatenate([np.ravel(label.forces - np.array(given["forces"])) for label, given in pairs])
    energies = np.array([label.energy - given["energy"] for label, given in pairs])
    stresses = stress_pairs(structures, predictions)
    off = stresses[:, 1] - stresses[:, 0]
    return Errors(
        structures=len(structures),
        force_rmse=rms(forces),
        force_mae=float(np.abs(forces).mean()),
        energy_rmse=rms(energies / atoms),
        energy_mae=float(np.abs(energies / atoms).mean()),
        total_energy_rmse=rms(energies),
        total_energy_mae=float(np.abs(energies).mean()),
        stress_rmse=rms(off) if len(off) else None,
        stress_mae=float(np.abs(off).mean()) if len(off) else None,
    )


@dataclass(frozen=True)
class Column:
    """A column of a table of errors."""

    name: str
    """A field of `Errors`."""
    quantity: str
    kind: str
    scale: float = 1e3
    """The factor from the unit of `Errors` to that of the column."""

    def of(self, row: Errors) -> str:
        """The number as text; a dash if there is none."""
        value = getattr(row, self.name)
        return "–" if value is None else f"{self.scale * value:.2f}"


COLUMNS = (
    Column("force_mae", "forces [meV/Å]", "MAE"),
    Column("force_rmse", "forces [meV/Å]", "RMSE"),
    Column("energy_mae", "energy [meV/atom]", "MAE"),
    Column("energy_rmse", "energy [meV/atom]", "RMSE"),
    Column("stress_mae", "stress [MPa]", "MAE", 1e3 / units.GPa),
    Column("stress_rmse", "stress [MPa]", "RMSE", 1e3 / units.GPa),
)


TOTAL = "all"
"""The set of all structures."""

REST = "other"
"""The set of structures that belong to no other, where some do."""


@dataclass(frozen=True)
class ErrorTable:
    """Errors by set of structures; `str` makes a table."""

    sets: Mapping[str, Errors]

    def __getitem__(self, name: str) -> Errors:
        return self.sets[name]

    def __contains__(self, name: object) -> bool:
        return name in self.sets

    def __iter__(self) -> Iterator[str]:
        return iter(self.sets)

    def __len__(self) -> int:
        return len(self.sets)

    @property
    def columns(self) -> list[Column]:
        """The columns with a number for at least one set."""
        return [one for one in COLUMNS if any(getattr(row, one.name) is not None for row in self.sets.values())]

    def heading(self) -> list[str]:
        """The lines above the rows."""
        quantities, kinds = (
            (f"{one.quantity:>22}" for one in self.columns[::2]),
            (f"{one.kind:>11}" for one in self.columns),
        )
        return [f"{'':12}" + "".join(quantities), f"{'':12}" + "".join(kinds)]

    def rows(self, columns: Sequence[Column]) -> list[str]:
        """A line for each set."""
        return [f"{name:12}" + "".join(f"{one.of(row):>11}" for one in columns) for name, row in self.sets.items()]

    def __str__(self) -> str:
        return "\n".join([*self.heading(), *self.rows(self.columns)] if self.sets else [])


def stress_pairs(structures: Sequence[Atoms], predictions: Sequence[Plain]) -> Array:
    """Pairs of labelled and predicted stresses, shape (structures with both, 2, 6). [eV/Å³]"""
    labels = [label_of(structure).stress for structure in structures]
    pairs = [
        (label, given["stress"])
        for label, given in zip(labels, predictions, strict=True)
        if label is not None and given["stress"] is not None
    ]
    return np.array(pairs, float).reshape(-1, 2, 6)


def error_at(structure: Atoms, prediction: Plain) -> dict[str, float]:
    """A model's error at one labelled structure: forces [eV/Å] and energy [eV/atom]."""
    label = label_of(structure)
    return {
        "force_rmse": rms(np.ravel(label.forces - np.array(prediction["forces"]))),
        "energy_per_atom": abs(label.energy - prediction["energy"]) / len(structure),
    }


def rms(values: Array) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def errors_by_set(structures: Sequence[Atoms], predictions: Sequence[Plain], sets: Sequence[str | None]) -> ErrorTable:
    """Errors of each set of structures, then of all.

    Args:
        structures: labelled.
        predictions: of each structure.
        sets: the name of each structure's set; None for a structure without one.
    """
    groups: dict[str, list[int]] = {}
    if any(sets):
        for number, name in enumerate(sets):
            groups.setdefault(name or REST, []).append(number)
    groups[TOTAL] = list(range(len(structures)))
    return ErrorTable(
        {
            name: errors([structures[n] for n in chosen], [predictions[n] for n in chosen])
            for name, chosen in groups.items()
        }
    )
