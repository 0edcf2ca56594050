"""A walker's state for exact continuation, and the check that it belongs to the walker."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from psiflow_core.constraints import fixed_atoms
from psiflow_core.errors import StructureError
from psiflow_core.structures import Plain, canonical

FORMAT = b"psiflow-openmm-2\n"


class State(NamedTuple):
    checkpoint: bytes
    """OpenMM's checkpoint: positions, velocities, and the variables of a deterministic thermostat."""
    noise: Plain | None
    """Langevin's random stream; None without it."""
    barostat: Plain | None
    """The barostat's random stream and step size; None without one."""


def pack(state: State, owner: str) -> bytes:
    """The state as bytes, preceded by the hash of its owner."""
    header = canonical({"owner": owner, "noise": state.noise, "barostat": state.barostat})
    return FORMAT + header + b"\n" + state.checkpoint


def check(packed: bytes | None) -> None:
    """Refuse the state of another sampler; raises `StructureError`."""
    if packed is not None and not packed.startswith(FORMAT):
        raise StructureError("the walker's state is not of sampler 'openmm'; start the walker without a state")


def unpack(packed: bytes | None, owner: str) -> State | None:
    """The state, or None if there is none, or it belongs to another structure, other options or another OpenMM.

    OpenMM loads the checkpoint of another system without an error; hence the hash of the owner.

    Raises:
        StructureError: the state belongs to another sampler.
    """
    check(packed)
    if packed is None:
        return None
    header, _, checkpoint = packed.removeprefix(FORMAT).partition(b"\n")
    held: dict[str, Any] = json.loads(header)
    return State(checkpoint, held["noise"], held["barostat"]) if held["owner"] == owner else None


def owner(structure: Atoms, options: Plain, engine: str) -> str:
    """A hash over everything that must be equal for a state to be continued.

    Args:
        structure: the end of the segment; positions, momenta, cell, masses and fixed atoms count, to the last bit.
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
        fixed_atoms(structure),
    )
    for array in arrays:
        hasher.update(np.ascontiguousarray(array, "<f8").tobytes() + b"|")
    return hasher.hexdigest()
