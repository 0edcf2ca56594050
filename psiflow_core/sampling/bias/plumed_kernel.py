"""The PLUMED library: its detection, and one instance of it.

Commands as in PLUMED's developer manual, *How to add plumed to an MD code*; units and signs as in ASE's calculator.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units

from psiflow_core.components import Prediction
from psiflow_core.errors import EngineMissing, OptionError, PsiflowError, WalkerExploded
from psiflow_core.sampling.variables import VOIGT
from psiflow_core.structures import Array

KERNEL = "PLUMED_KERNEL"
"""The environment variable with the path of PLUMED's library."""

HOW = f"pip install plumed, build PLUMED (plumed.org), and set {KERNEL} to its libplumedKernel.so"
"""Instructions to install PLUMED."""

UNITS = {
    "setMDEnergyUnits": units.mol / units.kJ,  # eV in kJ/mol
    "setMDLengthUnits": units.Angstrom / units.nm,  # Å in nm
    "setMDTimeUnits": 1e-3,  # fs in ps
    "setMDMassUnits": 1.0,
    "setMDChargeUnits": 1.0,
}
"""psiflow's units, and fs for the time, in PLUMED's."""


class Found(NamedTuple):
    """The PLUMED of this machine."""

    kernel: str
    version: str


def start() -> Any:
    """A `plumed.Plumed`.

    Raises:
        EngineMissing: the Python package or the library is missing.
    """
    kernel = os.environ.get(KERNEL)
    try:
        from plumed import Plumed

        return Plumed(kernel=kernel or None)
    except ImportError as error:
        raise EngineMissing(f"the Python package of PLUMED is missing here: {HOW}") from error
    except RuntimeError as error:
        where = f"{KERNEL}={kernel} is not PLUMED's library" if kernel else f"{KERNEL} is not set"
        raise EngineMissing(f"the library of PLUMED is missing here, {where}: {HOW}") from error


def find() -> Found:
    """The location and the version of PLUMED; raises `EngineMissing`."""
    with TemporaryDirectory(prefix="psiflow-plumed-") as folder:
        log = Path(folder) / "log"
        with start() as instance:  # its log is complete once it has ended
            instance.cmd("setLogFile", str(log))
            instance.cmd("init")
        lines = [line.partition("Version:")[2] for line in log.read_text().splitlines()]
    version = next((line.split()[0] for line in lines if line.split()), "of unknown version")
    return Found(os.environ.get(KERNEL) or "the default of its Python package", version)


class Instance:
    """PLUMED with an input, for the atoms of one structure, going on from given files."""

    def __init__(
        self, lines: Iterable[str], going_on: bool, log: Path, atoms: Atoms, temperature: float | None
    ) -> None:
        """
        Args:
            lines: of its input.
            going_on: from the files that the input names.
            log: the file of its log.
            temperature: the sampler's. [K]

        Raises:
            OptionError: PLUMED refuses the input.
            EngineMissing: PLUMED is not installed.
        """
        self._held: list[Array] = []
        self._plumed = start()
        with _told(OptionError, "bias 'plumed': PLUMED does not take the input"):
            for command, value in {**UNITS, "setNatoms": len(atoms), "setMDEngine": "psiflow"}.items():
                self._plumed.cmd(command, value)
            self._plumed.cmd("setLogFile", str(log))
            self._plumed.cmd("setTimestep", 1.0)
            if temperature is not None:
                self._plumed.cmd("setKbT", float(units.kB * temperature))
            self._plumed.cmd("setRestart", int(going_on))
            self._plumed.cmd("init")
            for line in lines:
                self._plumed.cmd("readInputLine", line)

    def calculate(self, structure: Atoms, step: int) -> Prediction:
        """Energy, forces and stress, nothing being remembered.

        Raises:
            WalkerExploded: PLUMED has no answer.
        """
        given = {
            "setMasses": structure.get_masses().astype(float),
            "setCharges": structure.get_initial_charges().astype(float),
            "setPositions": structure.get_positions(),
        }
        if structure.pbc.all():
            given["setBox"] = np.array(structure.cell, float)
        energy, forces, virial = np.zeros(1), np.zeros((len(structure), 3)), np.zeros((3, 3))
        answers = {"setForces": forces, "setVirial": virial}
        self._held = [*given.values(), *answers.values()]  # PLUMED has their addresses until it is given others
        with _told(WalkerExploded, "PLUMED has no answer"):
            self._plumed.cmd("setStep", step)
            for command, value in {**given, **answers}.items():
                self._plumed.cmd(command, value)
            self._plumed.cmd("prepareCalc")
            self._plumed.cmd("performCalcNoUpdate")
            self._plumed.cmd("getBias", energy)
        if not structure.pbc.all():
            return Prediction(float(energy[0]), forces)
        strain = (virial + virial.T) / 2  # PLUMED's virial is the derivative of the energy by the strain
        return Prediction(float(energy[0]), forces, strain[VOIGT] / structure.get_volume())

    def update(self, structure: Atoms, step: int) -> None:
        """Let PLUMED remember a structure."""
        self.calculate(structure, step)
        with _told(WalkerExploded, "PLUMED cannot remember a structure"):
            self._plumed.cmd("update")

    def end(self) -> None:
        """Its files are complete then."""
        self._plumed.finalize()


@contextmanager
def _told(kind: type[PsiflowError], what: str) -> Iterator[None]:
    """What PLUMED raises, as an error of psiflow's in one line."""
    try:
        yield
    except Exception as error:  # the wrapper hands on C++ exceptions of every type
        lines = [line.strip() for line in str(error).splitlines() if line.strip("+ ")]
        raise kind(f"{what}: {' '.join(lines)[-300:] or type(error).__name__}") from error
