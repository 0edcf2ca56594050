"""What a campaign leaves behind: the potential, the data set as extended XYZ, and the report."""

from __future__ import annotations

import io
from pathlib import Path

import ase.io
from ase import Atoms

from psiflow_core.errors import FileCorrupt
from psiflow_core.files import believing, file_digest, read_sealed, write_atomically, write_sealed, writing
from psiflow_core.learning.campaign import Candidate, State
from psiflow_core.learning.dispatch import Dispatch
from psiflow_core.models import DESCRIPTION, ModelFile, TrainedPotential
from psiflow_core.store import Store
from psiflow_core.tasks import read_label


def missing_results(store: Store, state: State) -> list[str]:
    """The files of the results that are not there, or not what this state came to; all of them where nobody knows."""
    try:
        with believing(store.results_file):
            vouched = read_sealed(store.results_file)
            event, files = vouched["event"], dict(vouched["files"])
    except FileCorrupt:
        return [store.results_file.name]
    if event != state.last:
        return [store.results_file.name]
    return [name for name, known in files.items() if not _is(store.folder / name, known)]


def write_results(store: Store, state: State, dispatch: Dispatch) -> None:
    """Write `potential/`, `dataset.xyz` and `report.html`; called again, it writes the same.

    `results.json` is written last, and vouches for them.

    Raises:
        CampaignError: the folder cannot be written.
    """
    from psiflow_core.report.page import write_report

    with writing(store.folder):
        text = io.StringIO()
        ase.io.write(text, dataset(store, state), format="extxyz")
        write_atomically(store.folder / "dataset.xyz", text.getvalue().encode(errors="backslashreplace"))
        files = [store.folder / "dataset.xyz", write_report(store.folder)]
        if state.newest is not None:
            TrainedPotential(dispatch.members(state.newest)).save(store.potential)
            kept = TrainedPotential.load(store.potential)
            files += [store.potential / DESCRIPTION, *(member.file.path for member in kept.members)]
        vouched = {store.relative(str(file)): file_digest(file) for file in files}
        write_sealed(store.results_file, {"event": state.last, "files": vouched}, durable=True)


def vouch_for(store: Store, file: Path) -> None:
    """Have `results.json` know a result that was written anew, where it vouches for any."""
    try:
        vouched = read_sealed(store.results_file)
    except FileCorrupt:
        return
    vouched["files"] = {**vouched["files"], store.relative(str(file)): file_digest(file)}
    write_sealed(store.results_file, vouched, durable=True)


def _is(file: Path, known: str) -> bool:
    """Whether a result is there, and is what was written."""
    try:
        ModelFile(file, known).verified()
    except FileCorrupt:
        return False
    return True


def dataset(store: Store, state: State) -> list[Atoms]:
    """Every labelled structure, isolated atoms apart, with its provenance in ``info``."""
    return [_with_provenance(store, candidate) for candidate in state.candidates if _belongs(candidate)]


def _belongs(candidate: Candidate) -> bool:
    return candidate.status == "labelled" and candidate.origin != "atom"


def _with_provenance(store: Store, candidate: Candidate) -> Atoms:
    structure, _ = read_label(store.absolute(candidate.file or ""))
    known = {
        "candidate": candidate.id,
        "origin": candidate.origin,
        "subset": candidate.subset,
        "status": "discarded" if candidate.discarded else candidate.status,
        "walker": candidate.walker,
        "segment": candidate.segment,
        "generation": candidate.generation,
        "deviation": candidate.deviation,
        "structure_hash": candidate.structure,
        "suspicious": candidate.suspicious or None,
    }
    structure.info.update({f"psiflow_{key}": value for key, value in known.items() if value is not None})
    return structure
