"""One label with PySCF: molecule, self-consistent field, correlation, gradient."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.units import Bohr, Hartree

from psiflow_core.components import LabelTask, Resources
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError
from psiflow_core.structures import Array, Label, charge_of, species, spin_of
from psiflow_pyscf import _basis, _checks, _scf
from psiflow_pyscf.options import PySCFOptions

ONE_AT_A_TIME = threading.Lock()
"""PySCF's number of threads and scratch folder belong to the process, so labels in threads take turns."""


NONLOCAL_GRID = 1
"""Grid level of VV10, a smooth double integral whose cost is quadratic in the grid points."""


def label(options: PySCFOptions, structure: Atoms, task: LabelTask) -> Label:
    """Energy and forces of a molecule; PySCF's log is `pyscf.log` in the task's folder.

    Raises:
        ReferenceFailed: "unconverged", "bad input", "memory" or "engine".
        EngineMissing: PySCF, or the package of the dispersion correction, cannot be imported.
    """
    try:
        _checks.check(options, [structure])
    except (StructureError, OptionError) as error:
        raise ReferenceFailed(str(error), "bad input") from error
    log = task.folder / "pyscf.log"
    try:
        with ONE_AT_A_TIME, _confined(task, log) as stdout:
            energy, gradient = _energy_and_gradient(options, molecule(options, structure, task.resources, stdout))
    except (ReferenceFailed, EngineMissing):
        raise
    except MemoryError as error:
        raise ReferenceFailed(f"PySCF ran out of memory ({error}); give the pool more memory", "memory") from error
    except Exception as error:  # any error of the engine: the campaign continues without this label
        raise ReferenceFailed(f"PySCF: {type(error).__name__}: {error}; see {log}", "engine") from error
    if not (np.isfinite(energy) and np.isfinite(gradient).all()):
        raise ReferenceFailed(f"PySCF returned an energy or forces that are not finite; see {log}", "engine")
    return Label(energy * Hartree, -gradient * (Hartree / Bohr))


def molecule(options: PySCFOptions, atoms: Atoms, resources: Resources, stdout: TextIO) -> Any:
    """The structure as PySCF's molecule, without symmetry: a label must not jump where symmetry is lost."""
    from pyscf import gto

    mol = gto.Mole()
    mol.atom = list(zip(atoms.get_chemical_symbols(), (atoms.positions / Bohr).tolist(), strict=True))
    mol.unit = "Bohr"  # ASE's bohr, since the result is converted back with ASE's units
    mol.basis = options.basis
    mol.ecp = {one: core for one in species([atoms]) if (core := _basis.core_potential(options.basis, one))}
    mol.charge, mol.spin = charge_of(atoms), spin_of(atoms) - 1
    mol.verbose, mol.stdout = 4, stdout
    if resources.memory is not None:
        mol.max_memory = resources.memory * 1024  # PySCF counts MiB
    return mol.build(dump_input=False, parse_arg=False, spin=mol.spin)


def _energy_and_gradient(options: PySCFOptions, mol: Any) -> tuple[float, Array]:
    """The energy [Eh] and its gradient, shape (atoms, 3). [Eh/bohr]"""
    field = _scf.converge(options, partial(mean_field, options, mol))
    correlated = options.method == "mp2" and _scf.rotations(field) > 0
    method = _correlated(options, field) if correlated else field
    if mol.natm == 1:
        return float(method.e_tot), np.zeros((1, 3))  # by symmetry; the gradient would cost as much as a label
    gradients = method.nuc_grad_method()
    if options.method == "dft":
        gradients.grid_response = True
    return float(method.e_tot), np.asarray(gradients.kernel(), float)


def mean_field(options: PySCFOptions, mol: Any) -> Any:
    """A new mean field: restricted for singlets, unrestricted otherwise."""
    from pyscf import dft, scf

    if options.method == "dft":
        field = dft.RKS(mol) if mol.spin == 0 else dft.UKS(mol)
        field.xc, field.grids.level = options.functional, options.grid_level
        field.nlcgrids.level = min(options.grid_level, NONLOCAL_GRID)
    else:
        field = scf.RHF(mol) if mol.spin == 0 else scf.UHF(mol)
    field.disp = options.dispersion
    field.conv_tol, field.conv_tol_grad = options.conv_tol, options.conv_tol_grad
    field.max_cycle = options.max_cycle
    return field.density_fit() if options.density_fitting else field


def _correlated(options: PySCFOptions, field: Any) -> Any:
    from pyscf import mp
    from pyscf.data.elements import chemcore

    correlated = mp.MP2(field, frozen=chemcore(field.mol) if options.frozen_core else None)
    correlated.kernel()
    return correlated


@contextmanager
def _confined(task: LabelTask, log: Path) -> Iterator[TextIO]:
    """Keep PySCF's temporary files and messages in the task's folder, and use as many threads as the task has cores."""
    from pyscf import lib

    before = lib.param.TMPDIR
    lib.param.TMPDIR = str(task.folder)
    try:
        with (
            log.open("w", encoding="utf-8") as stdout,
            redirect_stderr(stdout),  # PySCF repeats its warnings there
            lib.with_omp_threads(task.resources.cores),
        ):
            yield stdout
    finally:
        lib.param.TMPDIR = before
