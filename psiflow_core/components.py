"""The contracts: what a plugin implements, and the data that its methods are given and return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from ase import Atoms
from pydantic import BaseModel, ConfigDict, ValidationError

from psiflow_core.errors import OptionError, PluginBroken, PsiflowError, did_you_mean
from psiflow_core.options import documented
from psiflow_core.structures import Array, Label, Plain, sha256
from psiflow_core.texts import said_by

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from parsl.executors.base import ParslExecutor

Kind = Literal["potential", "sampler", "reference", "executor"]


@dataclass(frozen=True)
class Spec:
    """A component as plain data: what is journaled, hashed, written in YAML and sent to workers."""

    kind: Kind
    name: str
    options: Plain
    """Every option of the component, defaults included."""
    distribution: str = ""
    """The distribution that registers the component, `psiflow-mace` for instance."""
    version: str = ""
    """Its version: a new version may give other numbers, so it is part of a task's identity."""

    def to_plain(self) -> Plain:
        return {
            "kind": self.kind,
            "name": self.name,
            "options": self.options,
            "distribution": self.distribution,
            "version": self.version,
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Spec:
        return cls(**plain)

    @property
    def digest(self) -> str:
        """Stable across processes and machines."""
        return sha256(self.to_plain())


class Component(BaseModel, ABC):
    """A named thing with options. Options are fields, each documented beneath itself, its unit in brackets."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        validate_default=True,
    )

    kind: ClassVar[Kind]
    name: ClassVar[str]
    engine: ClassVar[str] = ""
    """The importable package that does the work, `"torch"` for instance; empty if psiflow or a program does it."""
    program: ClassVar[str] = ""
    """The program that does the work where no package does; `check` finds out whether it starts."""

    @classmethod
    def __pydantic_init_subclass__(cls, **rest: Any) -> None:
        super().__pydantic_init_subclass__(**rest)
        cls.__doc__ = documented(cls)

    @classmethod
    def parse(cls, options: Plain) -> Component:
        """The component with these options.

        Raises:
            OptionError: an option is unknown, missing, or has a wrong value; every problem is named.
            PluginBroken: the plugin's own checks of options fail in a way that no option explains.
        """
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise OptionError(explain(error, f"{cls.kind} '{cls.name}'", cls.model_fields)) from None
        except (PsiflowError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a validator is somebody else's code
            cause = f"{type(error).__name__}: {said_by(error)}"
            raise PluginBroken(f"{cls.kind} '{cls.name}' fails over its options ({cause}); mend its plugin") from error

    def options(self) -> Plain:
        """Every option as JSON data, defaults included."""
        return self.model_dump(mode="json")

    def check(self, structures: Sequence[Atoms]) -> None:
        """Refuse what cannot work with these structures before anything expensive starts.

        Runs once on a worker, where the engine can be imported. There may be no structures: `psiflow doctor`
        asks so.

        Raises:
            StructureError, OptionError: what is wrong and what to do.
        """


class Resources(NamedTuple):
    """What a task may use on its worker."""

    cores: int = 1
    device: str = "cpu"
    """`"cpu"` or `"cuda"`."""
    memory: float | None = None
    """[GiB]; None if the pool sets no limit."""
    wall_time: float | None = None
    """[s]; None if the pool sets no limit."""
    silence: float | None = None
    """How long a task may do nothing. [s]; None if the pool sets no limit."""


# Potentials ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingTask:
    """One training: of one member, from scratch or from a parent."""

    training: Sequence[Atoms]
    """Labelled structures (`psiflow_core.structures.label_of`)."""
    validation: Sequence[Atoms]
    """Labelled structures that are never trained on; may be empty."""
    atomic_energies: dict[str, float]
    """Energy of each isolated atom by chemical symbol. [eV]"""
    seed: int
    folder: Path
    """Where checkpoints go. The same for every attempt, so that a killed training is resumed."""
    parent: Path | None = None
    """A model of the same potential to start from: weights, scale and atomic energies are kept."""
    steps: int | None = None
    """Gradient steps; None leaves the number to the potential's own options."""
    resources: Resources = Resources()


@dataclass(frozen=True)
class TrainingResult:
    model: Path
    """The trained weights, inside `TrainingTask.folder`."""
    steps: int
    """Gradient steps that were taken, those of resumed attempts included."""
    errors: dict[str, float]
    """RMSE and MAE: `force_rmse`, `force_mae` [eV/Å], `energy_rmse`, `energy_mae` [eV/atom], and
    `stress_rmse` [eV/Å³] where there are stresses; on the validation set if there is one, else on the
    training set."""
    history: list[dict[str, float]] = field(default_factory=list)
    """`{"step", "loss", …}` as the training went on."""


@dataclass(frozen=True)
class Prediction:
    """What a predictor says of a structure."""

    energy: float
    """[eV]"""
    forces: Array
    """Shape (atoms, 3). [eV/Å]"""
    stress: Array | None = None
    """ASE's sign and Voigt order, shape (6,); None unless periodic in all three directions. [eV/Å³]"""
    deviation: Array | None = None
    """Spread of the forces in a committee, shape (atoms,): the standard deviation of each atom's force
    over the members, as in Zhang et al., Phys. Rev. Mater. 3, 023804 (2019). None without a committee. [eV/Å]"""

    def to_plain(self) -> Plain:
        return {
            "energy": float(self.energy),
            "forces": self.forces.tolist(),
            "stress": None if self.stress is None else self.stress.tolist(),
            "deviation": None if self.deviation is None else self.deviation.tolist(),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Prediction:
        stress, deviation = (
            None if plain[name] is None else np.asarray(plain[name], float) for name in ("stress", "deviation")
        )
        forces = np.asarray(plain["forces"], float)
        return cls(plain["energy"], forces if forces.size else forces.reshape(-1, 3), stress, deviation)


class Predictor(ABC):
    """A loaded model. Batched first: everything else is made from `predict`.

    It is read only: copies of structures that carry its calculator share it. It has to be picklable, so that the
    calculator reaches other processes.
    """

    cutoff: float = 0.0
    """The largest distance at which the model sees a neighbour. [Å]"""

    @abstractmethod
    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        """Energies, forces and, for periodic structures, stresses, in the order of the input."""

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        """Per-atom descriptors that rotation and translation leave alone, each of shape (atoms, features).

        Raises:
            NotImplementedError: the potential has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def calculator(self) -> Calculator:
        """An ASE calculator that asks this predictor."""
        from psiflow_core.predictors import PredictorCalculator

        return PredictorCalculator(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Predictor:
        return self


class Potential(Component):
    """A trainable architecture with its hyperparameters."""

    kind: ClassVar[Kind] = "potential"
    native_suffix: ClassVar[str] = ".model"
    """How the name of a file ends that `export` writes."""

    @abstractmethod
    def train(self, task: TrainingTask) -> TrainingResult:
        """Train, and resume from `task.folder` if an earlier attempt left a checkpoint there.

        Raises:
            TrainingFailed: the loss is not finite, or there is nothing to train on.
        """

    @abstractmethod
    def load(self, model: Path, device: str = "cpu") -> Predictor:
        """The predictor of a model that `train` wrote."""

    def export(self, model: Path, target: Path) -> None:
        """Write a model in the architecture's own format, which its own tools read.

        Raises:
            NotImplementedError: the potential has no other format.
        """
        raise NotImplementedError(f"potential '{self.name}' has no format of its own to export to")


# Samplers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walker:
    """One trajectory under way."""

    structure: Atoms
    """Positions, cell, and momenta once it has moved."""
    state: bytes | None = None
    """What the sampler needs beyond the structure to go on exactly; None at the start."""
    step: int = 0
    """Steps since the start."""


@dataclass(frozen=True)
class SamplingTask:
    steps: int
    """Steps of this segment."""
    seed: int
    """0 ≤ seed < 2³¹. Where the walker's state holds a stream of random numbers, that goes on instead."""
    check_every: int = 10
    """Steps between two calls of the monitor; the last step is always checked."""
    stride: int | None = None
    """Steps between two frames of the trajectory; None keeps none."""
    resources: Resources = Resources()


Monitor = Callable[[int, Atoms], str | None]
"""Called with the step of the segment and the structure as it is, momenta included; returns None, or the
reason why the sampler has to stop here. It asks the committee itself."""


@dataclass(frozen=True)
class Segment:
    walker: Walker
    """Where it ended: continuing from here is as if the segment had not ended."""
    steps: int
    """Steps that were taken."""
    stopped: str | None = None
    """The monitor's reason; None if the segment ran to its end."""
    finished: bool = False
    """The trajectory has ended by itself: an optimisation that has converged."""
    frames: list[Atoms] = field(default_factory=list)
    """The trajectory, each with potential energy and forces in its calculator if the sampler asked for them."""
    averages: dict[str, float] = field(default_factory=dict)
    """Means over the segment's checks: `temperature` [K], `potential_energy` [eV], `volume` [Å³] where they
    mean something."""


class Sampler(Component):
    """A way to move through phase space."""

    kind: ClassVar[Kind] = "sampler"

    @abstractmethod
    def sample(self, walker: Walker, forces: Calculator, task: SamplingTask, monitor: Monitor) -> Segment:
        """Move the walker for one segment.

        One call moves one walker; several may run at once, in threads of one process, and their force calls
        are then served by one batched prediction. A walker without momenta is given them by the sampler, from
        the Maxwell-Boltzmann distribution where it has a temperature.

        Whatever ``forces`` raises (`WalkerExploded`, for forces that are not finite) leaves as it came.
        """

    def target_temperature(self) -> float | None:
        """What the kinetic temperature is checked against; None for samplers without a thermostat. [K]"""
        return None


# References ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelTask:
    folder: Path
    """Scratch; empty at the start, kept after a failure."""
    resources: Resources = Resources()


class Reference(Component):
    """A level of theory run by a quantum-chemistry code."""

    kind: ClassVar[Kind] = "reference"

    @abstractmethod
    def label(self, structure: Atoms, task: LabelTask) -> Label:
        """Energy, forces, and stress for periodic structures, at ``info["charge"]`` and ``info["spin"]``.

        Raises:
            ReferenceFailed: with a reason. What is returned can be trusted.
        """


# Executors -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """A group of equal workers, as an executor is asked to make it."""

    label: str
    folder: Path
    """For scripts and logs of this pool."""
    python: tuple[str, ...]
    """The words that start the Python of its workers: an interpreter, or a container's command before one."""
    driver: int
    """Process id of the driver: a worker whose driver has died must end."""
    isolated: bool = False
    """Whether that Python is another environment's: what the driver sets for its own must not reach it."""

    def __post_init__(self) -> None:
        if isinstance(self.python, str):
            raise OptionError(f"python={self.python!r}: give the words of the command, ({self.python!r},)")


class Executor(Component):
    """A way to get workers. One that starts processes is a `psiflow_core.blocks.Blocks`."""

    kind: ClassVar[Kind] = "executor"

    @abstractmethod
    def build(self, pool: Pool) -> ParslExecutor:
        """A new Parsl executor: that of `Blocks`, or threads of the driver; pools refuse any other.

        Called once per pool; the objects are not reusable.
        """

    @abstractmethod
    def slots(self) -> int:
        """Tasks that can run at once when all workers are there."""

    @abstractmethod
    def resources(self) -> Resources:
        """What one task may use."""


# Options ---------------------------------------------------------------------------------------------------


class Policy(BaseModel):
    """Options that belong to no component: of a campaign and of what it asks samplers to watch; frozen.

    Raises:
        OptionError: an option is unknown, missing or out of range; every problem is named.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **rest: Any) -> None:
        super().__pydantic_init_subclass__(**rest)
        cls.__doc__ = documented(cls)

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise OptionError(explain(error, type(self).__name__, type(self).model_fields)) from None


def explain(error: ValidationError, owner: str, known: Iterable[str]) -> str:
    """One clause for each problem that pydantic found: the option, its value, what is allowed."""
    return f"{owner}: " + "; ".join(_clause(problem, list(known)) for problem in error.errors())


def _policies(root: type[Policy] = Policy) -> Iterator[type[Policy]]:
    """Every policy that has been imported."""
    for found in root.__subclasses__():
        yield found
        yield from _policies(found)


def _clause(problem: Any, known: list[str]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown option '{where}'.{did_you_mean(where, known)} Options: {', '.join(known) or 'none'}"
    if problem["type"] == "missing":
        return f"option '{where}' is missing"
    value, context = problem["input"], problem.get("ctx", {})
    if isinstance(context.get("error"), OptionError):
        return _passed_on(where, str(context["error"]))
    owner = _policy(context.get("class_name"))
    said = _how_to_write(owner, where, value) if owner else problem["msg"].removeprefix("Value error, ")
    return f"{where}={value!r}: {said}" if where else said


def _passed_on(where: str, said: str) -> str:
    """What a component or a policy says of itself, as its owner says it."""
    owner, _, rest = said.partition(": ")
    if _policy(owner):
        return f"{where}: {rest}"
    return said if said.startswith(where) else f"{where}: {said}"


def _policy(name: str | None) -> type[Policy] | None:
    return next((policy for policy in _policies() if policy.__name__ == name), None)


def _how_to_write(policy: type[Policy], option: str, value: object) -> str:
    """What to write instead of a bare value: `Budget(labels=12)`."""
    field = next(iter(policy.model_fields))
    number = f"{value!r}" if policy.model_fields[field].is_required() and isinstance(value, int | float) else "…"
    return f"write {policy.__name__}({field}={number}), in YAML {option}: {{{field}: {number}}}"


def finite(prediction: Prediction) -> bool:
    """Whether energy, forces and, where there is one, the committee's spread are numbers."""
    spread = 0.0 if prediction.deviation is None else prediction.deviation
    return all(bool(np.isfinite(value).all()) for value in (prediction.energy, prediction.forces, spread))
