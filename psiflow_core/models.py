"""Trained weights: files known by their content hash, and the potential that they make together."""

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
from psiflow_core.components import Potential, Prediction, Predictor, Spec
from psiflow_core.errors import ModelCorrupt
from psiflow_core.files import believing, copy_atomically, file_digest, read_sealed, write_sealed
from psiflow_core.plugins import build, registry
from psiflow_core.predictors import Committee
from psiflow_core.served import Served
from psiflow_core.structures import Array, Plain

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

DESCRIPTION = "potential.json"
"""The file that says what a potential's members are of, and what they are."""

KEPT_LOADED = 8
"""Models that one process keeps in memory."""


@dataclass(frozen=True)
class ModelFile:
    """The weights of one committee member."""

    path: Path
    digest: str
    """SHA-256 of the file: it is checked before anything is loaded."""

    def verified(self) -> Path:
        """The path, once its content has been found to be what was recorded.

        Raises:
            ModelCorrupt: the file is missing, cannot be read, or is another.
        """
        with believing(self.path, ModelCorrupt):
            found = file_digest(self.path)
        if found != self.digest:
            raise ModelCorrupt(f"{self.path} is not the one that was recorded: its hash differs")
        return self.path

    def to_plain(self) -> Plain:
        return {"path": str(self.path), "digest": self.digest}

    @classmethod
    def from_plain(cls, plain: Plain) -> ModelFile:
        return cls(Path(plain["path"]), plain["digest"])


@dataclass(frozen=True)
class Member:
    """One member of a committee: its weights, and the potential that they are of."""

    potential: Spec
    file: ModelFile

    def to_plain(self) -> Plain:
        return {"potential": self.potential.to_plain(), **self.file.to_plain()}

    @classmethod
    def from_plain(cls, plain: Plain) -> Member:
        return cls(Spec.from_plain(plain["potential"]), ModelFile.from_plain(plain))


class _Warm:
    """Loaded models of this process, by content; the least recently used goes first."""

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
    """The predictors of these models; what this process has loaded before is not loaded again.

    A potential that this interpreter lacks is asked in the process of an environment that has it.

    Raises:
        ModelCorrupt: a file is missing or is not the one that was recorded.
        PluginNotFound: no environment has its potential.
        WrongAnswer: its plugin loads no predictor.
    """
    return [_warm.get(member, device) for member in members]


def _load(member: Member, device: str) -> Answering:
    spec, file = member.potential, member.file.verified()
    who = answers.named(spec)
    if not registry().has(spec.kind, spec.name):
        return Answering(Served(spec, file, member.file.digest, device), who)
    with answers.blamed(who):
        return Answering(cast(Potential, build(spec)).load(file, device), who)


class TrainedPotential:
    """A committee that can be used: the outcome of a campaign. Its members may be of several potentials."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)

    def __repr__(self) -> str:
        count = len(self.members)
        of = ", ".join(f"{spec.name} of {spec.distribution} {spec.version}" for spec in self.potentials)
        return f"<TrainedPotential: {'1 member' if count == 1 else f'{count} members'}; {of}>"

    @property
    def potentials(self) -> list[Spec]:
        """What its members are of, each once."""
        return list({member.potential.digest: member.potential for member in self.members}.values())

    def only(self, name: str) -> TrainedPotential:
        """The members of one architecture.

        Raises:
            LookupError: there are none.
        """
        found = [member for member in self.members if member.potential.name == name]
        if not found:
            names = ", ".join(spec.name for spec in self.potentials)
            raise LookupError(f"no member is of potential '{name}'; there are: {names}")
        return TrainedPotential(found)

    def predictor(self, device: str = "cpu") -> Predictor:
        """The mean over the members."""
        members = load_members(self.members, device)
        return members[0] if len(members) == 1 else Committee(members)

    def calculator(self, device: str = "cpu") -> Calculator:
        """An ASE calculator: the committee's mean, its force spread in ``results["deviation"]``."""
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
        """Write specs and weights to a folder that `load` reads, here or elsewhere."""
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
        """Read what `save` wrote.

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
    """Whether there is nothing of this name; of a barred folder that is not known."""
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
        predictor = load_members([member])[0].predictor
        assert isinstance(predictor, Served)
        return predictor.export(folder, stem)
    potential = cast(Potential, build(member.potential))
    target = folder / f"{stem}{potential.native_suffix}"
    with answers.blamed(answers.named(member.potential)):
        potential.export(member.file.verified(), target)
    return answers.exported(target, answers.named(member.potential))
