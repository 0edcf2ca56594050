"""Data sets: structures with or without labels, their provenance, and the failures of labelling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from ase import Atoms

from psiflow_core.errors import OptionError, StructureError
from psiflow_core.files import replacing, writing
from psiflow_core.labels.exact import SUFFIXES
from psiflow_core.labels.foreign import Names
from psiflow_core.labels.frames import Frame, Held, frames_of, settled
from psiflow_core.labels.likeness import Kept
from psiflow_core.labels.provenance import Entry, Failure, Provenance
from psiflow_core.labels.roundtrip import write_database, write_xyz
from psiflow_core.labels.statistics import Statistics, statistics
from psiflow_core.structures import Array, digest, label_of

UNKNOWN = Provenance()


@dataclass(frozen=True)
class Failed:
    """A structure of a data set that could not be labelled."""

    number: int
    """The structure's number in the data set."""
    structure: Atoms
    failure: Failure

    def __str__(self) -> str:
        formula = self.structure.get_chemical_formula()
        return f"structure {self.number} ({formula}): {self.failure.reason}: {self.failure.message}"


class Dataset(Sequence[Atoms]):
    """Structures with and without labels, in an order that never changes.

    It is a sequence of `ase.Atoms`; each access gives a new copy. A labelled structure has energy [eV], forces [eV/Å]
    and, if periodic, stress [eV/Å³] in its calculator. Structures are read from their file or store at each access
    and are not kept in memory: a data set that was loaded, sliced or concatenated needs little memory, however large
    it is.

    A structure keeps species, positions, cell, charge and spin, initial charges and magnetic moments, momenta, masses,
    fixed atoms (`FixAtoms`), its label, and the text and numbers in its ``info``.

    Args:
        structures: each with its label in its calculator, or with no number that could be a label.
        provenance: the origin of the structures; one for all, or one for each.

    Raises:
        StructureError: a constraint cannot be kept, or it is unclear which numbers of a structure are its label.
    """

    def __init__(
        self, structures: Iterable[Atoms] = (), provenance: Provenance | Sequence[Provenance] = UNKNOWN
    ) -> None:
        given = list(structures)
        known = [provenance] * len(given) if isinstance(provenance, Provenance) else list(provenance)
        if len(known) != len(given):
            raise StructureError(f"{len(known)} provenances for {len(given)} structures; give one for each")
        self._frames: tuple[Frame, ...] = tuple(
            Held(Entry(settled(atoms, f"structure {number}"), one))
            for number, (atoms, one) in enumerate(zip(given, known, strict=True))
        )

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> Dataset:
        """A data set of frames (`psiflow_core.labels.frames`): entries in memory, in a label store or in files."""
        made = cls()
        made._frames = tuple(frames)
        return made

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        energy: str | None = None,
        forces: str | None = None,
        stress: str | None = None,
        virial: str | None = None,
    ) -> Dataset:
        """Load a file that `save` wrote, or a file from other programs in any format that ASE reads.

        Structures that psiflow wrote come back exactly. In other files, labels are expected under ASE's names
        (`energy` or `free_energy`, `forces`, `stress`). Give other names as arguments; further energies and forces in
        the file are then left out. ASE does not know the units of a file: energies must be in eV, lengths in Å, and a
        stress in eV/Å³ with ASE's sign.

        Extended XYZ and ASE databases are read one structure at a time, on access. Here only the first one is read.

        Args:
            path: a file, or a selection of its structures: ``md.xyz@-1``, ``md.xyz@::10``.
            energy: name of the total energy, such as "REF_energy". [eV]
            forces: name of its negative gradient, shape (atoms, 3); names with "gradient" are refused. [eV/Å]
            stress: name of the stress, shape (6,) in Voigt order xx, yy, zz, yz, xz, xy, or (3, 3), or (9,). [eV/Å³]
            virial: name of the virial, instead of the stress; stress = -virial/volume. The same shapes. [eV]

        Raises:
            StructureError: the file cannot be read; a structure that psiflow wrote was changed; it is unclear which
                numbers are the label, or these names do not occur. The message says which names to give.
            OptionError: only one of energy and forces is named.
        """
        frames = frames_of(path, _names(energy, forces, stress, virial))
        frames[0].entry()
        return cls.of(frames)

    def save(self, path: str | Path) -> Path:
        """Write structures, labels, provenance and failures, exact to the last bit; returns the file.

        Args:
            path: a file name that ends in `.xyz` or `.extxyz` (extended XYZ) or in `.db` (an ASE database).

        Raises:
            StructureError: the name has another ending, or there is no structure to write.
            CampaignError: the file cannot be written.
        """
        target = Path(path)
        if target.suffix not in (*SUFFIXES, ".db"):
            raise StructureError(f"{target} should end in {', '.join(SUFFIXES)} or .db: the ending decides the format")
        if not self._frames:
            raise StructureError(f"there is no structure to write into {target}")
        with writing(target.parent), replacing(target, durable=True) as temporary:
            (write_database if target.suffix == ".db" else write_xyz)(temporary, self.entries())
        return target

    # A sequence --------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Atoms]:
        return (entry.structure for entry in self.entries())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Atoms: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Sequence[bool] | np.ndarray[Any, Any]) -> Dataset: ...

    def __getitem__(self, index: Any) -> Atoms | Dataset:
        """A structure by its number; a data set by a slice, a list of numbers, or a truth value for each structure."""
        if isinstance(index, slice):
            return Dataset.of(self._frames[index])
        if isinstance(index, int | np.integer):
            return self._frames[index].entry().structure
        return Dataset.of(self._frames[number] for number in _numbers(index, len(self)))

    def __add__(self, other: object) -> Dataset:
        if not isinstance(other, Dataset):
            return NotImplemented
        return Dataset.of((*self._frames, *other._frames))

    def __repr__(self) -> str:
        return f"<Dataset: {len(self)} structures>"

    # What is known of its structures -----------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Each structure with its provenance and, if it could not be labelled, its failure."""
        return (frame.entry() for frame in self._frames)

    @property
    def provenance(self) -> list[Provenance]:
        """The provenance of each structure and its label."""
        return [entry.provenance for entry in self.entries()]

    @property
    def labelled(self) -> Dataset:
        """The structures with a label."""
        return self[[entry.is_labelled for entry in self.entries()]]

    @property
    def unlabelled(self) -> Dataset:
        """The structures without a label, whether labelling failed or was never tried."""
        return self[[not entry.is_labelled for entry in self.entries()]]

    @property
    def failures(self) -> list[Failed]:
        """The structures that could not be labelled, with the reasons."""
        numbered = enumerate(self.entries())
        return [Failed(n, entry.structure, entry.failure) for n, entry in numbered if entry.failure is not None]

    @property
    def energies(self) -> Array:
        """The energies of the labels, shape (structures,). [eV]

        Raises:
            StructureError: a structure has no label.
        """
        return np.array([label_of(atoms).energy for atoms in self])

    @property
    def forces(self) -> list[Array]:
        """The forces of the labels, each of shape (atoms, 3). [eV/Å]

        Raises:
            StructureError: a structure has no label.
        """
        return [label_of(atoms).forces for atoms in self]

    def statistics(self) -> Statistics:
        """Counts by formula, origin and status, and the ranges of energies, forces, volumes, charges and spins."""
        return statistics(self.entries())

    # Parts of it -------------------------------------------------------------------------------------------

    def filter(self, predicate: Callable[[Atoms], bool]) -> Dataset:
        """The structures for which a function is true. To choose by origin, index with truth values."""
        return self[[bool(predicate(atoms)) for atoms in self]]

    def split(self, *sizes: float, seed: int = 0) -> tuple[Dataset, ...]:
        """Split at random: ``training, validation = data.split(0.9, 0.1, seed=1)``.

        Structures are drawn by a hash of their content and the seed: the same structures make the same parts, whatever
        their order in the data set. Each part keeps the order of the data set.

        Args:
            sizes: fractions that add up to 1, or whole numbers that add up to the number of structures.
            seed: another seed makes other parts.

        Raises:
            OptionError: the sizes do not add up.
        """
        edges = _edges(sizes, len(self))
        order = sorted(range(len(self)), key=lambda number: _drawn(self[number], seed))
        return tuple(self[sorted(order[begin:end])] for begin, end in pairwise(edges))

    def deduplicate(self, tolerance: float = 0.05) -> Dataset:
        """Leave out each structure that is closer than a tolerance to another one that is kept.

        Labelled structures have precedence over structures without a label, and earlier ones over later ones. Only
        structures with the same atoms, charge, spin and periodicity are compared, by
        `psiflow_core.labels.likeness.distance`: structures whose atoms differ by up to half of the tolerance are the
        same.

        Args:
            tolerance: the distance below which two structures are the same. [Å]
        """
        if not tolerance >= 0:
            raise OptionError(f"tolerance={tolerance}: give a distance of 0 Å or more")
        kept, stays = Kept(tolerance), []
        labelled = np.array([entry.is_labelled for entry in self.entries()], bool)
        for number in (*np.flatnonzero(labelled), *np.flatnonzero(~labelled)):
            if kept.add(self[number]):
                stays.append(int(number))
        return self[sorted(stays)]


