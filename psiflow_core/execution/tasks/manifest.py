"""Lists of labels, sent to workers as a file because they may be long."""

from __future__ import annotations

from pathlib import Path
from typing import Self, TypeVar

from psiflow_core.errors import FileCorrupt
from psiflow_core.files import holds, read_sealed, sealed, write_atomically
from psiflow_core.identity import NamedFile, Place, Typed


class Manifest(Typed):
    """The content of such a file. Labels are identified by their names, which are hashes of their content."""


class TrainingLabels(Manifest):
    training: tuple[NamedFile, ...]
    validation: tuple[NamedFile, ...]
    atomic_energies: dict[str, float]
    """Energy of each isolated atom, by chemical symbol. [eV]"""


class EvaluationLabels(Manifest):
    structures: tuple[NamedFile, ...]


M = TypeVar("M", bound=Manifest)


class ManifestFile(Typed):
    """A manifest on disk, identified by its content."""

    path: Place
    base: Place
    """The base of relative paths in it; no part of its identity."""
    digest: str
    """The manifest's identity."""

    @classmethod
    def write(cls, folder: Path, name: str, manifest: Manifest, base: Path) -> Self:
        """Write a manifest, unless it exists."""
        digest = manifest.identity
        path = folder / f"{name}-{digest[:16]}.json"
        written = sealed(manifest.moved(base, Path()).to_plain())
        if not holds(path, written):
            write_atomically(path, written, durable=False)
        return cls(path=path, base=base, digest=digest)

    def read(self, kind: type[M]) -> M:
        """The manifest; raises `FileCorrupt`."""
        found = kind.from_plain(read_sealed(self.path))
        if found.identity != self.digest:
            raise FileCorrupt(f"{self.path} is another list of labels than the one that was written")
        return found.moved(Path(), self.base)
