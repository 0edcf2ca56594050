"""The potentials `nequip` and `allegro`: their options, and what can be done with them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from ase import Atoms
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from psiflow_core.components import Potential, Predictor, TrainingResult, TrainingTask
from psiflow_core.errors import StructureError
from psiflow_core.structures import Plain, charge_of, spin_of


class Equivariant(Potential):
    """What NequIP and Allegro have in common: all but their networks."""

    native_suffix: ClassVar[str] = ".nequip.zip"
    shape: ClassVar[tuple[str, ...]]
    """The options that a parent and its child must share: they decide the number and meaning of the weights."""

    r_max: PositiveFloat = 5.0
    """Atoms nearer than this are neighbours. [Å]"""
    num_bessels: PositiveInt = 8
    """Bessel functions of the distance. [count]"""
    polynomial_cutoff_p: int = Field(default=6, ge=2)
    """Exponent of the polynomial that takes what neighbours say to zero at `r_max`. [count]"""

    steps: PositiveInt = 1000
    """Gradient steps, at most. [count]"""
    batch_size: PositiveInt | None = None
    """Structures in a gradient step; null takes as many as hold about 64 atoms, but no more than 8: a step on
    several small molecules costs hardly more than on one, and is worth more. [count]"""
    learning_rate: PositiveFloat = 0.06
    """Adam's learning rate at the first step of a training from scratch. [dimensionless]"""
    warm_learning_rate: PositiveFloat | None = None
    """The same for one that starts from a parent, reached over 50 steps: a high rate at once would make it forget
    what it starts with. Null takes `learning_rate`. [dimensionless]"""
    learning_rate_decay: float = Field(default=0.01, gt=0, le=1)
    """Learning rate at the last step over that at the first; it falls exponentially. [fraction]"""
    amsgrad: bool = True
    """Use the AMSGrad variant of Adam. [yes or no]"""
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    """Memory of the exponential average over weights, which makes the final model. [fraction per step]"""
    gradient_clip: PositiveFloat | None = 10.0
    """Longest gradient that is followed as it is; null follows all. [norm]"""
    energy_weight: NonNegativeFloat = 10.0
    """Weight of the squared error of the energy per atom in the loss. [atom²/eV²]"""
    forces_weight: NonNegativeFloat = 100.0
    """Weight of the mean squared error of the force components in the loss. [Å²/eV²]"""
    stress_weight: NonNegativeFloat = 1000.0
    """Weight of the mean squared error of the stress components in the loss. [Å⁶/eV²]"""
    evaluate_every: PositiveInt = 50
    """Steps between two evaluations on the validation set, each of which leaves a checkpoint; the best weights are
    kept, by the geometric mean of the structures' losses. [count]"""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a better validation loss; null never stops. [count]"""

    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the network; positions, and the sum of its energies, are always in float64. [name]"""
    compile: bool = False
    """Predict by machine code that is made for the network (AOTInductor). It needs a C++ compiler, and a minute or
    two once for each architecture and machine. [yes or no]"""

    @model_validator(mode="after")
    def _consistent(self) -> Equivariant:
        if not (self.energy_weight or self.forces_weight):
            raise ValueError("energy_weight and forces_weight are both zero; give at least one of them a value")
        return self

    @abstractmethod
    def network(self) -> Plain:
        """The options of the library's model builder that decide the network, data and species apart."""

    def check(self, structures: Sequence[Atoms]) -> None:
        _refuse_other_charges(self.name, structures)

    def train(self, task: TrainingTask) -> TrainingResult:
        from psiflow_nequip import _training

        return _training.train(self, task)

    def load(self, model: Path, device: str = "cpu") -> Predictor:
        from psiflow_nequip import _predictor

        return _predictor.NequipPredictor.of_file(model, self.name, device, self.compile)

    def export(self, model: Path, target: Path) -> None:
        """Write what the name of the target asks for, with the library's own commands.

        * `….lammps.nequip.pt2`: for LAMMPS (`pair_style nequip` or `pair_style allegro`), compiled for the CPU;
        * `….ase.nequip.pt2`: for `nequip.ase.NequIPCalculator.from_compiled_model`, compiled for the CPU;
        * anything else: the package that `nequip-compile` reads, which calls it `….nequip.zip`.
        """
        from psiflow_nequip import _export

        _export.export(model, self.name, target)


