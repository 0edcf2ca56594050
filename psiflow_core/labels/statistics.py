"""A data set in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from psiflow_core.labels.provenance import Entry
from psiflow_core.structures import charge_of, label_of, spin_of


@dataclass(frozen=True)
class Range:
    """Numbers from the smallest to the largest."""

    smallest: float
    mean: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range | None:
        """The range of these numbers; None if there are none."""
        if not len(values):
            return None
        return cls(float(np.min(values)), float(np.mean(values)), float(np.max(values)))


@dataclass(frozen=True)
class Statistics:
    """A data set in numbers; `str` makes a table of it."""

    structures: int
    statuses: Mapping[str, int]
    """The number of labelled and unlabelled structures, and of failures by reason."""
    formulas: Mapping[str, int]
    origins: Mapping[str, int]
    charges: Mapping[int, int]
    """The number of structures by total charge. [e]"""
    spins: Mapping[int, int]
    """The number of structures by multiplicity 2S+1."""
    atoms: Range | None
    """Of each structure."""
    energy: Range | None
    """Of the labels. [eV/atom]"""
    force: Range | None
    """Lengths of the forces on atoms. [eV/Å]"""
    volume: Range | None
    """Of the structures that are periodic in all directions. [Å³/atom]"""

    def __str__(self) -> str:
        return "\n".join([f"{self.structures} structures", *_counts(self), *_ranges(self)])


def statistics(entries: Iterable[Entry]) -> Statistics:
    """The statistics of these entries; each is read once."""
    rows = [_row(entry) for entry in entries]
    return Statistics(
        structures=len(rows),
        statuses=_common(row.status for row in rows),
        formulas=_common(row.formula for row in rows),
        origins=_common(row.origin for row in rows),
        charges=dict(sorted(Counter(row.charge for row in rows).items())),
        spins=dict(sorted(Counter(row.spin for row in rows).items())),
        atoms=Range.of([row.atoms for row in rows]),
        energy=Range.of([row.energy for row in rows if row.energy is not None]),
        force=Range.of([length for row in rows for length in row.forces]),
        volume=Range.of([row.volume for row in rows if row.volume is not None]),
    )


@dataclass(frozen=True)
class _Row:
    """One structure."""

    status: str
    formula: str
    origin: str
    charge: int
    spin: int
    atoms: int
    energy: float | None
    forces: Sequence[float]
    volume: float | None


def _row(entry: Entry) -> _Row:
    atoms = entry.structure
    label = label_of(atoms) if entry.is_labelled else None
    return _Row(
        _status(entry),
        atoms.get_chemical_formula(),
        entry.provenance.origin or "unknown",
        charge_of(atoms),
        spin_of(atoms),
        len(atoms),
        None if label is None else label.energy / len(atoms),
        [] if label is None else np.linalg.norm(label.forces, axis=1).tolist(),
        atoms.get_volume() / len(atoms) if atoms.pbc.all() else None,
    )


def _common(words: Iterable[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _status(entry: Entry) -> str:
    if entry.failure is not None:
        return f"failed: {entry.failure.reason}"
    return "labelled" if entry.is_labelled else "unlabelled"


def _counts(found: Statistics) -> Iterator[str]:
    rows: tuple[tuple[str, Mapping[str, int] | Mapping[int, int]], ...] = (
        ("status", found.statuses),
        ("formula", found.formulas),
        ("origin", found.origins),
        ("charge [e]", found.charges),
        ("multiplicity 2S+1", found.spins),
    )
    for name, counts in rows:
        if counts:
            yield f"{name:20}" + ", ".join(f"{count} × {value}" for value, count in counts.items())


def _ranges(found: Statistics) -> Iterator[str]:
    rows = (
        ("atoms", found.atoms),
        ("energy [eV/atom]", found.energy),
        ("force [eV/Å]", found.force),
        ("volume [Å³/atom]", found.volume),
    )
    if any(values for _, values in rows):
        yield f"{'':20}{'smallest':>12}{'mean':>12}{'largest':>12}"
    for name, values in rows:
        if values is not None:
            yield f"{name:20}{values.smallest:12.4g}{values.mean:12.4g}{values.largest:12.4g}"
