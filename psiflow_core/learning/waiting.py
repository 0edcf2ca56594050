"""Labels of this campaign that another one is computing, in a store that both share: no worker waits for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from psiflow_core.claims import Watch
from psiflow_core.learning.dispatch import Order
from psiflow_core.tasks import claim_file


class Waiting(Collection[str]):
    """Tasks that wait for somebody else: until the label is there, or its claim was given back, or has died."""

    def __init__(self) -> None:
        self._orders: dict[str, tuple[Order, Watch]] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def __iter__(self) -> Iterator[str]:
        return iter(self._orders)

    def __contains__(self, task: object) -> bool:
        return task in self._orders

    def add(self, order: Order, label: Path) -> None:
        """Wait for a label."""
        self._orders[order.task.id] = order, Watch(claim_file(label))

    def over(self) -> list[Order]:
        """The orders that have waited long enough; they are told once."""
        ended = [key for key, (_, watch) in self._orders.items() if watch.over()]
        return [self._orders.pop(key)[0] for key in ended]
