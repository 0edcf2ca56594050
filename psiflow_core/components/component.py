"""The base of all components: kind, name and options; and the spec, a component as plain data."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ase import Atoms
from pydantic import BaseModel, ConfigDict, ValidationError

from psiflow_core.components.options import documented
from psiflow_core.components.policy import refusal
from psiflow_core.errors import PluginBroken, PsiflowError
from psiflow_core.kinds import Kind
from psiflow_core.structures import Plain, sha256
from psiflow_core.texts import said_by


@dataclass(frozen=True)
class Spec:
    """A component as plain data: for the journal, hashes, YAML and workers."""

    kind: Kind
    name: str
    options: Plain
    """Every option of the component, defaults included."""
    distribution: str = ""
    """The distribution that registers the component, `psiflow-mace` for instance."""
    version: str = ""
    """Its version: a new version may give other numbers, so it is part of a task's identity."""
    parts: tuple[Spec, ...] = ()
    """Components among its options, such as the variables of a bias; they may belong to other distributions."""

    def to_plain(self) -> Plain:
        return {
            "kind": self.kind,
            "name": self.name,
            "options": self.options,
            "distribution": self.distribution,
            "version": self.version,
            **({"parts": [part.to_plain() for part in self.parts]} if self.parts else {}),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Spec:
        return cls(**{**plain, "parts": tuple(map(cls.from_plain, plain.get("parts", ())))})

    @property
    def all(self) -> tuple[Spec, ...]:
        """Itself and its parts: one environment has to contain them all."""
        return (self, *self.parts)

    @property
    def digest(self) -> str:
        """Stable across processes and machines."""
        return sha256(self.to_plain())


class Component(BaseModel, ABC):
    """A named class with options. Options are fields with a docstring each, which ends with the unit in brackets."""

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
    """The importable package of the engine, `"torch"` for instance; empty if psiflow or a program does the work."""
    program: ClassVar[str] = ""
    """The program that does the work, if no package does; `check` tests whether it starts."""

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
            raise refusal(error, f"{cls.kind} '{cls.name}'", cls.model_fields) from None
        except (PsiflowError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a plugin's validator can raise anything
            cause = f"{type(error).__name__}: {said_by(error)}"
            raise PluginBroken(f"{cls.kind} '{cls.name}' fails over its options ({cause}); mend its plugin") from error

    def options(self) -> Plain:
        """Every option as JSON data, defaults included."""
        return self.model_dump(mode="json")

    def check(self, structures: Sequence[Atoms]) -> None:
        """Refuse structures or options that cannot work, before anything expensive starts.

        Runs once on a worker, where the engine can be imported; for biases and variables, in the driver. The list may
        be empty: `psiflow doctor` checks without structures.

        Raises:
            StructureError, OptionError: the message states the problem and the remedy.
        """


class Resources(NamedTuple):
    """The limits of a task on its worker."""

    cores: int = 1
    device: str = "cpu"
    """`"cpu"` or `"cuda"`."""
    memory: float | None = None
    """[GiB]; None if the pool sets no limit."""
    wall_time: float | None = None
    """[s]; None if the pool sets no limit."""
    silence: float | None = None
    """Longest time without processor use. [s]; None if the pool sets no limit."""
