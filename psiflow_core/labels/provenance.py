"""The provenance of a structure and its label, and the failure of labelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ase import Atoms

from psiflow_core.components import Spec
from psiflow_core.errors import StructureError
from psiflow_core.structures import Plain, from_plain, is_labelled, sha256, to_plain

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Provenance:
    """The provenance of a structure and its label."""

    reference: Spec | None = None
    """The reference that computed the label; None without a label, and for labels from other programs."""
    origin: str = ""
    """The origin of the structure; in a campaign `initial`, `bootstrap`, `walker` or `test`."""
    source: str = ""
    """The file from which it was read, and its number in the file."""
    extra: Mapping[str, Scalar] = field(default_factory=dict)
    """Further facts; in a campaign `subset`, `walker`, `segment`, `generation`, `deviation` [eV/Å], …"""

    def to_plain(self) -> Plain:
        return {
            "reference": None if self.reference is None else self.reference.to_plain(),
            "origin": self.origin,
            "source": self.source,
            "extra": dict(self.extra),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Provenance:
        reference = plain["reference"]
        spec = None if reference is None else Spec.from_plain(reference)
        return cls(spec, plain["origin"], plain["source"], plain["extra"])


@dataclass(frozen=True)
class Failure:
    """Why a structure has no label."""

    reason: str
    """A word to count by: `unconverged`, `bad input`, `wall time`, `memory`, `engine`, …"""
    message: str
    """The whole message."""

    def to_plain(self) -> Plain:
        return {"reason": self.reason, "message": self.message}

    @classmethod
    def from_plain(cls, plain: Plain) -> Failure:
        return cls(plain["reason"], plain["message"])


@dataclass(frozen=True)
class Entry:
    """One structure of a data set, with its provenance and failure.

    Raises:
        StructureError: it has both a label and a failure.
    """

    structure: Atoms
    """With its label in its calculator, if it has one."""
    provenance: Provenance = Provenance()
    failure: Failure | None = None
    """Why it could not be labelled."""

    def __post_init__(self) -> None:
        if self.failure is not None and self.is_labelled:
            raise StructureError(
                f"{self.structure.get_chemical_formula()} has both a label and a failure ({self.failure.reason}); "
                "give one of them"
            )

    @property
    def is_labelled(self) -> bool:
        """Whether the structure has a label."""
        return is_labelled(self.structure)

    def to_plain(self) -> Plain:
        return {"structure": to_plain(self.structure), **self.about()}

    @classmethod
    def from_plain(cls, plain: Plain) -> Entry:
        failure = plain["failure"]
        return cls(
            from_plain(plain["structure"]),
            Provenance.from_plain(plain["provenance"]),
            None if failure is None else Failure.from_plain(failure),
        )

    def about(self) -> Plain:
        """The entry without its structure."""
        failure = None if self.failure is None else self.failure.to_plain()
        return {"provenance": self.provenance.to_plain(), "failure": failure}

    @property
    def digest(self) -> str:
        """SHA-256 of the whole entry."""
        return sha256(self.to_plain())
