"""References: the contract of a level of theory."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ase import Atoms

from psiflow_core.components.component import Component, Resources
from psiflow_core.kinds import Kind
from psiflow_core.structures import Label


@dataclass(frozen=True)
class LabelTask:
    folder: Path
    """Scratch; empty at the start, kept after a failure."""
    resources: Resources = Resources()


class Reference(Component):
    """A level of theory run by a quantum-chemistry code."""

    kind: ClassVar[Kind] = "reference"

    @abstractmethod
    def label(self, structure: Atoms, task: LabelTask) -> Label:
        """Energy, forces, and stress for periodic structures, at ``info["charge"]`` and ``info["spin"]``.

        Raises:
            ReferenceFailed: with a reason. A returned label is trusted.
        """
