"""A level by name, as text and by hand are one; a start changes nothing; every structure has its own electrons."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree
from psiflow_cp2k import _run_input, _start
from psiflow_cp2k.reference import CP2K

from psiflow_core.components import LabelTask, Resources
from psiflow_core.environments.catalogue import spec_by
from psiflow_core.registry.plugins import registry
from psiflow_core.structures import isolated_atom

from .conftest import CHEAP

PBE = {"H": -13.60, "N": -266.0}
"""Energies of free atoms with PBE and the potentials of Goedecker, Teter and Hutter, within what a double-zeta basis
set lacks; that of H is 13.604 eV in the limit. [eV]"""


def text_of(options: CP2K, atoms: Atoms) -> str:
    return "".join(section.text() for section in _run_input.of(options, atoms).sections)


def test_the_text_of_a_level_gives_its_label(water, label, tmp_path) -> None:
    """The whole input of another structure, as text and as a file: what belongs to the structure is put in."""
    other = Atoms("H2O", [[0, 0, 0], [0, 0, 1], [0, 1, 0]], info={"charge": 1, "spin": 2})
    text = text_of(CP2K.parse(CHEAP), other)
    file = tmp_path / "water.inp"
    file.write_text(f"! a comment\n{text}\n&MOTION\n&END\n".replace("&end cell", "&END cell # so it is"))
    named, read = label(water), label(water, force_eval=str(file), vacuum=2.5)
    assert read.energy == pytest.approx(named.energy, abs=1e-7)
    assert read.forces == pytest.approx(named.forces, abs=1e-5)


def test_a_file_counts_by_its_content(tmp_path, water) -> None:
    text = text_of(CP2K.parse(CHEAP), water)
    (tmp_path / "a.inp").write_text(text)
    (tmp_path / "b.inp").write_text("# the same\n" + text.replace("  ", "\t"))
    found = registry().find("reference", "cp2k")
    digests = {spec_by(found, {"force_eval": str(tmp_path / name)}).digest for name in ("a.inp", "b.inp")}
    assert digests == {spec_by(found, {"force_eval": text}).digest}
    moved = water.copy()
    moved.positions += 1.0
    moved.positions[0] += 0.1
    assert spec_by(found, {"force_eval": text_of(CP2K.parse(CHEAP), moved)}).digest in digests


def test_the_same_input_run_by_hand_gives_the_same_numbers(water, tmp_path) -> None:
    label = CP2K.parse(CHEAP).label(water, LabelTask(tmp_path))
    folder = tmp_path / "run-0"
    subprocess.run(["cp2k.psmp", "-i", "label.inp", "-o", "hand.out"], cwd=folder, check=True)
    energy = next(line for line in (folder / "hand.out").read_text().splitlines() if line.startswith(" ENERGY|"))
    rows = (folder / "label-forces-1_0.xyz").read_text().splitlines()
    forces = np.array([row.split()[3:6] for row in rows if row.split()[:1] in (["1"], ["2"], ["3"])], float)
    assert label.energy == float(energy.split()[-1]) * Hartree
    forces *= Hartree / Bohr
    assert np.array_equal(label.forces, forces - forces.mean(axis=0))


def test_a_start_from_a_neighbour_changes_nothing(water, label) -> None:
    near = water.copy()
    near.rattle(0.05, seed=2)
    alone = label(near)
    _start.forget()
    label(water)
    started = label(near)
    assert started.energy == pytest.approx(alone.energy, abs=1e-7)
    assert started.forces == pytest.approx(alone.forces, abs=5e-5)


def test_a_start_is_taken_where_it_serves_alone(water, label, tmp_path) -> None:
    options = CP2K.parse(CHEAP)
    options.label(water, LabelTask(tmp_path / "first"))
    near, far, ion = water.copy(), water.copy(), water.copy()
    near.positions += 3.0  # the molecule as a whole
    far.positions[1] += 0.6
    ion.info.update(charge=1, spin=2)
    assert _start.find(options, near) is not None
    for other in (far, ion, Atoms("H2O", water.positions)):
        assert _start.find(options, other) is None
    assert _start.find(CP2K.parse({**CHEAP, "cutoff": 160.0}), near) is None
    options.label(near, LabelTask(tmp_path / "second"))
    assert _start.find(options, near) is not None
    text = text_of(options, ion)  # spins apart, as in an antiferromagnet
    CP2K.parse({"force_eval": text, "vacuum": 2.5}).label(water, LabelTask(tmp_path / "third"))
    assert _start.find(CP2K.parse({"force_eval": text, "vacuum": 2.5}), near) is None
    assert "SCF_GUESS RESTART" in (tmp_path / "second" / "run-0" / "label.inp").read_text()


@pytest.mark.parametrize("symbol", sorted(PBE))
def test_free_atoms_have_the_energy_of_their_ground_state(symbol, label) -> None:
    ground = isolated_atom(symbol)
    found = label(ground, basis="DZVP-MOLOPT-GTH", vacuum=3.0, cutoff=200.0)
    assert found.energy == pytest.approx(PBE[symbol], abs=0.3)


def test_atoms_follow_the_first_rule_of_hund(label) -> None:
    ground = isolated_atom("N")
    excited = ground.copy()
    excited.info["spin"] -= 2
    assert label(excited).energy > label(ground).energy + 1.0


def test_charge_and_spin_are_put_in(hydrogen, label) -> None:
    """The triplet of H2 comes apart; the ion is bound by half as much."""
    double = {"basis": "DZVP-MOLOPT-GTH"}
    neutral = label(hydrogen, **double).energy
    triplet, ion = hydrogen.copy(), hydrogen.copy()
    triplet.info["spin"] = 3
    ion.info.update(charge=1, spin=2)
    assert label(triplet, **double).energy > neutral + 5
    assert label(ion, **double).energy == pytest.approx(neutral + 16.0, abs=2.0)  # ionization: 15.4 eV, vertical more


def test_moments_of_a_crystal_open_its_shells(tmp_path) -> None:
    """Two kinds of one element, spins against each other."""
    pair = Atoms("H2", [[0, 0, 0], [0, 0, 2.5]], cell=[3.0, 3.0, 5.0], pbc=True, magmoms=[1, -1])
    CP2K.parse({**CHEAP, "dispersion": None}).label(pair, LabelTask(tmp_path))
    text = (tmp_path / "run-0" / "label.inp").read_text()
    assert "MULTIPLICITY 1" in text
    assert "UKS T" in text
    assert "MAGNETIZATION -1.0" in text
    assert "&KIND H_2" in text


def test_hot_energies_are_free_energies_and_forces_their_gradient(tmp_path) -> None:
    chain = Atoms("H4", [[0, 0, n] for n in range(4)], cell=[3.6, 3.6, 4.0], pbc=True)  # half a band
    chain.rattle(0.05, seed=1)
    options = CP2K.parse({**CHEAP, "smearing": 9000.0, "dispersion": None})

    def labelled(z: float) -> tuple[float, float, np.ndarray]:
        """Free energy, −TS as CP2K prints them, and the first atom's forces."""
        moved = chain.copy()
        moved.positions[0, 2] += z
        folder = tmp_path / f"{z}"
        label = options.label(moved, LabelTask(folder))
        lines = sorted(folder.glob("run-*"))[-1].joinpath("label.out").read_text().splitlines()
        free, entropic = (
            Hartree * float([line for line in lines if name in line][-1].split()[-1])
            for name in ("ENERGY|", "Electronic entropic energy")
        )
        assert entropic < -0.1
        assert label.energy == pytest.approx(free, abs=1e-9)
        return free, entropic, label.forces[0]

    here, down, up = labelled(0.0), labelled(-0.002), labelled(0.002)
    assert here[2][2] == pytest.approx(-(up[0] - down[0]) / 0.004, abs=3e-3)


