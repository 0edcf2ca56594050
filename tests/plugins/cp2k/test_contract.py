"""CP2K is a reference like any other."""

from __future__ import annotations

from typing import ClassVar

import pytest
from ase import Atoms
from psiflow_cp2k.reference import CP2K

from psiflow_core.testing.reference import ReferenceContract

from .conftest import CHEAP


class TestCP2K(ReferenceContract):
    component: ClassVar[type[CP2K]] = CP2K
    options: ClassVar[dict[str, object]] = CHEAP

    @pytest.fixture
    def molecule(self, hydrogen: Atoms) -> Atoms:
        return hydrogen

    @pytest.fixture
    def crystal(self, crystal: Atoms) -> Atoms:
        return crystal
