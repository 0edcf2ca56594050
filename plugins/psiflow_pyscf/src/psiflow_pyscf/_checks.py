"""Checks of the level of theory and of structures, before anything is computed."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence

from ase import Atoms

from psiflow_core import checks, structures
from psiflow_core.errors import EngineMissing, OptionError, StructureError, did_you_mean
from psiflow_pyscf import _basis
from psiflow_pyscf.options import PySCFOptions


def check(options: PySCFOptions, given: Sequence[Atoms]) -> None:
    """Refuse a level of theory that does not exist, and structures that it cannot label.

    Raises:
        StructureError: a structure is periodic or has an impossible spin.
        OptionError: the level of theory does not exist, or its basis set does not cover an element.
        EngineMissing: the dispersion correction's package is not installed.
    """
    check_level(options)
    for atoms in given:
        check_structure(options, atoms)


def check_level(options: PySCFOptions) -> None:
    """Refuse a functional, basis, dispersion correction or combination that does not exist.

    Raises:
        OptionError: the functional, basis, dispersion correction or combination does not exist.
        EngineMissing: the dispersion correction's package is not installed.
    """
    if options.method == "dft":
        _check_functional(options)
    _check_basis(options.basis)
    if options.dispersion:
        _check_dispersion(options)


def check_structure(options: PySCFOptions, atoms: Atoms) -> None:
    """Refuse a periodic structure, an impossible spin, and an element without basis functions.

    Raises:
        StructureError: the structure is periodic or has an impossible spin.
        OptionError: the basis set does not cover one of its elements.
    """
    formula = atoms.get_chemical_formula()
    if atoms.pbc.any():
        raise StructureError(
            f"{formula} is periodic but reference 'pyscf' is for molecules; "
            "set atoms.pbc = False if it is one, or use a periodic reference such as 'cp2k'"
        )
    checks.check([atoms])
    electrons = int(atoms.numbers.sum()) - structures.charge_of(atoms)
    if not 0 <= structures.spin_of(atoms) - 1 <= electrons or electrons == 0:
        raise StructureError(
            f"{formula}: {electrons} electrons cannot have spin multiplicity {structures.spin_of(atoms)}; "
            "set info['spin'] (2S+1) and info['charge']"
        )
    for symbol in structures.species([atoms]):
        if not _basis.functions(options.basis, symbol):
            raise OptionError(f"{_basis.about(options.basis)} has no functions for {symbol}; choose another basis")
        if _basis.lacks_a_core(options.basis, symbol):
            raise OptionError(
                f"{_basis.about(options.basis)} does not describe the innermost electrons of {symbol}, and has no "
                "core potential for them: it is made for other calculations; choose another basis"
            )


def _check_functional(options: PySCFOptions) -> None:
    """Refuse names that PySCF's parser would silently take for another functional."""
    from pyscf.dft import libxc

    name = options.functional
    try:
        with contextlib.redirect_stderr(io.StringIO()) as guesses:
            (exact, *_), terms = libxc.parse_xc(name)
            derivatives = libxc.max_deriv_order(name) if terms else 1
    except Exception as error:  # KeyError, ValueError or NotImplementedError
        raise OptionError(f"{_about(name)} is not known to libxc.{did_you_mean(name, _known())}") from error
    if guesses.getvalue():
        raise OptionError(f"{_about(name)} is ambiguous; write libxc's full name. {guesses.getvalue().strip()}")
    kinds = {_kinds()[int(number)] for number, _ in terms}
    if "K" in kinds or not (terms or exact):
        raise OptionError(f"{_about(name)} is no exchange-correlation functional; choose another")
    if "," not in name and not kinds & {"XC"} and not {"X", "C"} <= kinds:
        raise OptionError(
            f"{_about(name)} is exchange or correlation alone; name both, as in 'lda,vwn', "
            f"or write '{name},' if you mean it"
        )
    if derivatives < 1 or libxc.needs_laplacian(name):
        raise OptionError(f"{_about(name)} has no forces in PySCF; choose another")
    if re.search(r"[-_]d\d?$", name) and not options.dispersion:
        raise OptionError(
            f"{_about(name)} was fitted with a dispersion correction that libxc leaves out; set dispersion"
        )


def _check_basis(basis: str) -> None:
    if _basis.is_for_fitting(basis):
        raise OptionError(
            f"{_basis.about(basis)} fits densities or potentials; name one for orbitals, such as 'def2-svp'"
        )
    if _basis.is_for_plane_waves(basis):
        raise OptionError(f"{_basis.about(basis)} needs GTH pseudopotentials, which are not used here; choose another")
    if _basis.exists(basis):
        return
    if _basis.has_a_file(basis):
        raise OptionError(
            f"{_basis.about(basis)} is a core potential without functions; name a basis set that has them"
        )
    raise OptionError(f"{_basis.about(basis)} is not known to PySCF.{did_you_mean(basis, _basis.known())}")


def _check_dispersion(options: PySCFOptions) -> None:
    from pyscf import gto, scf
    from pyscf.dft import libxc

    try:
        from pyscf.dispersion import dftd3, dftd4
    except (ImportError, OSError) as error:
        raise EngineMissing(
            f"dispersion='{options.dispersion}' needs a package that cannot be imported ({error}); "
            "install it: pip install pyscf-dispersion"
        ) from error
    functional = "hf" if options.method == "hf" else options.functional
    if options.method == "dft" and libxc.is_nlc(functional):
        raise OptionError(f"{_about(functional)} already includes dispersion (VV10); set dispersion=None")
    model = {"d3bj": dftd3.DFTD3Dispersion, "d4": dftd4.DFTD4Dispersion}[str(options.dispersion)]
    try:
        name = scf.dispersion.parse_disp(functional, options.dispersion)[0]
        model(gto.M(atom="He", verbose=0), xc=name)
    except (RuntimeError, NotImplementedError) as error:
        raise OptionError(
            f"reference 'pyscf': dispersion='{options.dispersion}' has no parameters for '{functional}'; "
            "choose another correction or functional"
        ) from error


def _about(functional: str) -> str:
    return f"reference 'pyscf': functional '{functional}'"


def _kinds() -> dict[int, str]:
    """Exchange (X), correlation (C), both (XC) or kinetic energy (K), by libxc's number."""
    from pyscf.dft import libxc

    return {
        number: kind.group(1)
        for name, number in libxc.available_libxc_functionals().items()
        if (kind := re.search(r"_(XC|X|C|K)(_|$)", name))
    }


def _known() -> list[str]:
    from pyscf.dft import libxc

    return [name.lower() for name in (*libxc.XC_ALIAS, *libxc.XC_CODES)]
