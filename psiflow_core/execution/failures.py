"""Failures of tasks: exceptions as data."""

from __future__ import annotations

import errno
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pydantic

from psiflow_core import answers
from psiflow_core.errors import Field, Interrupted, PsiflowError, ReferenceFailed, fields_of, rebuilt
from psiflow_core.files import write_atomically
from psiflow_core.identity import Typed
from psiflow_core.processes.block import INTERRUPTED
from psiflow_core.texts import one_line, said_by, shortened

NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Error numbers of a full disk, a spent quota, a limit on files and a read-only disk."""


MESSAGE = 4000
"""Characters of a failure's message that are kept in the journal; of a longer one head and tail."""


TRACE = 16000
"""The same of its trace."""


WORD = 80
"""The same of its reason, and of the name of its type."""


PLACE = 300
"""The same of a plugin's name, and of the place where an exception was raised."""

ATTEMPTS = 3
"""Number of attempts of a task before its failure is final."""

MACHINE = ("lost worker", "memory", "hung")
"""Reasons of failures that may be the machine's fault."""

ENDED = (*MACHINE, "wall time")
"""Reasons of failures in which the worker was lost."""

UNFINISHED = "unfinished"
"""The reason of a task that a worker gave back, because its block would have ended first."""

SPARED = (INTERRUPTED, UNFINISHED)
"""Reasons of ends of blocks. They are no failures, and spend no attempt: the task is computed again."""

OF_HOST = ("lost worker", "hung", "disk")
"""Reasons of failures that may be the fault of a host, and would not repeat on another."""

OF_HOST_TYPES = ("EngineMissing", "PluginNotFound", "PluginBroken")
"""Their types, likewise: a host may lack a file system with software, or a library that a plugin loads."""

ALIKE = "MembersAlike"
"""The failure of a plugin whose trainings all give the same model."""

DIVERGED = "TrainingFailed"
"""The failure of a training that another seed may avoid."""

WRONG = ("WrongAnswer", ALIKE)
"""Failures of plugins that break their contract: none of their answers can be trusted."""

FINAL = ("ReferenceFailed", "StructureError", "OptionError", "EngineMissing", "PluginNotFound", "PluginBroken", *WRONG)
"""Failures that would repeat."""


class Failure(Typed, strict=True):
    """An exception as data."""

    type: str
    """Its class."""
    reason: str
    """A word by which policies and reports count failures."""
    message: str
    plugin: str
    """The plugin that raised it; empty for an error of psiflow's own types."""
    where: str
    """File and line where it was raised."""
    trace: str
    fields: dict[str, Field] = pydantic.Field(default_factory=dict)
    """The fields of a psiflow error, in addition to its message."""

    def error(self, otherwise: Callable[[str], PsiflowError]) -> PsiflowError:
        """The exception, rebuilt with all its fields; for another type than psiflow's, `otherwise` of the message."""
        return rebuilt(self.type, self.message, self.fields) or otherwise(self.told)

    @property
    def told(self) -> str:
        """The message for people."""
        return told(self)


class Told(Protocol):
    """Any class with the fields of a failure."""

    @property
    def type(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def plugin(self) -> str: ...
    @property
    def where(self) -> str: ...


def failure(error: BaseException, folder: Path | None = None, *, reason: str = "", message: str = "") -> Failure:
    """An exception as data, with valid text of bounded length.

    Args:
        folder: the task's folder; a longer text is written there in full, and the short text names the file.
        reason, message: replace those of the exception.
    """
    message = message or said_by(error)
    trace = "".join(traceback.format_exception(error))
    whole = ""
    if len(message) > MESSAGE or len(trace) > TRACE:
        whole = _whole(message, trace, folder)
    return Failure(
        type=one_line(type(error).__name__, WORD),
        reason=one_line(reason or _reason(error), WORD),
        message=shortened(message, MESSAGE, whole),
        plugin=one_line(answers.blame(error), PLACE),
        where=one_line(_where(error), PLACE),
        trace=shortened(trace, TRACE, whole),
        fields=fields_of(error),
    )


def worth_another(kind: str, type: str, reason: str) -> bool:
    """Whether a failed task of a kind is worth another attempt.

    A task that took too long would take as long again; a training resumes from its checkpoint.
    """
    if reason == "wall time" and kind != "train":
        return False
    return reason in MACHINE or type not in FINAL


def told(failure: Told) -> str:
    """The message of a failure; for an unexpected exception of a plugin, with the plugin, the type and the place."""
    if not failure.plugin:
        return failure.message
    place = f" ({failure.where})" if failure.where else ""
    return f"{failure.plugin} raised {failure.type}: {failure.message}{place}"


def _where(error: BaseException) -> str:
    """File and line where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _whole(message: str, trace: str, folder: Path | None) -> str:
    """Write the whole message and traceback into the task's folder; returns a text with the path."""
    if folder is None:
        return ""
    file = folder / f"failure-{uuid.uuid4().hex[:8]}.txt"
    content = trace if message in trace else f"{message}\n\n{trace}"
    try:
        write_atomically(file, content.encode(errors="backslashreplace"), durable=False)
    except OSError as error:
        return f"they could not be kept: {error.strerror}"
    return f"full text: {file}"


def _reason(error: BaseException) -> str:
    """A word by which policies and reports count failures."""
    if isinstance(error, ReferenceFailed):
        return str(error.reason)
    if isinstance(error, Interrupted):
        return UNFINISHED
    if isinstance(error, OSError) and error.errno in NO_DISK:
        return "disk"
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate" in said_by(error):
        return "memory"
    return "error"