def test_ranks_and_threads_change_nothing(water, label) -> None:
    alone = label(water, start_from_last=False)
    ranks = label(water, Resources(cores=2), start_from_last=False)
    threads = label(water, Resources(cores=2), threads=2, start_from_last=False)
    for other in (ranks, threads):
        assert other.energy == pytest.approx(alone.energy, abs=1e-6)
        assert other.forces == pytest.approx(alone.forces, abs=1e-5)


def test_free_atoms_of_a_periodic_section_are_free(label, tmp_path) -> None:
    """A section with k-points and smearing, meant for a crystal."""
    crystal = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], cell=[3.0, 3.0, 3.0], pbc=True)
    metal = CP2K.parse({**CHEAP, "smearing": 500.0, "kpoints": (2, 2, 2), "dispersion": None})
    told = CP2K.parse({"force_eval": text_of(metal, crystal), "vacuum": 2.5})
    atom = told.label(isolated_atom("H"), LabelTask(tmp_path))
    assert atom.energy == pytest.approx(label(isolated_atom("H"), dispersion=None).energy, abs=1e-6)
    text = Path(tmp_path / "run-0" / "label.inp").read_text()
    assert "KPOINTS" not in text
    assert "PERIODIC NONE" in text


def test_the_program_is_started_as_told(hydrogen, tmp_path) -> None:
    """In a shell that loads a module, with a folder of data."""
    options = {"before": "export LOADED=yes", "command": "env cp2k.psmp", "data": "/usr/share/cp2k"}
    CP2K.parse({**CHEAP, **options}).label(hydrogen, LabelTask(tmp_path))


def test_water_is_bound_nearly_as_in_pbe(label) -> None:
    """By 10.15 eV in the limit (Perdew, Burke and Ernzerhof, PRL 77, 3865 (1996)); one set of polarization functions
    and potentials without core correction lack 0.3."""
    level = {"basis": "TZVP-MOLOPT-GTH", "cutoff": 200.0, "vacuum": 3.0, "dispersion": None}
    hydrogen, oxygen = (label(isolated_atom(symbol), **level).energy for symbol in ("H", "O"))
    bound = 2 * hydrogen + oxygen - label(molecule("H2O"), **level).energy
    assert bound == pytest.approx(9.85, abs=0.15)
