"""The arguments of verbs: results, handles of results, structures in all supported forms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from psiflow_core.checks import check
from psiflow_core.components import Component, Kind, Spec
from psiflow_core.environments.catalogue import as_spec, settled
from psiflow_core.errors import OptionError, TooManyFailures
from psiflow_core.execution.verbs.handles import Handle
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.given import structures
from psiflow_core.labels.provenance import Entry
from psiflow_core.potentials.trained import TrainedPotential

TOLERATED = 0.3
"""Fraction of the parts of a verb that may fail by default."""


async def awaited(given: Any) -> Any:
    """Wait for the result of a handle; anything else is returned unchanged."""
    if not isinstance(given, Handle):
        return given
    return await asyncio.shield(asyncio.wrap_future(given.future))


def component(kind: Kind, given: Spec | Component | str, argument: str) -> Spec:
    """The spec of a component, parsed by its plugin.

    Raises:
        OptionError: it is of another kind, or an option is wrong.
        PluginNotFound, PluginBroken: its plugin is missing or broken.
    """
    spec = as_spec(kind, given)
    if spec.kind != kind:
        raise OptionError(f"{argument}: this is a {spec.kind} ('{spec.name}'); psiflow.{kind}(…) makes a {kind}")
    return settled(spec)


def model_of(given: Any, argument: str) -> TrainedPotential:
    """A trained potential, given or loaded from a path.

    Raises:
        OptionError: the argument is neither.
        ModelCorrupt: the path contains no intact potential.
    """
    if isinstance(given, str | Path):
        return TrainedPotential.load(given)
    if not isinstance(given, TrainedPotential):
        raise OptionError(f"{argument}: {given!r} is no TrainedPotential; context.train(…) or TrainedPotential.load(…)")
    return given


def entries_of(given: Any, argument: str) -> list[Entry]:
    """Structures with their labels and provenance, if known.

    Args:
        given: a `Dataset`, a structure, the path of a file, a list of these; trajectories with their stored
            frames, or relaxations.

    Raises:
        StructureError: it holds no structure, or one that is not fit for a calculation.
    """
    if not isinstance(given, Dataset):
        return [Entry(_without_label(atoms)) for atoms in structures(_plainly(given), argument)]
    entries = list(given.entries())
    if entries:
        check([entry.structure for entry in entries], f"{argument} structure")
    return entries


def computed_entries(given: Any) -> list[Entry]:
    """The same for results of another verb. Nothing is refused: an unsound structure fails as a part of the verb."""
    if isinstance(given, Dataset):
        return list(given.entries())
    return [Entry(_without_label(atoms)) for atoms in _plainly(given)]


def _plainly(given: Any) -> Any:
    """Trajectories and relaxations as their structures."""
    if isinstance(given, Atoms | str | Path) or not isinstance(given, Iterable):
        return list(_inside(given)) if hasattr(given, "structure") else given
    several = list(given)
    if any(hasattr(one, "structure") for one in several):
        return [atoms for one in several for atoms in _inside(one)]
    return several


def _inside(one: Any) -> Sequence[Any]:
    if not hasattr(one, "structure"):
        return [one]
    return getattr(one, "frames", None) or [one.structure]


def _without_label(atoms: Atoms) -> Atoms:
    bare = atoms.copy()
    bare.calc = None
    return bare


@dataclass(frozen=True)
class Tolerance:
    """How many parts of a verb may fail: a fraction below or equal to 1.0, or a whole number of them."""

    limit: float | int

    def __post_init__(self) -> None:
        fraction = isinstance(self.limit, float) and 0.0 <= self.limit <= 1.0
        number = isinstance(self.limit, int) and not isinstance(self.limit, bool) and self.limit >= 0
        if not (fraction or number):
            raise OptionError(
                f"tolerate={self.limit!r}: give the fraction that may fail, from 0.0 to 1.0, or a whole number"
            )

    def refuse(self, failures: Sequence[str], of: int, parts: str) -> None:
        """Raise `TooManyFailures` if more parts failed than are tolerated.

        Args:
            failures: one sentence for each failed part.
            parts: the name of the parts.
        """
        allowed = self.limit * of if isinstance(self.limit, float) else self.limit
        if len(failures) > allowed:
            shown = "; ".join(failures[:5]) + ("; …" if len(failures) > 5 else "")
            raise TooManyFailures(
                f"{len(failures)} of {of} {parts} failed, more than tolerate={self.limit!r} allows: {shown}. Finished "
                "parts are kept"
            )
