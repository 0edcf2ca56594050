"""The state of a walker between two segments, in the format of the core's samplers."""

from __future__ import annotations

import numpy as np

from psiflow_core.components import Walker
from psiflow_core.errors import StructureError
from psiflow_core.structures import Plain


def write_state(sampler: str, state: Plain) -> bytes:
    """ASE's JSON, which keeps arrays exactly."""
    from ase.io.jsonio import encode

    return bytes(encode({"sampler": sampler, **state}).encode())


def read_state(sampler: str, walker: Walker) -> Plain:
    """The state written by `write_state`; empty at a walker's start.

    Args:
        sampler: the name of the reading sampler.

    Raises:
        StructureError: another sampler wrote it.
    """
    from ase.io.jsonio import decode

    if walker.state is None:
        return {}
    stranger = StructureError(f"the walker's state is not of sampler '{sampler}'; start it anew, without a state")
    try:
        state = dict(decode(walker.state.decode(), always_array=False))
    except (ValueError, TypeError) as error:
        raise stranger from error
    if state.get("sampler") != sampler:
        raise stranger
    return state


def random_stream(state: Plain, seed: int) -> np.random.Generator:
    """The random numbers of a walker: the stream of its state continues; without one, the seed starts it."""
    rng = np.random.default_rng(seed)
    if "rng" in state:
        rng.bit_generator.state = state["rng"]
    return rng
