"""Labels that another campaign is computing in a shared store: the driver waits for them, no worker does."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import cast

from psiflow_core.execution.tasks.label import Labelled, LabelRequest
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.labels.store import claim_file
from psiflow_core.learning.driver.orders import Order
from psiflow_core.processes.claims import Watch


class Waiting(Collection[str]):
    """Tasks that wait for another campaign: until the label exists, or its claim is released or dead."""

    def __init__(self) -> None:
        self._orders: dict[str, tuple[Order, Watch]] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def __iter__(self) -> Iterator[str]:
        return iter(self._orders)

    def __contains__(self, task: object) -> bool:
        return task in self._orders

    def add(self, order: Order) -> Path:
        """Wait for the label of a task; returns its file."""
        label = cast(LabelRequest, order.request).file
        self._orders[order.task.id] = order, Watch(claim_file(label))
        return label

    def over(self) -> list[Order]:
        """The orders whose wait is over; each is returned once."""
        ended = [key for key, (_, watch) in self._orders.items() if watch.over()]
        return [self._orders.pop(key)[0] for key in ended]


def is_computed_elsewhere(outcome: Outcome) -> bool:
    """Whether the outcome is a label that another campaign is computing."""
    return isinstance(outcome.value, Labelled) and outcome.value.computed_by is not None
