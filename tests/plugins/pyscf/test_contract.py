"""PySCF is a reference like any other."""

from __future__ import annotations

from typing import ClassVar

from psiflow_pyscf.reference import PySCF

from psiflow_core.components import LabelTask, Resources
from psiflow_core.testing.reference import ReferenceContract


class TestPySCF(ReferenceContract):
    component: ClassVar[type[PySCF]] = PySCF
    options: ClassVar[dict[str, object]] = {"basis": "sto-3g", "density_fitting": True}

    @classmethod
    def elsewhere(cls) -> dict[str, object]:
        """The engine is a module of the plugin, whose package is there before PySCF is."""
        seen = dict(super().elsewhere())
        return {**seen, "engines": [engine for engine in seen["engines"] if engine != "psiflow_pyscf"]}

    def test_the_memory_of_the_task_is_told_to_pyscf(self, molecule, tmp_path) -> None:
        self.build().label(molecule, LabelTask(tmp_path, Resources(memory=1.5)))
        assert "max_memory 1536 MB" in (tmp_path / "pyscf.log").read_text()
