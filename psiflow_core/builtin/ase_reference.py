"""A reference based on any ASE calculator: EMT, Lennard-Jones, tblite's GFN2-xTB, or a code with an ASE interface."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms
from pydantic import Field, JsonValue, field_validator

from psiflow_core.builtin import _ase_electrons
from psiflow_core.components import LabelTask, Reference
from psiflow_core.components.options import in_full
from psiflow_core.errors import EngineMissing, OptionError, ReferenceFailed, StructureError, did_you_mean
from psiflow_core.structures import Label, charge_of, isolated_atom, species

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

QUIET: dict[str, dict[str, JsonValue]] = {"tblite": {"verbosity": 0}}
"""Parameters that keep a calculator from writing to the worker's output, unless the user sets them."""

UNCONVERGED = ("SCFError", "ConvergenceError", "KohnShamConvergenceError")
"""Exceptions of ASE, tblite and GPAW for a self-consistent field that does not converge."""


class AseReference(Reference):
    """The energy, forces and stress of an ASE calculator, by name.

    Charge and spin multiplicity of a structure reach the calculator in its own way: by a parameter (`charge`,
    `multiplicity`, `mult`), by initial magnetic moments that add up to 2S (NWChem, VASP, GPAW, Quantum ESPRESSO, …)
    or the structure's own, by initial charges, or by ``info["charge"]`` and ``info["spin"]``. A charge that a
    calculator does not ask for is refused. The energy is the one whose gradient the forces are (the free energy
    of a calculator with smeared occupations).
    """

    name: ClassVar[str] = "ase"

    calculator: str
    """`emt`, `lj`, `tblite`, another name that ASE knows, or `package.module:Class`."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the calculator, in the units of its documentation. The path of a file that is there
    when the option is given is taken in full."""

    @field_validator("parameters")
    @classmethod
    def _in_full(cls, given: dict[str, JsonValue]) -> Any:
        return in_full(given)

    def label(self, structure: Atoms, task: LabelTask) -> Label:
        label, heard = self._asked(structure, task)
        if charge_of(structure) and not self._hears_charges(heard):
            raise ReferenceFailed(self._unheard(structure), "bad input")
        return label

    def _asked(self, structure: Atoms, task: LabelTask) -> tuple[Label, set[str]]:
        """A label, and the attributes that the calculator read: see `_ase_electrons.listening`."""
        try:
            calculator = self._build(structure, task)
        except StructureError as error:
            raise ReferenceFailed(str(error), "bad input") from error
        atoms, heard = _ase_electrons.listening(structure)
        atoms.calc = calculator
        try:
            with np.errstate(all="ignore"):  # non-finite numbers are reported below
                label = _ask(atoms)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a calculator can raise anything, also sys.exit
            said = (
                f"{type(error).__name__}: {error}" if isinstance(error, SystemExit) else error or type(error).__name__
            )
            raise ReferenceFailed(f"calculator '{self.calculator}' failed: {said}", _reason(error)) from error
        if not np.isfinite(label.energy) or not np.isfinite(label.forces).all():
            raise ReferenceFailed(f"calculator '{self.calculator}' gave an energy or forces that are not numbers")
        return label, heard

    def check(self, structures: Sequence[Atoms]) -> None:
        """Refuse wrong parameters, ignored charges and spins and, if it runs here, unknown elements."""
        atoms = [isolated_atom(symbol) for symbol in species(structures)]
        for one in [*structures, *atoms] or [Atoms()]:
            self._build(one, None)
        heard: set[str] = set()
        if not _runs_a_program(self._class()):
            for one in atoms:
                heard |= self._check_atom(one)
        for one in structures:
            if charge_of(one) and not self._hears_charges(heard):
                raise StructureError(self._unheard(one))

    def _check_atom(self, atom: Atoms) -> set[str]:
        """The attributes that the calculator reads; empty if it fails for a reason specific to this structure."""
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            try:
                return self._asked(atom, LabelTask(Path(folder)))[1]
            except ReferenceFailed as failure:
                if failure.reason == "bad input":
                    raise StructureError(f"one {atom.symbols} atom on its own: {failure}") from failure
        return set()

    def _hears_charges(self, heard: set[str]) -> bool:
        way = self._way()
        return way.charge is not None or way.sums_charges or "charge" in heard

    def _unheard(self, atoms: Atoms) -> str:
        return (
            f"{atoms.get_chemical_formula()} has charge {charge_of(atoms)}, which calculator '{self.calculator}' does "
            "not ask for (no parameter of that name, nor info['charge'], nor initial charges); remove the charge or "
            "choose another reference"
        )

    def _way(self) -> _ase_electrons.Way:
        engine = self._class()
        return _ase_electrons.way_of(engine, self._accepted(engine))

    def _class(self) -> type[Calculator]:
        """The calculator's class.

        Raises:
            OptionError: nothing is called that.
            EngineMissing: its package is not installed.
        """
        try:
            return _find_class(self.calculator)
        except ImportError as error:
            if (error.name or "").startswith("ase.calculators") and ":" not in self.calculator:
                raise self._unknown() from None
            package = (error.name or self.calculator).partition(".")[0]
            raise EngineMissing(
                f"calculator '{self.calculator}' needs package '{package}', which cannot be imported here "
                f"({error}); install it where labels are computed: pip install {package}"
            ) from error
        except AttributeError:
            raise self._unknown() from None

    def _unknown(self) -> OptionError:
        from ase.calculators.calculator import names

        return OptionError(
            f"reference 'ase': calculator='{self.calculator}': no such calculator."
            f"{did_you_mean(self.calculator, [*names, 'tblite'])} "
            "Give a name that ASE knows ('emt', 'lj', 'tblite', …) or 'package.module:Class'"
        )

    def _build(self, structure: Atoms, task: LabelTask | None) -> Calculator:
        engine = self._class()
        accepted = self._accepted(engine)
        unknown = sorted(set(self.parameters) - accepted) if accepted else []
        if unknown:
            raise OptionError(
                f"reference 'ase': calculator '{self.calculator}' has no parameter '{unknown[0]}'."
                f"{did_you_mean(unknown[0], accepted)} Parameters: {', '.join(sorted(accepted))}"
            )
        way = self._way()
        _ase_electrons.refuse_unheard(way, structure, self.parameters, self.calculator)
        electrons = _ase_electrons.settings(way, structure, self.parameters)
        settings: dict[str, Any] = {**QUIET.get(self.calculator, {}), **electrons}
        if task is not None and _runs_a_program(engine):
            settings["directory"] = str(task.folder)
        try:
            return engine(**{**settings, **deepcopy(self.parameters)})  # calculators change their arguments
        except Exception as error:  # calculators refuse values with any exception
            raise OptionError(
                f"reference 'ase': calculator '{self.calculator}' refuses parameters={self.parameters}: "
                f"{error or type(error).__name__}"
            ) from error

    def _accepted(self, engine: type[Calculator]) -> set[str]:
        """The declared parameters of the class; empty if it declares none and accepts any."""
        defaults = getattr(engine, "default_parameters", {})
        signature = inspect.signature(engine).parameters.values()
        named = {p.name for p in signature if p.kind is not p.VAR_KEYWORD and p.name != "self"}
        takes_anything = any(p.kind is p.VAR_KEYWORD for p in signature) and not defaults
        return set() if takes_anything or _runs_a_program(engine) else {*defaults, *named}


