"""Trained weights, as files with a content hash, and potentials made of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ase import Atoms

from psiflow_core import answers
from psiflow_core.answers import Answering
from psiflow_core.components import Potential, Prediction, Predictor, Spec, Summable
from psiflow_core.errors import ModelCorrupt
from psiflow_core.files import believing, copy_atomically, file_digest, read_sealed, write_sealed
from psiflow_core.identity import Place
from psiflow_core.potentials.predictors import Committee
from psiflow_core.potentials.remote import Served
from psiflow_core.registry.plugins import build, registry
from psiflow_core.structures import Array, Plain

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

DESCRIPTION = "potential.json"
"""The file with the members of a saved potential: their specs, weight files and hashes."""

KEPT_LOADED = 8
"""Models that one process keeps in memory."""


@dataclass(frozen=True)
class ModelFile:
    """The weights of one committee member."""

    path: Place
    digest: str
    """SHA-256 of the file, which is checked before the file is loaded."""

    def verified(self) -> Path:
        """The path, after a check of the file's hash.

        Raises:
            ModelCorrupt: the file is missing, cannot be read, or has changed.
        """
        with believing(self.path, ModelCorrupt):
            present = file_digest(self.path)
        if present != self.digest:
            raise ModelCorrupt(f"{self.path} has changed since it was recorded: its hash differs")
        return self.path

    def to_plain(self) -> Plain:
        return {"path": str(self.path), "digest": self.digest}

    @classmethod
    def from_plain(cls, plain: Plain) -> ModelFile:
        return cls(Path(plain["path"]), plain["digest"])


@dataclass(frozen=True)
class Member:
    """One member of a committee: its weights and their potential."""

    potential: Spec
    file: ModelFile

    def to_plain(self) -> Plain:
        return {"potential": self.potential.to_plain(), **self.file.to_plain()}

    @classmethod
    def from_plain(cls, plain: Plain) -> Member:
        return cls(Spec.from_plain(plain["potential"]), ModelFile.from_plain(plain))


class _Warm:
    """The loaded models of this process, by content; the least recently used one is dropped first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str, str], Answering] = OrderedDict()

    def get(self, member: Member, device: str) -> Answering:
        key = (member.potential.digest, member.file.digest, device)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = _load(member, device)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._limit:
                self._loaded.popitem(last=False)
            return self._loaded[key]


_warm = _Warm(KEPT_LOADED)


def load_members(members: Sequence[Member], device: str = "cpu") -> list[Answering]:
    """The predictors of these models; models that this process has loaded already are not loaded again.

    If this interpreter lacks a potential, its predictor runs in a process of an environment that has it.

    Raises:
        ModelCorrupt: a file is missing, or has changed since it was recorded.
        PluginNotFound: no environment has the potential.
        WrongAnswer: the plugin did not load a predictor.
    """
    return [_warm.get(member, device) for member in members]


def _load(member: Member, device: str) -> Answering:
    spec, file = member.potential, member.file.verified()
    who = answers.named(spec)
    if not registry().has(spec.kind, spec.name):
        return Answering(Served(spec, file, member.file.digest, device), who)
    with answers.blamed(who):
        return Answering(cast(Potential, build(spec)).load(file, device), who)


class TrainedPotential(Summable):
    """A trained committee, for instance the result of a campaign. Its members may be of several potentials."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    def __repr__(self) -> str:
        count = len(self.members)
        of = ", ".join(f"{spec.name} of {spec.distribution} {spec.version}" for spec in self.potentials)
        return f"<TrainedPotential: {'1 member' if count == 1 else f'{count} members'}; {of}>"

    @property
    def potentials(self) -> list[Spec]:
        """The potentials of its members, each once."""
        return list({member.potential.digest: member.potential for member in self.members}.values())

    def only(self, name: str) -> TrainedPotential:
        """The members of one architecture.

        Raises:
            LookupError: no member is of this architecture.
        """
        chosen = [member for member in self.members if member.potential.name == name]
        if not chosen:
            names = ", ".join(spec.name for spec in self.potentials)
            raise LookupError(f"no member is of potential '{name}'; its potentials are: {names}")
        return TrainedPotential(chosen)

    def predictor(self, device: str = "cpu") -> Predictor:
        """The mean over the members."""
        members = load_members(self.members, device)
        return members[0] if len(members) == 1 else Committee(members)

    def calculator(self, device: str = "cpu") -> Calculator:
        """An ASE calculator of the committee's mean, with the force spread in ``results["deviation"]``. [eV/Å]"""
        return self.predictor(device).calculator()

    def predict(self, structures: Sequence[Atoms], device: str = "cpu") -> list[Prediction]:
        """Energies [eV], forces [eV/Å], stresses [eV/Å³], in one batch."""
        return self.predictor(device).predict(structures)

    def features(self, structures: Sequence[Atoms], device: str = "cpu") -> list[Array]:
        """Invariant per-atom descriptors, as the potential of the first member defines them."""
        return self.predictor(device).features(structures)

    def export(self, folder: str | Path) -> list[Path]:
        """Write each member in its architecture's own format; returns the files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return [
            export_member(member, folder, f"{member.potential.name}-{number}")
            for number, member in enumerate(self.members)
        ]

    def save(self, folder: str | Path) -> Path:
        """Write specs and weights to a folder for `load`, on this machine or another."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"member-{number}{member.file.path.suffix}" for number, member in enumerate(self.members)]
        for member, name in zip(self.members, names, strict=True):
            copy_atomically(member.file.verified(), folder / name)
        members = [
            {"potential": member.potential.to_plain(), "file": name, "digest": member.file.digest}
            for name, member in zip(names, self.members, strict=True)
        ]
        write_sealed(folder / DESCRIPTION, {"members": members}, durable=True)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> TrainedPotential:
        """Read a potential that `save` wrote.

        Raises:
            ModelCorrupt: there is no potential in the folder, or a file of it has changed.
        """
        description = Path(folder) / DESCRIPTION
        if _is_missing(description):
            inside = Path(folder) / "potential"
            hint = "" if _is_missing(inside / DESCRIPTION) else f"; give {inside}"
            raise ModelCorrupt(f"there is no potential in {folder}: {DESCRIPTION} is missing{hint}")
        with believing(description, ModelCorrupt):
            plain = read_sealed(description, ModelCorrupt)
            members = [
                Member(Spec.from_plain(one["potential"]), ModelFile(Path(folder) / one["file"], one["digest"]))
                for one in plain["members"]
            ]
        for member in members:
            member.file.verified()
        return cls(members)


def _is_missing(file: Path) -> bool:
    """Whether the file certainly does not exist; in an unreadable folder this is unknown."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def export_member(member: Member, folder: Path, stem: str) -> Path:
    """Write a model in its architecture's own format, in an environment that has it; returns the file."""
    if not registry().has("potential", member.potential.name):
        predictor = load_members([member])[0].inner
        assert isinstance(predictor, Served)
        return predictor.export(folder, stem)
    potential = cast(Potential, build(member.potential))
    target = folder / f"{stem}{potential.native_suffix}"
    with answers.blamed(answers.named(member.potential)):
        potential.export(member.file.verified(), target)
    return answers.exported(target, answers.named(member.potential))
