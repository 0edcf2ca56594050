"""What a walker takes along to go on exactly, and how we know that it is its own."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from psiflow_core.errors import StructureError
from psiflow_core.structures import Plain, canonical

FORMAT = b"psiflow-openmm-2\n"


class State(NamedTuple):
    checkpoint: bytes
    """OpenMM's: positions, velocities, and what a deterministic thermostat keeps."""
    noise: Plain | None
    """Langevin's random stream; None without it."""
    barostat: Plain | None
    """None without one."""


def pack(state: State, owner: str) -> bytes:
    """The state as bytes, with the name of its owner in front."""
    header = canonical({"owner": owner, "noise": state.noise, "barostat": state.barostat})
    return FORMAT + header + b"\n" + state.checkpoint


def check(packed: bytes | None) -> None:
    """Refuse what another sampler wrote; raises `StructureError`."""
    if packed is not None and not packed.startswith(FORMAT):
        raise StructureError("the walker's state is not of sampler 'openmm'; start it anew, without a state")


def unpack(packed: bytes | None, owner: str) -> State | None:
    """The state, or None if there is none, or it belongs to another structure, other options or another OpenMM.

    OpenMM loads the checkpoint of another system without a complaint, hence the owner.

    Raises:
        StructureError: another sampler wrote it.
    """
    check(packed)
    if packed is None:
        return None
    header, _, checkpoint = packed.removeprefix(FORMAT).partition(b"\n")
    said: dict[str, Any] = json.loads(header)
    return State(checkpoint, said["noise"], said["barostat"]) if said["owner"] == owner else None


def owner(structure: Atoms, options: Plain, engine: str) -> str:
    """A hash over all that must be the same for a state to be continued.

    Args:
        structure: where the segment ended; positions, momenta, cell and masses count to the last bit.
        options: the sampler's.
        engine: version of OpenMM.
    """
    hasher = hashlib.sha256(canonical({"options": options, "engine": engine, "pbc": structure.pbc.tolist()}))
    arrays = (
        structure.numbers,
        structure.get_masses(),
        structure.positions,
        structure.get_momenta(),
        structure.cell,
    )
    for array in arrays:
        hasher.update(np.ascontiguousarray(array, "<f8").tobytes() + b"|")
    return hasher.hexdigest()
