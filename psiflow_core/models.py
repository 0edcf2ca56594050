"""Trained weights: files known by their content hash, and the potential that they make together."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ase import Atoms

from psiflow_core.components import Potential, Prediction, Predictor, Spec
from psiflow_core.errors import ModelCorrupt
from psiflow_core.files import copy_atomically, file_digest, write_atomically
from psiflow_core.plugins import build
from psiflow_core.predictors import Committee
from psiflow_core.structures import Array, Plain

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

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
            ModelCorrupt: the file is missing or is another.
        """
        if not self.path.is_file():
            raise ModelCorrupt(f"model file {self.path} is missing")
        if file_digest(self.path) != self.digest:
            raise ModelCorrupt(f"model file {self.path} is not the one that was recorded: its hash differs")
        return self.path

    def to_plain(self) -> Plain:
        return {"path": str(self.path), "digest": self.digest}

    @classmethod
    def from_plain(cls, plain: Plain) -> ModelFile:
        return cls(Path(plain["path"]), plain["digest"])


class _Warm:
    """Loaded models of this process, by content; the least recently used goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str, str], Predictor] = OrderedDict()

    def get(self, spec: Spec, file: ModelFile, device: str) -> Predictor:
        key = (spec.digest, file.digest, device)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = cast(Potential, build(spec)).load(file.verified(), device)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._limit:
                self._loaded.popitem(last=False)
            return self._loaded[key]


_warm = _Warm(KEPT_LOADED)


def load_members(spec: Spec, files: Sequence[ModelFile], device: str = "cpu") -> list[Predictor]:
    """The predictors of these models; what this process has loaded before is not loaded again.

    Raises:
        ModelCorrupt: a file is missing or is not the one that was recorded.
    """
    return [_warm.get(spec, file, device) for file in files]


class TrainedPotential:
    """A committee that can be used: the outcome of a campaign."""

    def __init__(self, spec: Spec, members: Sequence[ModelFile]) -> None:
        self.spec = spec
        self.members = list(members)

    def __repr__(self) -> str:
        spec, count = self.spec, len(self.members)
        members = "1 member" if count == 1 else f"{count} members"
        return f"<TrainedPotential {spec.name}: {members}, of {spec.distribution} {spec.version}>"

    def predictor(self, device: str = "cpu") -> Predictor:
        """The mean over the members."""
        members = load_members(self.spec, self.members, device)
        return members[0] if len(members) == 1 else Committee(members)

    def calculator(self, device: str = "cpu") -> Calculator:
        """An ASE calculator: the committee's mean, its force spread in ``results["deviation"]``."""
        return self.predictor(device).calculator()

    def predict(self, structures: Sequence[Atoms], device: str = "cpu") -> list[Prediction]:
        """Energies [eV], forces [eV/Å], stresses [eV/Å³], in one batch."""
        return self.predictor(device).predict(structures)

    def features(self, structures: Sequence[Atoms], device: str = "cpu") -> list[Array]:
        """Invariant per-atom descriptors, as the potential defines them."""
        return self.predictor(device).features(structures)

    def export(self, folder: str | Path) -> list[Path]:
        """Write each member in its architecture's own format; returns the files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        potential = cast(Potential, build(self.spec))
        targets = [folder / f"{self.spec.name}-{number}.model" for number in range(len(self.members))]
        for member, target in zip(self.members, targets, strict=True):
            potential.export(member.verified(), target)
        return targets

    def save(self, folder: str | Path) -> Path:
        """Write spec and weights to a folder that `load` reads, here or elsewhere."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"member-{number}{member.path.suffix}" for number, member in enumerate(self.members)]
        for member, name in zip(self.members, names, strict=True):
            copy_atomically(member.verified(), folder / name)
        members = [{"file": name, "digest": member.digest} for name, member in zip(names, self.members, strict=True)]
        description = json.dumps({"potential": self.spec.to_plain(), "members": members}, indent=1)
        write_atomically(folder / "potential.json", description.encode())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> TrainedPotential:
        """Read what `save` wrote.

        Raises:
            ModelCorrupt: there is no potential in the folder, or a file of it has changed.
        """
        description = Path(folder) / "potential.json"
        if not description.is_file():
            inside = Path(folder) / "potential"
            hint = f"; give {inside}" if (inside / "potential.json").is_file() else ""
            raise ModelCorrupt(f"there is no potential in {folder}: potential.json is missing{hint}")
        plain = json.loads(description.read_text())
        members = [ModelFile(Path(folder) / member["file"], member["digest"]) for member in plain["members"]]
        for member in members:
            member.verified()
        return cls(Spec.from_plain(plain["potential"]), members)
