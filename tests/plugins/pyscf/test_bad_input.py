"""What cannot be computed is told before anything is computed, with what to do about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.units import Hartree
from psiflow_pyscf.reference import PySCF

from psiflow_core.components import LabelTask
from psiflow_core.environments.catalogue import spec_by
from psiflow_core.errors import OptionError, ReferenceFailed, StructureError
from psiflow_core.registry.plugins import registry
from psiflow_core.structures import isolated_atom

WATER = molecule("H2O")


def test_the_plugin_is_found_by_name_and_loads_no_engine() -> None:
    code = (
        "import sys, psiflow_pyscf.reference; from psiflow_core.environments.catalogue import spec;"
        "spec('reference', 'pyscf', {'functional': 'B3LYP'});"
        "sys.exit('pyscf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_compared_without_case() -> None:
    found = registry().find("reference", "pyscf")
    assert spec_by(found, {"basis": "Def2-SVP"}).digest == spec_by(found, {}).digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "mp2", "density_fitting": True}, "density_fitting=False"),
        ({"method": "mp2", "dispersion": "d4"}, "dispersion=None"),
        ({"functional": "b3lyp-d3bj"}, "option dispersion"),
        ({"functional": ""}, "functional"),
        ({"basis": " \r"}, "blank"),
        ({"conv_tol": -1.0}, "conv_tol"),
        ({"functionnal": "pbe"}, "Did you mean 'functional'"),
    ],
)
def test_options_that_contradict_are_refused(options, said) -> None:
    with pytest.raises(OptionError, match=said):
        PySCF.parse(options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"functional": "pbee"}, "'pbee' is not known to libxc. Did you mean"),
        ({"functional": "lda"}, "'lda,vwn'"),
        ({"functional": "b88"}, "exchange or correlation alone"),
        ({"functional": "vwn"}, "not known"),
        ({"functional": ","}, "no exchange-correlation functional"),
        ({"functional": "gga_k_tfvw"}, "no exchange-correlation functional"),
        ({"functional": "999999"}, "not known"),
        ({"functional": "wb97x-d"}, "set dispersion"),
        ({"functional": "scanl"}, "no forces"),
        ({"basis": "def2-svpp"}, "not known to PySCF. Did you mean"),
        ({"functional": "b97-d", "dispersion": "d4"}, "no parameters for 'b97-d'"),
        ({"basis": "def2-svp-jkfit"}, "name one for orbitals"),
        ({"basis": "cc-pvdz-ri"}, "name one for orbitals"),
        ({"basis": "weigend"}, "name one for orbitals"),
        ({"basis": "sap_grasp_small"}, "name one for orbitals"),
        ({"basis": "gth-dzvp"}, "GTH pseudopotentials"),
        ({"basis": "ccecp"}, "core potential without functions"),
        ({"basis": "sarc-dkh"}, "has no functions for H"),
        ({"functional": "wb97x-v", "dispersion": "d3bj"}, "VV10"),
        ({"functional": "lda,vwn", "dispersion": "d3bj"}, "no parameters for 'lda,vwn'"),
        ({"functional": "lda,vwn", "dispersion": "d4"}, "no parameters for 'lda,vwn'"),
    ],
)
def test_levels_of_theory_that_do_not_exist_are_refused(options, said) -> None:
    with pytest.raises(OptionError, match=said):
        PySCF(**options).check([WATER])


@pytest.mark.parametrize(
    "functional",
    ["pbe", "lda,vwn", "svwn", "b3lyp", "pbe0", "tpss", "r2scan", "m06-2x", "wb97m-v", "hse06", "cam-b3lyp", "hf,"],
)
def test_levels_of_theory_that_exist_pass(functional) -> None:
    PySCF(functional=functional).check([WATER])


@pytest.mark.parametrize("dispersion", ["d3bj", "d4"])
@pytest.mark.parametrize("functional", ["pbe", "b3lyp", "pbe0", "r2scan"])
def test_functionals_with_dispersion_pass(functional, dispersion) -> None:
    PySCF(functional=functional, dispersion=dispersion).check([WATER])


@pytest.mark.parametrize(
    ("atoms", "error", "said"),
    [
        (bulk("NaCl", "rocksalt", 5.6), StructureError, "periodic.*'cp2k'"),
        (Atoms("OH", [[0, 0, 0], [0, 0, 1]]), StructureError, "multiplicity 1"),
        (Atoms("H", info={"spin": 4}), StructureError, "multiplicity 4"),
        (Atoms("H", info={"charge": 1}), StructureError, "0 electrons"),
        (Atoms("H2", [[0, 0, 0], [0, 0, np.nan]]), StructureError, "not finite"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]), StructureError, "0.100 Å apart"),
        (Atoms("H2U", [[0, 0, 0], [0, 0, 2], [0, 2, 0]], info={"spin": 5}), OptionError, "'def2-svp'.* U"),
    ],
)
def test_structures_that_cannot_be_labelled_are_refused(atoms, error, said, tmp_path) -> None:
    with pytest.raises(error, match=said):
        PySCF().check([WATER, atoms])
    with pytest.raises(ReferenceFailed) as failure:
        PySCF().label(atoms, LabelTask(tmp_path))
    assert failure.value.reason == "bad input"


def test_functionals_that_were_fitted_with_d3_pass_with_it() -> None:
    PySCF(functional="b97-d", dispersion="d3bj").check([WATER])


@pytest.mark.parametrize(
    ("basis", "symbol"),
    [
        ("def2-mtzvp", "Au"),
        ("def2-mtzvp", "I"),
        ("def2-mtzvpp", "Ce"),
        ("qavg-vszps", "O"),
        ("cc-pwcv5z-pp", "Ag"),
        ("bfd-vtz", "Zn"),
        ("minao", "Au"),
        ("ano-rcc", "Au"),
    ],
)
def test_a_basis_without_a_core_and_without_a_potential_is_refused(basis, symbol) -> None:
    """The last is contracted for a relativistic Hamiltonian: without one its 1s orbital is far too tight."""
    with pytest.raises(OptionError, match=f"innermost electrons of {symbol}"):
        PySCF(basis=basis).check([isolated_atom(symbol)])


@pytest.mark.parametrize(
    ("basis", "symbols"),
    [
        ("sto-3g", ["H", "He", "Li", "O", "I"]),
        ("3-21g", ["H", "He", "Fe", "I"]),
        ("6-31g(d,p)", ["H", "O", "Ar"]),
        ("cc-pvdz", ["H", "He", "Be", "Ne", "Br"]),
        ("def2-tzvp", ["H", "Li", "Kr", "I", "Au", "Rn"]),
        ("ano@3s2p1d", ["C", "O"]),
        ("dyall-v2z", ["C", "Au"]),
        ("lanl2dz", ["C", "Na", "Au"]),
        ("aug-cc-pvdz-pp", ["Ag", "Au"]),
    ],
)
def test_every_basis_that_holds_its_electrons_passes(basis, symbols) -> None:
    for symbol in symbols:
        PySCF(basis=basis).check([isolated_atom(symbol)])


@pytest.mark.parametrize(
    ("basis", "symbol", "valence"),
    [
        ("ccecp-cc-pvdz", "O", -15.8),
        ("bfd-vdz", "O", -15.8),
        ("aug-cc-pvdz-pp", "Au", -134.5),
        ("ccecp-cc-pvdz", "H", -0.5),
    ],
)
def test_a_valence_basis_is_used_with_its_potential(basis, symbol, valence, label) -> None:
    """All the electrons of oxygen have -74.8 Eh, those of gold -17865."""
    assert label(isolated_atom(symbol), method="hf", basis=basis).energy / Hartree == pytest.approx(valence, rel=0.02)


def test_a_configuration_file_at_home_changes_no_label(tmp_path) -> None:
    """Through a campaign's own task, which imports the component's engine before anything else does."""
    (tmp_path / ".pyscf_conf.py").write_text("B3LYP_WITH_VWN5 = True\n")
    code = """
