"""What a campaign leaves behind: the potential, the data set as extended XYZ, and the report."""

from __future__ import annotations

import io
import json

import ase.io
from ase import Atoms

from psiflow_core.files import write_atomically, write_json
from psiflow_core.learning.campaign import Candidate, State
from psiflow_core.learning.dispatch import Dispatch
from psiflow_core.models import TrainedPotential
from psiflow_core.store import Store
from psiflow_core.tasks import read_label


def results_are_written(store: Store, state: State) -> bool:
    """Whether what lies in the folder is what this state came to."""
    return store.results_file.is_file() and json.loads(store.results_file.read_text())["event"] == state.last


def write_results(store: Store, state: State, dispatch: Dispatch) -> None:
    """Write `potential/`, `dataset.xyz` and `report.html`; called again, it writes the same."""
    from psiflow_core.report.page import write_report

    newest = state.newest
    if newest is not None:
        TrainedPotential(dispatch.members(newest)).save(store.potential)
    text = io.StringIO()
    ase.io.write(text, dataset(store, state), format="extxyz")
    write_atomically(store.folder / "dataset.xyz", text.getvalue().encode(errors="backslashreplace"))
    write_report(store.folder)
    write_json(store.results_file, {"event": state.last})


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
