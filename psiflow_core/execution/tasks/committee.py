"""The committee of a task: its potentials and its predictors."""

from __future__ import annotations

from collections.abc import Sequence

from psiflow_core.answers import Answering
from psiflow_core.components import Spec
from psiflow_core.execution.tasks.request import Grant
from psiflow_core.potentials.trained import Member, load_members


def potentials(members: Sequence[Member]) -> tuple[Spec, ...]:
    """The potentials of a committee, each once."""
    return tuple({member.potential.digest: member.potential for member in members}.values())


def loaded(members: Sequence[Member], grant: Grant) -> list[Answering]:
    """The predictors of a committee on the worker's device."""
    return load_members(members, grant.resources.device)
