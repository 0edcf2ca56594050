"""What cannot be computed is told before anything is computed, with what to do about it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from psiflow_pyscf.reference import PySCF

from psiflow_core.components import LabelTask
from psiflow_core.errors import OptionError, ReferenceFailed, StructureError
from psiflow_core.plugins import registry

WATER = molecule("H2O")


def test_the_plugin_is_found_by_name_and_loads_no_engine() -> None:
    code = (
        "import sys, psiflow_pyscf.reference; from psiflow_core.plugins import registry;"
        "registry().find('reference', 'pyscf').spec({'functional': 'B3LYP'});"
        "sys.exit('pyscf' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_compared_without_case() -> None:
    found = registry().find("reference", "pyscf")
    assert found.spec({"basis": "Def2-SVP"}).digest == found.spec({}).digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "mp2", "density_fitting": True}, "density_fitting=False"),
        ({"method": "mp2", "dispersion": "d4"}, "dispersion=None"),
        ({"functional": "b3lyp-d3bj"}, "option dispersion"),
        ({"functional": ""}, "functional"),
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
@pytest.mark.parametrize("functional", ["pbe", "b3lyp", "pbe0", "r2scan", "b97-d"])
def test_functionals_with_dispersion_pass(functional, dispersion) -> None:
    if (functional, dispersion) == ("b97-d", "d4"):
        return
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


def test_core_potentials_come_with_their_basis(label) -> None:
    """Iodine of def2-SVP describes 25 electrons; all 53 in it would give another energy by far."""
    assert label(Atoms("I", info={"spin": 2}), method="hf").energy == pytest.approx(-297.1 * 27.2114, rel=5e-3)