import json, os, sys
from pathlib import Path
from ase import Atoms
import psiflow_core as psiflow
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.execution.tasks.request import Grant
from psiflow_core.registry.engines import engine_version
from psiflow_core.registry.plugins import build
from psiflow_core.structures import from_plain, label_of
folder = Path(sys.argv[1])
hydrogen = Atoms("H2", [[0, 0, 0], [0, 0, 0.75]])
energies = []
for functional in ("b3lyp", "b3lypg", "b3lyp5"):
    spec = psiflow.reference("pyscf", functional=functional, basis="sto-3g", grid_level=0)
    place = {"labels": folder / functional, "folder": folder / f"scratch-{functional}"}
    request = LabelRequest(reference=spec, structure=hydrogen, **place)
    request.run(Grant())
    energies.append(label_of(from_plain(json.loads(request.file.read_text())["structure"])).energy)
print(json.dumps({"energies": energies, "version": engine_version(build(spec))}))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYSCF_CONFIG_FILE"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    plain, with_vwn3, with_vwn5 = told["energies"]
    assert plain == with_vwn3 != with_vwn5
    assert told["version"] == metadata.version("pyscf")


def test_a_missing_pyscf_is_told_with_what_to_do() -> None:
    code = """
import sys
sys.modules["pyscf"] = None
import psiflow_core as psiflow
from psiflow_core.registry.engines import require_engine
from psiflow_core.registry.plugins import build
from psiflow_core.errors import EngineMissing
try:
    require_engine(build(psiflow.reference("pyscf")))
except EngineMissing as error:
    assert "pip install pyscf" in str(error), error
else:
    raise SystemExit("the missing engine was not noticed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_core_potentials_come_with_their_basis(label) -> None:
    """Iodine of def2-SVP describes 25 electrons; all 53 in it would give another energy by far."""
    assert label(Atoms("I", info={"spin": 2}), method="hf").energy == pytest.approx(-297.1 * 27.2114, rel=5e-3)
