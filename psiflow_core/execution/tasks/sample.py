"""One segment of each of several walkers, moved by the first model and monitored by the whole committee."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self, cast

from ase import Atoms
from pydantic import NonNegativeInt

from psiflow_core import answers
from psiflow_core.components import Memory, Sampler, SamplingTask, Segment, Spec, Walker
from psiflow_core.execution import scratch
from psiflow_core.execution.failures import Failure, failure
from psiflow_core.execution.tasks.acting import acting, plugins_of
from psiflow_core.execution.tasks.committee import loaded, potentials
from psiflow_core.execution.tasks.request import Finite, Grant, Request, Result, Work
from psiflow_core.files import file_digest, holds, may_be_late, read_json, replacing, write_atomically, write_json
from psiflow_core.identity import Place, Structure, Typed
from psiflow_core.labels.store import structure_file, write_structure
from psiflow_core.potentials.predictors import Committee
from psiflow_core.potentials.trained import Member, ModelFile
from psiflow_core.registry.engines import require_engine
from psiflow_core.registry.plugins import build
from psiflow_core.sampling.bias import WalkerBias
from psiflow_core.sampling.monitor import Checked, Limits
from psiflow_core.sampling.walk import Visited, sample_together
from psiflow_core.structures import Plain, digest, from_plain, to_plain


class Met(Result):
    """A candidate."""

    structure: str
    """Its content hash."""
    deviation: float
    """The committee's largest force spread. [eV/Å]"""
    step: int


class Ended(Result):
    """A walker whose segment has ended."""

    walker: int
    file: str
    """The file of its state, relative to the task's folder."""
    digest: str
    """The file's hash."""
    steps: NonNegativeInt
    stopped: str | None
    """The monitor's reason; None if the segment ran to its end."""
    finished: bool
    """Whether the trajectory has converged and ended."""
    averages: dict[str, Finite]
    """As `Segment.averages`."""
    cut: bool = False
    """Whether the segment was shortened, because its block ended."""
    trajectory: str | None = None
    """The file of its frames, relative to the task's folder."""
    trajectory_digest: str | None = None
    """Its hash."""
    candidate: Met | None = None

    def files(self, folder: Path) -> list[ModelFile]:
        """The walker's state and its frames, in the task's folder."""
        state = ModelFile(folder / self.file, self.digest)
        if self.trajectory is None:
            return [state]
        return [state, ModelFile(folder / self.trajectory, self.trajectory_digest or "")]


class Lost(Result):
    """A walker whose segment failed."""

    walker: int
    failure: Failure
    candidate: Met | None = None


class Sampled(Result):
    walkers: list[Ended | Lost]


class WalkerStart(Typed):
    """A walker before its segment: at a structure, or at the end of its last segment."""

    walker: int
    """Its number."""
    seed: int
    structure: Structure | None = None
    """Its starting structure; None if it has moved."""
    file: ModelFile | None = None
    """Its state at the end of its last segment; None if it has not moved."""
    bias: tuple[Spec, ...] = ()
    """The biases that act on it."""

    def set_off(self) -> Walker:
        """The walker; raises `ModelCorrupt`, `FileCorrupt`."""
        return Walker(cast(Atoms, self.structure)) if self.file is None else read_walker(self.file)

    def biased(self, walker: Walker, sampler: Sampler) -> WalkerBias | None:
        """Its biases with their memories; None without any."""
        if not self.bias:
            return None
        kept = [] if self.file is None else _written(self.file)["bias"]
        return WalkerBias([acting(spec) for spec in self.bias], walker, kept, sampler.target_temperature())


