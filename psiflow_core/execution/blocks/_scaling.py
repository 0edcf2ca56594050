"""How many blocks a pool needs: pure functions of the demand and of what is there."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """The limits of a pool."""

    blocks: int
    """The most blocks at once."""
    min_blocks: int
    """Blocks that are kept without tasks."""
    workers: int
    """Workers of one block."""
    idle: float
    """An idle block is given back after this time. [s]"""


@dataclass(frozen=True)
class Supplied:
    """One block that has not ended."""

    block: str
    workers: int
    """Workers that take tasks, or will: those of a block that waits or starts are expected."""
    tasks: int
    idle: float
    """How long it has been of no use. [s]"""
    useless: bool = False
    """None of its workers takes another task, and all its tasks have ended."""


def missing(size: Size, demand: int, blocks: Collection[Supplied]) -> int:
    """Number of blocks to submit now."""
    short = demand - sum(one.workers for one in blocks)
    wanted = max(math.ceil(short / size.workers), size.min_blocks - len(blocks), 0)
    return min(wanted, max(0, size.blocks - len(blocks)))


def surplus(size: Size, demand: int, blocks: Sequence[Supplied]) -> list[str]:
    """Blocks to give back now: useless ones, and idle ones that the demand does not need, the longest idle first."""
    given = [one.block for one in blocks if one.useless]
    useful = [one for one in blocks if not one.useless]
    workers, left = sum(one.workers for one in useful), len(useful)
    for one in sorted(useful, key=lambda one: -one.idle):
        if one.tasks or one.idle < size.idle or left <= size.min_blocks or workers - one.workers < demand:
            continue
        given.append(one.block)
        workers, left = workers - one.workers, left - 1
    return given


def pause(failures: int, longest: float = 60.0) -> float:
    """Time until the next attempt after so many failures in a row. [s]"""
    return float(min(longest, 2 ** min(failures, 10) / 2)) if failures else 0.0
