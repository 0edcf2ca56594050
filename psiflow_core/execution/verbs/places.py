"""The folder of a context's verbs: labels, models, walkers and the results of tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from psiflow_core.errors import CampaignError
from psiflow_core.execution.tasks.request import Request
from psiflow_core.files import writing
from psiflow_core.processes.claims import claimed

R = TypeVar("R", bound=Request)

CAMPAIGN = "journal.sqlite"
"""The file that marks the folder of a campaign."""

CLAIM = "context.claim"
"""The file that names the process using a folder."""

MARK = "context"
"""The file that marks the folder of a context; campaigns refuse it."""

DIGITS = 24
"""Characters of a request's identity in the name of its folder."""


@dataclass(frozen=True)
class Places:
    """The paths in the folder of a context."""

    folder: Path
    labels: Path
    """The store of labels: the folder's own, or a shared one."""

    @property
    def own_labels(self) -> Path:
        """The folder's own store of labels."""
        return self.folder / "labels"

    @property
    def given(self) -> Path:
        """Labelled structures given to trainings and evaluations, by content hash."""
        return self.folder / "given"

    @property
    def structures(self) -> Path:
        """Structures that walkers met, by content hash."""
        return self.folder / "structures"

    @property
    def models(self) -> Path:
        """Trained weights, by content hash."""
        return self.folder / "models"

    @property
    def walkers(self) -> Path:
        """Walkers from outside this folder, by content hash."""
        return self.folder / "walkers"

    @property
    def tasks(self) -> Path:
        """A folder for each task, named by its identity."""
        return self.folder / "tasks"

    def place(self, request: R) -> R:
        """The same request, with its fixed folder in this context."""
        return request.model_copy(update={"folder": self.tasks / f"{request.kind}-{request.identity[:DIGITS]}"})


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Lock a folder for the verbs of this process.

    Raises:
        CampaignError: the folder is in use, belongs to a campaign, or cannot be written.
    """
    if (folder / CAMPAIGN).exists():
        raise CampaignError(f"{folder} is the folder of a campaign; give the context another folder: Context(folder=…)")
    with contextlib.ExitStack() as ending:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            other = ending.enter_context(claimed(folder / CLAIM))
            (folder / MARK).touch()
        if other is not None:
            raise CampaignError(f"{folder} is used by {other}; wait for it, or give the context another folder")
        yield