class SamplingRequest(Request):
    """Move walkers by a segment."""

    kind: ClassVar[str] = "sample"
    work: ClassVar[Work] = "sample"
    result: ClassVar[type[Result]] = Sampled
    stops: ClassVar[bool] = True

    sampler: Spec
    models: tuple[Member, ...]
    """The committee; its first member moves the walkers."""
    walkers: tuple[WalkerStart, ...]
    steps: int
    check_every: int
    stride: int | None = None
    limits: Limits
    candidates: Place
    """The folder for candidates."""

    @property
    def needs(self) -> tuple[Spec, ...]:
        return (*plugins_of([self.sampler, *(spec for start in self.walkers for spec in start.bias)]), *self.asks[:1])

    @property
    def asks(self) -> tuple[Spec, ...]:
        return potentials(self.models)

    def result_files(self, result: Result) -> list[ModelFile]:
        assert isinstance(result, Sampled)
        ended = [one for one in result.walkers if isinstance(one, Ended)]
        return [file for one in ended for file in one.files(self.own_folder)]

    def is_late(self, result: Result) -> bool:
        assert isinstance(result, Sampled)
        met = [one.candidate.structure for one in result.walkers if one.candidate is not None]
        return super().is_late(result) or any(may_be_late(structure_file(self.candidates, key)) for key in met)

    def apart(self, folder: Path) -> Self:
        return super().apart(folder).model_copy(update={"candidates": folder / "structures"})

    def objection(self, result: Result) -> str | None:
        assert isinstance(result, Sampled)
        if [one.walker for one in result.walkers] != [start.walker for start in self.walkers]:
            return "its walkers are not those of the request"
        return None

    def run(self, grant: Grant) -> Sampled:
        sampler = cast(Sampler, build(self.sampler))
        require_engine(sampler)
        members = loaded(self.models, grant)
        walkers = [start.set_off() for start in self.walkers]
        biases = [start.biased(walker, sampler) for start, walker in zip(self.walkers, walkers, strict=True)]
        attempt = self.attempt()
        with scratch.inside(attempt):
            visits = sample_together(
                sampler,
                walkers,
                [self._task(start, grant) for start in self.walkers],
                driving=members[0],
                committee=Committee(members),
                limits=self.limits,
                biases=biases,
                who=answers.named(self.sampler),
                whole=False,
            )
        seen = [visit.most_uncertain for visit in visits if visit.most_uncertain]
        answers.disagreeing(members, [(checked.structure, checked.prediction) for checked in seen])
        ended = zip(self.walkers, visits, biases, strict=True)
        return Sampled(walkers=[self._visited(start.walker, visit, attempt, bias) for start, visit, bias in ended])

    def _task(self, start: WalkerStart, grant: Grant) -> SamplingTask:
        return SamplingTask(self.steps, start.seed, self.check_every, self.stride, grant.resources)

    def _visited(self, number: int, visit: Visited, folder: Path, bias: WalkerBias | None) -> Ended | Lost:
        """The result of one walker; walker, trajectory and candidate are written to files."""
        met = _write_candidate(visit.most_uncertain, self.candidates) if visit.most_uncertain else None
        if visit.segment is None:
            error = cast(BaseException, visit.error)
            return Lost(walker=number, failure=failure(error, folder), candidate=met)
        segment = visit.segment
        file, frames = folder / f"walker-{number}.json", folder / f"walker-{number}.xyz"
        write_json(file, _plain(segment.walker, bias.to_plain() if bias else ()))
        if segment.frames:
            _write_trajectory(frames, segment.frames)
        return Ended(
            walker=number,
            file=self._inside(file),
            digest=file_digest(file),
            steps=segment.steps,
            stopped=segment.stopped,
            finished=segment.finished,
            cut=visit.cut,
            averages=segment.averages,
            trajectory=self._inside(frames) if segment.frames else None,
            trajectory_digest=file_digest(frames) if segment.frames else None,
            candidate=met,
        )

    def _inside(self, file: Path) -> str:
        """The path of a file relative to the task's folder, which can be moved."""
        return str(file.relative_to(self.own_folder))


def read_walker(file: ModelFile) -> Walker:
    """A walker at the end of its last segment; raises `ModelCorrupt`, `FileCorrupt`."""
    return _walker_in(_written(file))


def read_segment(folder: Path, told: Ended) -> tuple[Segment, list[Memory]]:
    """The segment of a walker, and the memories of its biases.

    Args:
        folder: the task's folder.

    Raises:
        ModelCorrupt, FileCorrupt: a file is missing or damaged.
    """
    state, *trajectory = told.files(folder)
    written, frames = _written(state), [atoms for file in trajectory for atoms in _read_trajectory(file.verified())]
    walker, memories = _walker_in(written), [Memory.from_plain(one) for one in written.get("bias", ())]
    return Segment(walker, told.steps, told.stopped, told.finished, frames, told.averages), memories


def keep_walker(folder: Path, walker: Walker, memories: Sequence[Memory]) -> ModelFile:
    """Store a walker under its content hash."""
    content = json.dumps(_plain(walker, [memory.to_plain() for memory in memories])).encode()
    digest = hashlib.sha256(content).hexdigest()
    file = folder / f"{digest}.json"
    if not holds(file, content):
        write_atomically(file, content)
    return ModelFile(file, digest)


def _walker_in(written: Plain) -> Walker:
    state = written["state"]
    return Walker(from_plain(written["structure"]), None if state is None else base64.b64decode(state), written["step"])


def _written(file: ModelFile) -> Plain:
    return read_json(file.verified(), ("structure", "state", "step"))


def _plain(walker: Walker, memories: Sequence[Plain]) -> Plain:
    written: Plain = {
        "structure": to_plain(walker.structure),
        "state": None if walker.state is None else base64.b64encode(walker.state).decode(),
        "step": walker.step,
    }
    return written | ({"bias": list(memories)} if memories else {})


def _read_trajectory(file: Path) -> list[Atoms]:
    import ase.io

    return list(ase.io.read(file, index=":", format="extxyz"))


def _write_trajectory(file: Path, frames: Sequence[Atoms]) -> None:
    import ase.io

    with replacing(file, durable=False) as temporary:
        ase.io.write(temporary, list(frames), format="extxyz")


def _write_candidate(checked: Checked, structures: Path) -> Met:
    """Store the structure with the committee's prediction, for the comparison with its label."""
    structure = checked.structure
    structure.arrays.pop("momenta", None)
    write_structure(structures, structure, prediction=checked.prediction.to_plain())
    return Met(structure=digest(structure), deviation=checked.deviation, step=checked.step)
