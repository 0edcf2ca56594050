"""`results.json`: the hashes of a campaign's result files, and the number of the event they belong to."""

from __future__ import annotations

from pathlib import Path

from psiflow_core.errors import FileCorrupt
from psiflow_core.files import believing, file_digest, read_sealed, write_sealed
from psiflow_core.learning.driver.folder import Store
from psiflow_core.learning.machine.state import State
from psiflow_core.potentials.trained import ModelFile


def missing_results(store: Store, state: State) -> list[str]:
    """Result files that are missing or damaged; `results.json` itself if it is unreadable or of another state."""
    try:
        with believing(store.results_file):
            vouched = read_sealed(store.results_file)
            event, files = vouched["event"], dict(vouched["files"])
    except FileCorrupt:
        return [store.results_file.name]
    if event != state.last:
        return [store.results_file.name]
    return [name for name, known in files.items() if not _is(store.folder / name, known)]


def vouch_for(store: Store, file: Path) -> None:
    """Update the hash of a rewritten result in `results.json`, if that exists."""
    try:
        vouched = read_sealed(store.results_file)
    except FileCorrupt:
        return
    vouched["files"] = {**vouched["files"], store.relative(str(file)): file_digest(file)}
    write_sealed(store.results_file, vouched, durable=True)


def _is(file: Path, known: str) -> bool:
    """Whether a result exists and is intact."""
    try:
        ModelFile(file, known).verified()
    except FileCorrupt:
        return False
    return True
