"""PySCF's labels against ORCA's at the same level of theory, PBE/def2-SVP.

    python benchmarks/pyscf_against_orca.py PATH N [--cores C] [--grid-level L]

PATH holds `test_MD.xyz` (energies and forces) and `isolated_atoms.xyz`: ethanol of BOTNet-datasets, labelled
with ORCA 4.2, VeryTightSCF, Grid 7. N structures are taken, evenly spread over the file.

Two energies are compared: against isolated atoms, and against the mean of the N structures, which is
what a potential learns. The data set's atoms are in their lowest multiplicity (C and O
restricted singlets, H a doublet), so the atoms are computed like that here. The forces are absolute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import ase.io
import numpy as np
from ase import Atoms
from psiflow_pyscf.reference import PySCF

from psiflow_core.components import LabelTask, Resources
from psiflow_core.structures import Array, Label, label_of

LOWEST_MULTIPLICITY = {"H": 2, "C": 1, "O": 1}


def main() -> None:
    arguments = _arguments()
    structures = _spread(ase.io.read(arguments.path / "test_MD.xyz", ":"), arguments.count)
    expected = [label_of(atoms) for atoms in structures]
    their_atoms = {a.get_chemical_symbols()[0]: a for a in ase.io.read(arguments.path / "isolated_atoms.xyz", ":")}
    theirs = {symbol: their_atoms[symbol].get_potential_energy() for symbol in LOWEST_MULTIPLICITY}
    for fitted in (False, True):
        reference = PySCF(grid_level=arguments.grid_level, density_fitting=fitted)
        start = time.process_time()
        found = [_label(reference, atoms, arguments.cores) for atoms in structures]
        seconds = (time.process_time() - start) / len(structures)
        ours = {symbol: _label(reference, _atom(symbol), arguments.cores).energy for symbol in theirs}
        state = "on" if fitted else "off"
        print(f"\ndensity fitting {state}, {len(found)} structures, {seconds:.1f} CPU s each")
        print("isolated atoms, PySCF - ORCA [meV]:", {s: float(round((ours[s] - theirs[s]) * 1e3, 3)) for s in theirs})
        _report(structures, found, expected, ours, theirs)


def _report(
    structures: Sequence[Atoms],
    found: Sequence[Label],
    expected: Sequence[Label],
    ours: dict[str, float],
    theirs: dict[str, float],
) -> None:
    size = len(structures[0])
    total = np.array([a.energy - b.energy for a, b in zip(found, expected, strict=True)])
    atoms = np.array([sum(ours[s] - theirs[s] for s in a.get_chemical_symbols()) for a in structures])
    force = np.concatenate([(a.forces - b.forces).ravel() for a, b in zip(found, expected, strict=True)])
    size_of_force = np.concatenate([label.forces.ravel() for label in expected])
    print(f"{'difference':44s} {'mean':>9s} {'MAE':>9s} {'RMSE':>9s} {'max':>9s}")
    _row("energy against isolated atoms [meV]", (total - atoms) * 1e3)
    _row("energy against isolated atoms [meV/atom]", (total - atoms) * 1e3 / size)
    _row("energy against the structures' mean [meV]", (total - total.mean()) * 1e3)
    _row("energy against the structures' mean [meV/atom]", (total - total.mean()) * 1e3 / size)
    _row("force component [meV/Å]", force * 1e3)
    print(f"(RMS of ORCA's force components: {np.sqrt(np.mean(size_of_force**2)) * 1e3:.0f} meV/Å)", flush=True)


def _row(name: str, difference: Array) -> None:
    mean, mae = difference.mean(), np.abs(difference).mean()
    rmse, largest = np.sqrt(np.mean(difference**2)), np.abs(difference).max()
    print(f"{name:46s} {mean:9.4f} {mae:9.4f} {rmse:9.4f} {largest:9.4f}")


def _label(reference: PySCF, atoms: Atoms, cores: int) -> Label:
    with TemporaryDirectory() as folder:
        return reference.label(atoms, LabelTask(Path(folder), Resources(cores=cores)))


def _atom(symbol: str) -> Atoms:
    return Atoms(symbol, info={"spin": LOWEST_MULTIPLICITY[symbol]})


def _spread(structures: Sequence[Atoms], count: int) -> list[Atoms]:
    numbers = np.linspace(0, len(structures) - 1, min(count, len(structures))).round().astype(int)
    chosen = [structures[number] for number in numbers]
    for atoms in chosen:
        atoms.pbc = False
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="PATH", help="folder of the ethanol data set")
    parser.add_argument("count", type=int, metavar="N", help="structures to label")
    parser.add_argument("--cores", type=int, default=1, help="threads (default: %(default)s)")
    parser.add_argument("--grid-level", type=int, default=3, help="PySCF's grid level (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
