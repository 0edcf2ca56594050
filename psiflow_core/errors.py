"""What a user can be told. Each error says what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PsiflowError(Exception):
    """The root of every error that psiflow raises on purpose."""


class PluginNotFound(PsiflowError, LookupError):
    """No installed plugin offers a component of this kind and name."""


class PluginBroken(PsiflowError):
    """The plugin that should offer the component could not be loaded; the message holds the cause."""


class EnvironmentUnfit(PsiflowError):
    """An environment cannot serve: it does not start, disagrees in a version, or is not as recorded.

    ``found`` says what is wrong, ``fix`` what to do about it where that is a sentence of its own.
    """

    def __init__(self, found: str, fix: str = "") -> None:
        super().__init__(f"{found.rstrip('.')}. {fix}" if fix else found)
        self.found = found
        self.fix = fix


class OptionError(PsiflowError, ValueError):
    """An option of a component, or of the campaign, is unknown or has a value outside its range."""


class EngineMissing(PsiflowError, ImportError):
    """The package that does a plugin's work cannot be imported where the task runs."""


class StructureError(PsiflowError, ValueError):
    """A structure that nothing should be computed for: empty, NaN, overlapping atoms, impossible spin."""


class ReferenceFailed(PsiflowError):
    """A reference gave no trustworthy label.

    ``reason`` is one of a few words that policies and reports count by:
    ``"unconverged"``, ``"bad input"``, ``"wall time"``, ``"memory"``, ``"engine"``.
    """

    def __init__(self, message: str, reason: str = "engine") -> None:
        super().__init__(message)
        self.reason = reason


class WalkerExploded(PsiflowError):
    """A walker reached a structure for which the potential has no finite answer."""


class TrainingFailed(PsiflowError):
    """A training gave no usable model, because its loss is not finite, for instance."""


class CampaignError(PsiflowError):
    """A campaign cannot start or go on: the folder is taken, unwritable, or another configuration's."""


class FileCorrupt(PsiflowError):
    """A file of psiflow's own cannot be believed: it is missing, cannot be read, or is not what was written.

    ``barred`` says that it is there and that this user may not read it: its content may be sound.
    """

    def __init__(self, message: str, barred: bool = False) -> None:
        super().__init__(message)
        self.barred = barred


class ModelCorrupt(FileCorrupt):
    """A model file is not the one that was recorded: its content hash differs."""


class LabelCorrupt(FileCorrupt):
    """A label's file is missing, or is not what a reference wrote."""


class WrongAnswer(PsiflowError):
    """A plugin returned, or did, what its contract does not allow; the message names the plugin.

    It would only repeat: a campaign ends with it, and goes on once the plugin is mended.
    """


class MembersAlike(WrongAnswer):
    """The members of a committee say the same of every structure, so that their spread tells nothing."""


class WorkerLost(PsiflowError):
    """The process that ran a task died before the task ended."""


class PoolFailed(PsiflowError):
    """The workers of a pool do not start; the message holds what their processes said."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion to end a message with, empty when nothing known resembles ``name``."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
