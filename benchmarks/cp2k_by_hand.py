"""CP2K through psiflow and by hand: the same numbers, and what the way costs.

    python benchmarks/cp2k_by_hand.py [--cutoff 200] [--steps 6] [--repeats 3]

1. One molecule: psiflow's label, and the same input given to the program by hand. Energy and forces must be
   identical to the last printed digit; wall times are taken in turns.
2. Neighbouring structures, as a walker makes them: from scratch, from the orbitals of the last one, and in one
   persistent process (`cp2k --shell`), which starts once and extrapolates orbitals by itself.

Energies in eV, forces in eV/Å, times in seconds of wall and of processor.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree
from psiflow_cp2k import _run_input, _start
from psiflow_cp2k._structure import box_edge
from psiflow_cp2k.reference import CP2K

from psiflow_core.components import LabelTask
from psiflow_core.structures import Array, Label

COMMAND = ("cp2k.psmp", "-i", "label.inp", "-o", "label.out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cutoff", type=float, default=200.0, help="plane-wave cut-off [Ry]")
    parser.add_argument("--vacuum", type=float, default=3.0, help="around the molecule [Å]")
    parser.add_argument("--steps", type=int, default=6, help="neighbouring structures")
    parser.add_argument("--repeats", type=int, default=3, help="of the label that is computed both ways")
    given = parser.parse_args()
    options = CP2K(cutoff=given.cutoff, vacuum=given.vacuum, start_from_last=False)
    water = molecule("H2O")
    water.rattle(0.05, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        against_hand(options, water, given.repeats, Path(folder))
        neighbours(options, water, given.steps, Path(folder))


def against_hand(options: CP2K, atoms: Atoms, repeats: int, folder: Path) -> None:
    ours, theirs = [], []
    for repeat in range(repeats):
        place = folder / f"psiflow-{repeat}"
        label, *times = timed(lambda place=place: options.label(atoms, LabelTask(place)))
        ours.append(times)
        by_hand = folder / f"hand-{repeat}"
        by_hand.mkdir()
        shutil.copy(place / "run-0" / "label.inp", by_hand)
        _, *times = timed(lambda by_hand=by_hand: subprocess.run(COMMAND, cwd=by_hand, check=True))
        theirs.append(times)
        energy, forces = printed(by_hand)
        assert label.energy == energy, (label.energy, energy)
        assert np.array_equal(label.forces, forces - forces.mean(axis=0))
    (wall, cpu), (hand_wall, hand_cpu) = (np.median(np.array(times), axis=0) for times in (ours, theirs))
    print(f"energy and forces identical to the last digit, {repeats} times")
    print(f"psiflow {wall:.2f} s wall, {cpu:.2f} s processor; by hand {hand_wall:.2f}, {hand_cpu:.2f}")
    print(f"ratio {wall / hand_wall:.3f} wall, {cpu / hand_cpu:.3f} processor")


def neighbours(options: CP2K, atoms: Atoms, steps: int, folder: Path) -> None:
    walk = [atoms.copy() for _ in range(steps)]
    for number, one in enumerate(walk):
        one.positions += 0.02 * number * np.random.default_rng(0).normal(size=one.positions.shape)
    scratch = labels(options, walk, folder / "scratch")
    reuse = labels(options.model_copy(update={"start_from_last": True}), walk, folder / "reuse")
    shell = persistent(options, walk, folder / "shell")
    for name, (found, wall, cpu) in {"from scratch": scratch, "last orbitals": reuse, "cp2k --shell": shell}.items():
        energy = max(abs(a.energy - b.energy) for a, b in zip(found, scratch[0], strict=True))
        force = max(float(abs(a.forces - b.forces).max()) for a, b in zip(found, scratch[0], strict=True))
        print(
            f"{name:14} {wall:.2f} s wall, {cpu:.2f} s processor a label after the first; off by {energy:.1e} eV, ",
            end="",
        )
        print(f"{1000 * force:.4f} meV/Å")


def labels(options: CP2K, walk: list[Atoms], folder: Path) -> tuple[list[Label], float, float]:
    _start.forget()
    done = [timed(lambda n=n, one=one: options.label(one, LabelTask(folder / f"{n}"))) for n, one in enumerate(walk)]
    return summary(done)


def persistent(options: CP2K, walk: list[Atoms], folder: Path) -> tuple[list[Label], float, float]:
    """What CP2K's own interactive mode makes of the walk: one process for all, in one fixed box."""
    folder.mkdir()
    _run_input.write(_run_input.of(options, walk[0]), folder)
    process = subprocess.Popen(
        ["cp2k.psmp", "--shell"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin
    assert process.stdout

    def ask(*lines: str) -> list[str]:
        print(*lines, sep="\n", file=process.stdin, flush=True)
        said = []
        while (line := process.stdout.readline().strip()) != "* READY":
            said.append(line)
        return said

    def one_label(atoms: Atoms) -> Label:
        centred = atoms.positions - atoms.positions.mean(axis=0) + middle
        ask("SET_POS 1", str(centred.size), *(f"{x:.15f}" for x in centred.ravel() / Bohr), "*END")
        ask("EVAL_EF 1")
        energy = float(ask("GET_E 1")[-1]) * Hartree
        numbers = [float(word) for line in ask("GET_F 1")[1:] for word in line.split() if word not in ("*", "END")]
        forces = np.array(numbers).reshape(-1, 3) * (Hartree / Bohr)
        return Label(energy, forces - forces.mean(axis=0))

    middle = box_edge(options, walk[0]) / 2
    while process.stdout.readline().strip() != "* READY":
        pass
    ask("UNITS_AU")
    ask("LOAD label.inp label.out")
    before = cpu_of(process.pid)
    done = []
    for one in walk:
        start, used = time.perf_counter(), cpu_of(process.pid)
        label = one_label(one)
        done.append((label, time.perf_counter() - start, cpu_of(process.pid) - used))
    assert cpu_of(process.pid) > before
    print("EXIT", file=process.stdin, flush=True)
    process.wait(30)
    return summary(done)


def timed(work: Callable[[], Label | object]) -> tuple[object, float, float]:
    """What it returns, seconds of wall, seconds of processor of its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = work()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return result, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def summary(done: list[tuple[Label, float, float]]) -> tuple[list[Label], float, float]:
    labels, walls, cpus = zip(*done, strict=True)
    return list(labels), statistics.mean(walls[1:]), statistics.mean(cpus[1:])


def cpu_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def printed(folder: Path) -> tuple[float, Array]:
    """Energy and forces as CP2K printed them."""
    energy = next(line for line in (folder / "label.out").read_text().splitlines() if line.startswith(" ENERGY|"))
    rows = [row.split() for row in (folder / "label-forces-1_0.xyz").read_text().splitlines()]
    forces = np.array([row[3:6] for row in rows if len(row) == 6 and row[0].isdigit()], float)
    return float(energy.split()[-1]) * Hartree, forces * (Hartree / Bohr)


if __name__ == "__main__":
    main()
