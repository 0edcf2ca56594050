"""An engine that ends its worker, as a crash or the system's lack of memory would."""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator


class Fatal(Calculator):
    """An ASE calculator whose first calculation kills its process."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def calculate(self, atoms: Atoms | None = None, *rest: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
