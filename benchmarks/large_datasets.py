"""One structure of a large file: by an index of its frames, and by parsing all of them with ASE.

    python benchmarks/large_datasets.py [--frames 10000] [--atoms 96] [--rounds 3]

The file is extended XYZ with energies and forces. psiflow counts its lines, and parses the frame that is asked for and
the first one; ASE parses the whole file. The ratio is taken within a round; the file's pages are in memory for both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

import psiflow_core as psiflow
from psiflow_core.structures import Label, with_label


def written(file: Path, frames: int, atoms: int) -> Path:
    """A file of labelled structures, all different."""
    random = np.random.default_rng(0)
    cell = (10 * atoms) ** (1 / 3)
    with file.open("w") as stream:
        for _ in range(frames):
            structure = Atoms(["O", "H", "H"] * (atoms // 3), cell=[cell] * 3, pbc=True)
            structure.positions = random.uniform(0, cell, structure.positions.shape)
            label = Label(-1.0, random.normal(size=structure.positions.shape), np.zeros(6))
            ase.io.write(stream, with_label(structure, label), format="extxyz")
    return file


def by_index(file: Path) -> Atoms:
    data = psiflow.Dataset.load(file)
    return data[len(data) // 2]


def by_parsing(file: Path) -> Atoms:
    structures = ase.io.read(file, ":")
    return structures[len(structures) // 2]


def took(read: Callable[[Path], Atoms], file: Path) -> tuple[float, Atoms]:
    """Wall time [s], and the structure."""
    start = time.perf_counter()
    found = read(file)
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10000)
    parser.add_argument("--atoms", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder) / "large.xyz", asked.frames, asked.atoms)
        by_index(file)  # what is imported when it is first used is no part of it
        rounds = []
        for _ in range(asked.rounds):
            (index, one), (parse, other) = took(by_index, file), took(by_parsing, file)
            assert one == other
            rounds.append((index, parse))
            print(f"one of {asked.frames} frames: by index {index:.3f} s, by parsing all {parse:.3f} s")
    print(f"median ratio {statistics.median(parse / index for index, parse in rounds):.1f}")


if __name__ == "__main__":
    main()
