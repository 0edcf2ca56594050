"""The parts of every task: a request with an identity, a grant of the worker, a result, and an outcome."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationError

from psiflow_core.components import Kind, Resources, Spec
from psiflow_core.errors import FileCorrupt
from psiflow_core.execution.failures import SPARED, Failure, failure
from psiflow_core.execution.tasks.manifest import Manifest
from psiflow_core.execution.transport.ticket import Ticket
from psiflow_core.identity import Place, Typed
from psiflow_core.potentials.trained import ModelFile
from psiflow_core.structures import Plain, sha256

Work = Literal["train", "sample", "label"]
"""The kinds of work; each may have a pool."""

WORK: Mapping[Kind, Work] = {"potential": "train", "sampler": "sample", "reference": "label"}
"""The kind of work of each kind of component."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Result(Typed, strict=True):
    """The result of a task. Types are checked strictly, because a worker or a disk may return anything."""

    def to_plain(self) -> Plain:
        """As JSON data, converted to Python's built-in types."""
        plain: Plain = json.loads(self.model_dump_json())
        return plain


class Grant(Typed):
    """The resources of a worker for a task; they do not affect the task's identity."""

    resources: Resources = Resources()
    takes: float = 0.0
    """How long such a task takes, by experience; 0 if that is not known, or if it stops before its block ends. [s]"""
    homes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Python commands, by name, for potentials that are missing in the task's environment."""
    ticket: Ticket | None = None
    """For a worker that does not see the driver's files: how it reaches those of the task."""


class Request(Typed, ABC):
    """The request of a task. Fields with paths are no part of its identity."""

    kind: ClassVar[str]
    work: ClassVar[Work]
    result: ClassVar[type[Result]]
    stops: ClassVar[bool] = False
    """Whether it stops by itself before its block ends, and goes on in another block."""
    lists: ClassVar[Mapping[str, type[Manifest]]] = MappingProxyType({})
    """The fields with the file of a list of labels, and the kind of the list."""

    folder: Place | None = None
    """The task's folder, for its files and its outcome, and its working directory. None without one."""

    @abstractmethod
    def run(self, grant: Grant) -> Result:
        """Do the work, on a worker."""

    @property
    def pool(self) -> Work:
        """The kind of work whose pool runs the task."""
        return self.work

    @property
    def needs(self) -> tuple[Spec, ...]:
        """Components that the environment of the task has to contain."""
        return ()

    @property
    def asks(self) -> tuple[Spec, ...]:
        """Potentials that give predictions; they may be in other environments."""
        return ()

    def objection(self, result: Result) -> str | None:
        """Why a result does not belong to this request; None if it does."""
        return None

    def is_late(self, result: Result) -> bool:
        """Whether a file of a result cannot be seen yet: a worker on another machine has just written it.

        The result holds the hashes of its files, by which a wrong file is told from a late one.
        """
        try:
            for file in self.result_files(result):
                file.verified()
        except FileCorrupt as error:
            return error.late
        return False

    def result_files(self, result: Result) -> list[ModelFile]:
        """The files of a result in this task's folders, by their hashes."""
        return []

    @property
    def places(self) -> list[Path]:
        """The folders that it writes into."""
        return [value for name in type(self).model_fields if isinstance(value := getattr(self, name), Path)]

    def kept(self) -> list[Path]:
        """Files in these folders that it reads, or that another attempt would read; some may be missing."""
        return []

    @property
    def claim(self) -> Path | None:
        """The claim that is held while the task runs; for a task elsewhere, its driver holds it."""
        return None

    def claimed_by(self, other: str) -> Result:
        """The result if another process holds the claim: it computes the same."""
        raise NotImplementedError(f"a task of kind '{self.kind}' has no claim")

    def landing(self, file: Path) -> Path:
        """The place of a file that it has written for the driver, if a shared folder refuses it."""
        return file

    @property
    def identity(self) -> str:
        """The SHA-256 of its kind and its identifying fields."""
        return sha256([self.kind, super().identity])

    def placed(self, tasks: Path, name: str) -> Self:
        """The same request, in a folder named after it and its identity."""
        return self.model_copy(update={"folder": tasks / f"{name}-{self.identity[:8]}"})

    def apart(self, folder: Path) -> Self:
        """The same request, with all files that it writes, except for a label, in another folder."""
        return self.model_copy(update={"folder": folder})

    @property
    def own_folder(self) -> Path:
        """Its folder; raises `ValueError` without one."""
        if self.folder is None:
            raise ValueError(f"a task of kind '{self.kind}' needs a folder: {type(self).__name__}(folder=…)")
        return self.folder

    def attempt(self) -> Path:
        """A new folder for this attempt: an orphaned attempt and its successor never share files."""
        attempt = self.own_folder / f"attempt-{uuid.uuid4().hex[:8]}"
        attempt.mkdir(parents=True)
        return attempt


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with a result or with a failure."""

    key: str
    value: Result | None
    failure: Failure | None
    seconds: float = 0.0
    """Wall time on the worker."""
    worker: str = ""
    """Host and process, as `host:process`; `host:` if the process is not known."""
    manager: str = ""
    """The process that started the worker; empty for threads of the driver."""

    @property
    def is_cut(self) -> bool:
        """Whether the task has ended with its block: it has not failed, and is computed again."""
        return self.failure is not None and self.failure.reason in SPARED

    @classmethod
    def read(cls, key: str, request: Request, plain: Plain) -> Outcome:
        """The outcome in a worker's answer. An invalid result is a failure."""
        ran = plain["seconds"], plain["worker"], plain.get("manager", "")
        try:
            if plain.get("failure") is not None:
                return cls(key, None, Failure.from_plain(plain["failure"]), *ran)
            return cls(key, believed(request, plain["value"]), None, *ran)
        except ValueError as error:
            why = f"the result of {key} is invalid ({error}); it is computed again"
            return cls(key, None, failure(ValueError(why)), *ran)


def believed(request: Request, plain: object) -> Result:
    """The validated result of a request, from a worker or a file; raises `ValueError` if it is invalid."""
    try:
        result = request.result.from_plain(plain)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from None
    if objection := request.objection(result):
        raise ValueError(objection)
    return result