def _names(energy: str | None, forces: str | None, stress: str | None, virial: str | None) -> Names | None:
    if energy is not None and forces is not None:
        return Names(energy, forces, stress, virial)
    if any(name is not None for name in (energy, forces, stress, virial)):
        raise OptionError("a label needs an energy and forces: give both names, energy=… and forces=…")
    return None


def _numbers(index: Any, length: int) -> list[int]:
    """The numbers selected by an array of numbers or of truth values."""
    array = np.asarray(index)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(int)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        raise TypeError(f"a data set is indexed by a number, a slice, numbers or truth values, not by {index!r}")
    if array.dtype.kind == "b":
        if len(array) != length and len(array):
            raise IndexError(f"{len(array)} truth values for {length} structures; give one for each")
        return [int(number) for number in np.flatnonzero(array)]
    return [int(number) for number in array]


def _edges(sizes: Sequence[float], length: int) -> list[int]:
    """The boundaries of the parts of a split."""
    whole = all(isinstance(size, int | np.integer) for size in sizes)
    total, wanted = sum(sizes), length if whole else 1.0
    if not sizes or min(sizes) < 0 or abs(total - wanted) > 1e-9:
        raise OptionError(
            f"the sizes {', '.join(map(str, sizes)) or '(none)'} do not split {length} structures: give fractions that "
            f"add up to 1, such as 0.9, 0.1, or numbers that add up to {length}"
        )
    return [0, *(round(float(edge) * length / wanted) for edge in np.cumsum(sizes))]


def _drawn(atoms: Atoms, seed: int) -> str:
    return hashlib.sha256(f"{seed} {digest(atoms)}".encode()).hexdigest()