class Nequip(Equivariant):
    """NequIP: equivariant message passing (Batzner et al., Nat. Commun. 13, 2453 (2022)).

    The defaults suit the small data sets and budgets of online learning: a small network, small batches,
    a high learning rate that decays, and averaged weights.
    """

    name: ClassVar[str] = "nequip"
    engine: ClassVar[str] = "nequip"
    shape: ClassVar[tuple[str, ...]] = (
        "r_max",
        "num_bessels",
        "polynomial_cutoff_p",
        "num_layers",
        "l_max",
        "parity",
        "num_features",
        "radial_mlp_depth",
        "radial_mlp_width",
        "dtype",
    )

    num_layers: int = Field(default=2, ge=1, le=6)
    """Rounds of message passing; each widens what an atom sees by `r_max`. [count]"""
    l_max: int = Field(default=2, ge=0, le=4)
    """Highest angular momentum of the features: 1 is faster, 3 more accurate. [ħ]"""
    parity: bool = False
    """Keep features of both mirror parities for each angular momentum; without, only those of its spherical
    harmonics, which is faster. [yes or no]"""
    num_features: PositiveInt = 16
    """Features of each atom for each angular momentum and parity. [count]"""
    radial_mlp_depth: PositiveInt = 1
    """Hidden layers of the networks of the distance. [count]"""
    radial_mlp_width: PositiveInt = 32
    """Hidden neurons in each of them. [count]"""

    def network(self) -> Plain:
        return {name: getattr(self, name) for name in self.shape if name != "dtype"}


class Allegro(Equivariant):
    """Allegro: equivariant and strictly local, for large systems (Musaelian et al., Nat. Commun. 14, 579 (2023)).

    An atom's energy is a sum over its neighbours; no messages widen what it sees. The defaults suit the small data
    sets and budgets of online learning: a small network, small batches, a high learning rate that decays, and
    averaged weights.
    """

    name: ClassVar[str] = "allegro"
    engine: ClassVar[str] = "allegro"
    shape: ClassVar[tuple[str, ...]] = (
        "r_max",
        "num_bessels",
        "polynomial_cutoff_p",
        "num_layers",
        "l_max",
        "parity",
        "num_scalar_features",
        "num_tensor_features",
        "mlp_depth",
        "mlp_width",
        "dtype",
    )

    num_layers: int = Field(default=1, ge=1, le=4)
    """Tensor products: the body order is two more. [count]"""
    l_max: int = Field(default=2, ge=1, le=4)
    """Highest angular momentum of the features: 1 is faster, 3 more accurate. [ħ]"""
    parity: bool = False
    """Keep tensors of both mirror parities for each angular momentum; without, only those of its spherical
    harmonics, which is faster. [yes or no]"""
    num_scalar_features: PositiveInt = 64
    """Scalar features of each pair of neighbours. [count]"""
    num_tensor_features: PositiveInt = 16
    """Tensor features of each pair for each angular momentum. [count]"""
    mlp_depth: PositiveInt = 1
    """Hidden layers of the networks that embed pairs, that mix their scalars, and that read out energies. [count]"""
    mlp_width: PositiveInt = 64
    """Hidden neurons in each of them. [count]"""

    def network(self) -> Plain:
        own = ("num_bessels", "polynomial_cutoff_p", "mlp_depth", "mlp_width", "dtype")
        pairs = {
            "_target_": "allegro.nn.TwoBodyBesselScalarEmbed",
            "num_bessels": self.num_bessels,
            "polynomial_cutoff_p": self.polynomial_cutoff_p,
        }
        layers = {
            f"{part}_mlp_hidden_layers_{size}": value
            for part in ("scalar_embed", "allegro", "readout")
            for size, value in (("depth", self.mlp_depth), ("width", self.mlp_width))
        }
        chosen = {name: getattr(self, name) for name in self.shape if name not in own}
        return {**chosen, "radial_chemical_embed": pairs, **layers}


def _refuse_other_charges(potential: str, structures: Sequence[Atoms]) -> None:
    """The networks see atoms and no electrons: a composition must come with one charge and one spin."""
    known: dict[str, tuple[int, int]] = {}
    for atoms in structures:
        formula, state = atoms.get_chemical_formula(), (charge_of(atoms), spin_of(atoms))
        other = known.setdefault(formula, state)
        if other != state:
            raise StructureError(
                f"{formula} comes with charge {other[0]} and spin {other[1]}, and with charge {state[0]} and spin "
                f"{state[1]}, which potential '{potential}' cannot tell apart: learn each in a campaign of its own"
            )
