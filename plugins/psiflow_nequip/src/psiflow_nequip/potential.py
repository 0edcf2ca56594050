"""The potentials `nequip` and `allegro`: their networks, loading and export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from psiflow_torch.potential import TorchPotential

from psiflow_nequip.options import AllegroOptions, EquivariantOptions, NequipOptions

if TYPE_CHECKING:
    from psiflow_torch.architecture import Architecture


class Equivariant(EquivariantOptions, TorchPotential):
    """The common methods of NequIP and Allegro."""

    native_suffix: ClassVar[str] = ".nequip.zip"

    def architecture(self) -> Architecture:
        from psiflow_nequip._network import EquivariantNetwork

        return EquivariantNetwork(self.name)

    def export(self, model: Path, target: Path) -> None:
        """Write the format that the target's name asks for, by the library's own commands.

        * `….lammps.nequip.pt2`: for LAMMPS (`pair_style nequip` or `pair_style allegro`), compiled for the CPU;
        * `….ase.nequip.pt2`: for `nequip.ase.NequIPCalculator.from_compiled_model`, compiled for the CPU;
        * any other name: the package that `nequip-compile` reads, under names like `….nequip.zip`.
        """
        from psiflow_nequip import _export

        _export.export(model, self.name, target)


class Nequip(NequipOptions, Equivariant):
    """NequIP: equivariant message passing (Batzner et al., Nat. Commun. 13, 2453 (2022)).

    The defaults suit the small data sets and budgets of online learning: a small network, small batches,
    a high learning rate that decays, and averaged weights.
    """

    name: ClassVar[str] = "nequip"
    engine: ClassVar[str] = "nequip"


class Allegro(AllegroOptions, Equivariant):
    """Allegro: equivariant and strictly local, for large systems (Musaelian et al., Nat. Commun. 14, 579 (2023)).

    An atom's energy is a sum over its neighbours; no messages extend its environment. The defaults suit the small data
    sets and budgets of online learning: a small network, small batches, a high learning rate that decays, and
    averaged weights.
    """

    name: ClassVar[str] = "allegro"
    engine: ClassVar[str] = "allegro"
