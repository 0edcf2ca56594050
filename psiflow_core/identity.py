"""Typed data that is sent, stored and hashed. The type of a field decides whether it belongs to the identity.

A field of type `Place` is a location. It does not belong to the identity: a folder that was moved holds the same
tasks. Of a `NamedFile` only the name counts, which is the hash of its content. Every other field belongs entirely.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from ase import Atoms
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, SerializationInfo

from psiflow_core.structures import Plain, from_plain, sha256, to_plain


class Relocation(ABC):
    """New locations of files and folders."""

    @abstractmethod
    def of(self, path: Path) -> Path:
        """The new location of a path."""


@dataclass(frozen=True)
class Move(Relocation):
    """A folder that was moved."""

    before: Path
    now: Path

    def of(self, path: Path) -> Path:
        """The present location of a path; a path outside the folder does not change."""
        inside = path.is_relative_to(self.before)
        return self.now / path.relative_to(self.before) if inside else path


@dataclass(frozen=True)
class _Seen(Relocation):
    """The paths of a serialization; none changes."""

    paths: list[Path] = field(default_factory=list)

    def of(self, path: Path) -> Path:
        self.paths.append(path)
        return path


class _Identity:
    """The context of a serialization of the identity only."""


_IDENTITY = _Identity()


def _place(path: Path, info: SerializationInfo[Any]) -> str | None:
    if info.context is _IDENTITY:
        return None
    return str(info.context.of(path) if isinstance(info.context, Relocation) else path)


def _named_file(path: Path, info: SerializationInfo[Any]) -> str | None:
    return path.stem if info.context is _IDENTITY else _place(path, info)


def _structure(given: object) -> object:
    return from_plain(given) if isinstance(given, dict) else given


Place = Annotated[Path, PlainSerializer(_place)]
"""A location: not part of the identity."""

NamedFile = Annotated[Path, PlainSerializer(_named_file)]
"""A file named by the hash of its content: its name belongs to the identity, its folder does not."""

Structure = Annotated[Atoms, BeforeValidator(_structure), PlainSerializer(to_plain)]
"""A structure, or its plain data."""


class Typed(BaseModel):
    """Data with fields, which can be hashed, and sent or stored as JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",
    )

    @property
    def identity(self) -> str:
        """The SHA-256 of the identity: the same in every process and in every folder."""
        return sha256(self.model_dump(mode="json", context=_IDENTITY))

    def moved(self, before: Path, now: Path) -> Self:
        """A copy for a folder that was moved: only the paths into it change."""
        return self.relocated(Move(before, now))

    def relocated(self, relocation: Relocation) -> Self:
        """A copy with every path in its new location."""
        return self.model_validate(self.model_dump(mode="json", context=relocation))

    def paths(self) -> list[Path]:
        """Every path in it, of a place or of a named file, at any depth."""
        seen = _Seen()
        self.model_dump(mode="json", context=seen)
        return seen.paths

    def to_plain(self) -> Plain:
        """As JSON data."""
        return self.model_dump(mode="json")

    @classmethod
    def from_plain(cls, plain: object) -> Self:
        """The inverse of `to_plain`; raises `pydantic.ValidationError`, a `ValueError`."""
        return cls.model_validate(plain)
