"""The errors that psiflow raises on purpose. Each message says what is wrong and what to do about it.

All of them are public names of psiflow (`psiflow.CampaignError`):

    PsiflowError
        CampaignError         a campaign cannot start or continue
        StructureError        an unsuitable structure, or an unsuitable file of structures (ValueError)
        OptionError           an unknown option, or a value outside its range (ValueError)
        PluginNotFound        no plugin provides a component of this kind and name (LookupError)
        PluginBroken          a plugin cannot be loaded
        EngineMissing         the package behind a plugin cannot be imported (ImportError)
        EnvironmentUnfit      an environment cannot be used
        ReferenceFailed       a reference gave no trustworthy label
        WalkerExploded        the potential gave no finite prediction
        TrainingFailed        a training gave no usable model
        TaskFailed            a task of a context's verb failed, and the result needs it
        TooManyFailures       more tasks of a verb failed than it tolerates
        ContextLeft           the context was left before the result was complete
        WrongAnswer           a plugin violated its contract
            MembersAlike      the members of a committee are identical
        FileCorrupt           a file written by psiflow is missing or damaged
            ModelCorrupt      … a model
            LabelCorrupt      … a label
        WorkerLost            the process of a task died
        Interrupted           the block of a worker ends before its task can
        PoolFailed            the workers of a pool do not start
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import NamedTuple

Field = str | bool | int | float | None
"""The value of an error's field: a scalar of JSON."""


class Problem(NamedTuple):
    """One wrong option, and its place among the options that were given."""

    where: tuple[str | int, ...]
    """Keys and indices on the way to the option. A missing option counts as its owner."""
    words: str
    wants_text: bool = False
    """Whether the option is a text, and its value is not."""


class PsiflowError(Exception):
    """The base class of all errors that psiflow raises on purpose."""


class PluginNotFound(PsiflowError, LookupError):
    """No installed plugin provides a component of this kind and name."""


class PluginBroken(PsiflowError):
    """The plugin of a component could not be loaded; the message holds the cause."""


class EnvironmentUnfit(PsiflowError):
    """An environment cannot be used: it does not start, has another version, or differs from its description.

    ``found`` is the problem; ``fix`` is the remedy, if that is a separate sentence.
    """

    def __init__(self, found: str, fix: str = "") -> None:
        super().__init__(f"{found.rstrip('.')}. {fix}" if fix else found)
        self.found = found
        self.fix = fix


class OptionError(PsiflowError, ValueError):
    """An option of a component, or of the campaign, is unknown or has a value outside its range.

    ``problems`` has the single problems and their places, if the options were checked together.
    """

    problems: tuple[Problem, ...] = ()

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class EngineMissing(PsiflowError, ImportError):
    """The package behind a plugin cannot be imported where the task runs."""


class StructureError(PsiflowError, ValueError):
    """A structure is unsuitable for a calculation: empty, NaN, overlapping atoms, impossible spin."""


class ReferenceFailed(PsiflowError):
    """A reference gave no trustworthy label.

    ``reason`` is one of a few words, by which policies and reports count failures:
    ``"unconverged"``, ``"bad input"``, ``"wall time"``, ``"memory"``, ``"hung"``, ``"engine"``.
    """

    def __init__(self, message: str, reason: str = "engine") -> None:
        super().__init__(message)
        self.reason = reason


class WalkerExploded(PsiflowError):
    """A walker reached a structure for which the potential gave no finite prediction."""


class TrainingFailed(PsiflowError):
    """A training gave no usable model, for instance because its loss is not finite."""


class CampaignError(PsiflowError):
    """A campaign cannot start or continue: the folder is in use, unwritable, or has another configuration."""


class TaskFailed(PsiflowError):
    """A task of a context's verb failed, and the result needs it; the message says why."""


class TooManyFailures(PsiflowError):
    """More parts of a context's verb failed than are tolerated; the message says which ones, and why."""


class ContextLeft(PsiflowError):
    """A result was not complete when its context was left."""


class FileCorrupt(PsiflowError):
    """A file written by psiflow is missing, cannot be read, or has changed since.

    ``barred`` is True if the file exists but this user may not read it: its content may be intact. ``late`` is True if
    it is missing on a file system of several machines, where it may appear later.
    """

    def __init__(self, message: str, barred: bool = False, late: bool = False) -> None:
        super().__init__(message)
        self.barred = barred
        self.late = late


class ModelCorrupt(FileCorrupt):
    """A model file has changed since it was recorded: its content hash differs."""


class LabelCorrupt(FileCorrupt):
    """The file of a label is missing, or has changed since the reference wrote it."""


class WrongAnswer(PsiflowError):
    """A plugin violated its contract; the message names the plugin.

    A repetition would fail again. So a campaign ends with this error, and continues once the plugin is repaired.
    """


class MembersAlike(WrongAnswer):
    """The members of a committee predict the same for every structure, so their spread is not an uncertainty."""


class WorkerLost(PsiflowError):
    """The process that ran a task died before the task ended."""


class Interrupted(PsiflowError):
    """The block of a worker ends before its task can. The task is not to blame: it goes on, or begins, in another."""


class PoolFailed(PsiflowError):
    """The workers of a pool do not start; the message holds the output of their processes."""


def fields_of(error: BaseException) -> dict[str, Field]:
    """The fields of a psiflow error, without its message, to be sent to another process."""
    if not isinstance(error, PsiflowError):
        return {}
    public = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if isinstance(value, Field)}


def rebuilt(kind: str, message: str, fields: Mapping[str, Field]) -> PsiflowError | None:
    """An error of another process, with all its fields; None if its type is not one of psiflow's."""
    known = {one.__name__: one for one in _kinds(PsiflowError)}
    if kind not in known:
        return None
    error = known[kind].__new__(known[kind], message)  # its fields are set below: its constructor is not needed
    vars(error).update(fields)
    return error


def _kinds(root: type[PsiflowError]) -> Iterator[type[PsiflowError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion for the end of a message; empty if no known name resembles ``name``."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