def _find_class(name: str) -> type[Calculator]:
    if ":" in name:
        module, _, attribute = name.partition(":")
        found: type[Calculator] = getattr(import_module(module), attribute)
        return found
    if name == "tblite":
        from tblite.ase import TBLite

        return TBLite
    from ase.calculators.calculator import get_calculator_class

    return get_calculator_class(name)


def _runs_a_program(engine: type[Calculator]) -> bool:
    """Whether the calculator writes files and starts another program."""
    from ase.calculators.calculator import FileIOCalculator
    from ase.calculators.genericfileio import GenericFileIOCalculator

    return inspect.isclass(engine) and issubclass(engine, FileIOCalculator | GenericFileIOCalculator)


def _ask(atoms: Atoms) -> Label:
    forces = atoms.get_forces(apply_constraint=False)  # ASE would put zeros on fixed atoms
    results = atoms.calc.results
    energy = float(results["free_energy"] if "free_energy" in results else atoms.get_potential_energy())
    has_stress = atoms.pbc.all() and "stress" in atoms.calc.implemented_properties
    return Label(energy, np.array(forces), np.array(atoms.get_stress(apply_constraint=False)) if has_stress else None)


def _reason(error: BaseException) -> str:
    from ase.calculators.calculator import CalculatorSetupError

    if type(error).__name__ in UNCONVERGED or "not converge" in str(error).lower():
        return "unconverged"
    if isinstance(error, CalculatorSetupError | NotImplementedError | KeyError | ValueError):
        return "bad input"
    return "memory" if isinstance(error, MemoryError) else "engine"
