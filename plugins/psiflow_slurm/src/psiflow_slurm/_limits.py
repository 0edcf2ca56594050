"""Limits of partitions, as `sinfo` prints them: SLURM itself queues jobs that exceed them, and never starts these."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from psiflow_slurm.options import SlurmOptions

FORMAT = "%P|%l|%D|%c|%m"
"""Of `sinfo`: partition, time limit, nodes, and CPUs and memory [MiB] of each, one line for equal nodes."""


@dataclass(frozen=True)
class Partition:
    """A partition, or its nodes of one kind."""

    name: str
    limit: str
    """The longest wall time of a job, as SLURM writes it."""
    nodes: int
    cores: float
    """Of a node, as SLURM counts them."""
    memory: float
    """Of a node. [MiB]"""
    default: bool

    @property
    def seconds(self) -> float:
        """The longest wall time of a job. [s]"""
        found = re.fullmatch(r"(?:(\d+)-)?((?:\d+:)*\d+)", self.limit)
        if found is None:  # "infinite"
            return float("inf")
        hours, minutes, rest = [0, 0, *map(int, found[2].split(":"))][-3:]
        return float(((24 * int(found[1] or 0) + hours) * 60 + minutes) * 60 + rest)

    def with_nodes(self, other: Partition) -> Partition:
        """This partition with more nodes, of another kind."""
        cores, memory = max(self.cores, other.cores), max(self.memory, other.memory)
        return replace(self, nodes=self.nodes + other.nodes, cores=cores, memory=memory)


def partitions(printed: str) -> list[Partition]:
    """The partitions in the output of `sinfo`."""
    found: dict[str, Partition] = {}
    for line in printed.splitlines():
        name, limit, nodes, cores, memory = (one.strip() for one in line.split("|"))
        name, default = name.removesuffix("*"), name.endswith("*")
        one = Partition(name, limit, int(nodes), _at_most(cores), _at_most(memory), default)
        found[name] = found[name].with_nodes(one) if name in found else one
    return list(found.values())


def told(found: list[Partition]) -> str:
    """All partitions, in one line."""
    return ", ".join(f"{one.name}{' (the default)' if one.default else ''} up to {one.limit}" for one in found)


def excess(options: SlurmOptions, found: list[Partition]) -> str:
    """The limit that a job exceeds in each of its partitions; empty if none, or if a `qos` may have other limits."""
    asked = (options.partition or "").split(",")
    those = [one for one in found if (one.name in asked if options.partition else one.default)]
    if options.qos or not those:
        return ""
    reasons = [_excess(options, one) for one in those]
    return "; ".join(reasons) if all(reasons) else ""


def _excess(options: SlurmOptions, partition: Partition) -> str:
    """The first limit of a partition that a job exceeds; empty without any."""
    asked = {
        f"walltime: {options.walltime or 0:g} s": (options.walltime or 0.0, partition.seconds, partition.limit),
        f"nodes: {options.nodes}": (options.nodes, partition.nodes, str(partition.nodes)),
        f"cores: {options.cores}": (options.cores, partition.cores, f"{partition.cores:g} on a node"),
        f"memory: {options.memory or 0:g} GiB": (
            *(1024 * (options.memory or 0.0), partition.memory),
            f"{partition.memory / 1024:.4g} GiB on a node",
        ),
    }
    for words, (wanted, limit, told) in asked.items():
        if wanted > limit:
            return f"{words} is more than partition '{partition.name}' has: {told}"
    return ""


def _at_most(printed: str) -> float:
    """A number; infinite for `2+`, which stands for 2 and more."""
    return float("inf") if printed.endswith("+") else float(printed)
