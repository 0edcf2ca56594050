"""The results of a campaign: the potential, the data set as extended XYZ, the report, and trajectories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from psiflow_core.files import file_digest, write_atomically, write_sealed, writing
from psiflow_core.labels.dataset import Dataset
from psiflow_core.labels.frames import StoredLabel
from psiflow_core.labels.provenance import Provenance, Scalar
from psiflow_core.labels.reading import read
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.driver.orders import Orders, evaluated
from psiflow_core.learning.driver.request import Recorded
from psiflow_core.learning.machine.candidates import Candidate
from psiflow_core.learning.machine.events import Moved, Sampled, Started
from psiflow_core.learning.machine.state import State
from psiflow_core.learning.machine.tasks import Sampling, Task
from psiflow_core.potentials.trained import DESCRIPTION, TrainedPotential


def write_results(store: Store, state: State, orders: Orders) -> None:
    """Write `potential/`, `dataset.xyz` and `report.html`; a repeated call writes the same files.

    `results.json` is written last, with the hashes of all these files.

    Raises:
        CampaignError: the folder cannot be written.
    """
    from psiflow_core.report.page import write_report

    with writing(store.folder):
        files = [_write_dataset(store, state), write_report(store.folder)]
        if state.newest is not None:
            TrainedPotential(orders.members(state.newest)).save(store.potential)
            kept = TrainedPotential.load(store.potential)
            files += [store.potential / DESCRIPTION, *(member.file.path for member in kept.members)]
        vouched = {store.relative(str(file)): file_digest(file) for file in files}
        write_sealed(store.results_file, {"event": state.last, "files": vouched}, durable=True)


def _write_dataset(store: Store, state: State) -> Path:
    target, labelled = store.folder / "dataset.xyz", dataset(store, state)
    if labelled:
        return labelled.save(target)
    write_atomically(target, b"")
    return target


def dataset(store: Store, state: State) -> Dataset:
    """All labelled structures except isolated atoms, with their provenance."""
    return Dataset.of(_stored(store, candidate) for candidate in state.candidates if evaluated(candidate))


def _stored(store: Store, candidate: Candidate) -> StoredLabel:
    known: dict[str, Scalar | None] = {
        "candidate": candidate.id,
        "subset": candidate.subset,
        "status": "discarded" if candidate.discarded else candidate.status,
        "walker": candidate.walker,
        "segment": candidate.segment,
        "generation": candidate.generation,
        "deviation": candidate.deviation,
        "structure_hash": candidate.structure,
        "suspicious": candidate.suspicious or None,
    }
    extra = {name: value for name, value in known.items() if value is not None}
    provenance = Provenance(origin=candidate.origin, extra=extra)
    return StoredLabel(store.absolute(candidate.file or ""), provenance, _fixed(store, candidate))


def _fixed(store: Store, candidate: Candidate) -> tuple[int, ...] | None:
    """The fixed atoms of a candidate; None if its structure file is lost, so that those of the label are used."""
    if not store.has_structure(candidate.structure):
        return None
    return tuple(store.structure(candidate.structure)["structure"].get("fixed", ()))


@dataclass(frozen=True)
class SegmentTrajectory:
    """The stored frames of one segment of a walker (`Segments.stride`)."""

    walker: int
    segment: int
    """The segment's number for this walker, counted from 1."""
    generation: int
    """The generation of the model that moved the walker."""
    file: Path

    @property
    def frames(self) -> list[Atoms]:
        """The frames, read from the file: with momenta, and the energy and forces that moved the walker, bias included.

        Raises:
            StructureError: the file is missing or cannot be read.
        """
        return read(self.file)


def trajectories(campaign: Recorded) -> Iterator[SegmentTrajectory]:
    """The segments with stored frames, in the order in which they ended."""
    generations: dict[str, int] = {}
    segments: Counter[int] = Counter()
    for event in campaign.events:
        match event.what:
            case Started(task=Task(about=Sampling() as about) as task):
                generations[task.id] = about.generation
            case Sampled(task=name, walkers=walkers):
                for moved in walkers:
                    segments[moved.walker] += 1
                    if isinstance(moved, Moved) and moved.trajectory:
                        file = campaign.store.absolute(moved.trajectory)
                        yield SegmentTrajectory(moved.walker, segments[moved.walker], generations[name], file)
