"""The biases of one walker under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from psiflow_core.components import Bias, Memory, Prediction, Walker, finite
from psiflow_core.components.predictor import total
from psiflow_core.errors import WalkerExploded
from psiflow_core.structures import Array, Plain


class WalkerBias:
    """Adds biases to the forces of a walker, and remembers for them.

    What a check changes does not act on the structure that was checked: its forces are known already, and a sampler
    may use them once more or ask again, as one does that goes on from a file. Both give the same trajectory.
    """

    def __init__(
        self, biases: Sequence[Bias], walker: Walker, kept: Sequence[Plain], temperature: float | None
    ) -> None:
        """
        Args:
            kept: the result of `to_plain` at the end of the walker's last segment; empty at its start.
            temperature: the sampler's; None for one without a thermostat. [K]
        """
        self.biases = list(biases)
        self._start = walker.step
        self._temperature = temperature
        fresh = Memory(step=walker.step, previous=walker.step)
        known = [Memory.from_plain(plain) for plain in kept] or [fresh] * len(self.biases)
        memories = [replace(memory, temperature=temperature) for memory in known]
        together = zip(self.biases, memories, strict=True)
        self.memories = [bias.begin(memory, walker.structure) for bias, memory in together]
        self._checked = _place(walker.structure)

    def over(self, ask: Callable[[Atoms], Prediction]) -> Callable[[Atoms], Prediction]:
        """The same question, with the biases in the answer."""
        return lambda structure: self.added(structure, ask(structure))

    def added(self, structure: Atoms, prediction: Prediction) -> Prediction:
        """A prediction and the biases.

        Raises:
            WalkerExploded: a bias is not finite.
        """
        together = zip(self.biases, self._memories_at(structure), strict=True)
        with np.errstate(all="ignore"):  # values that are not finite are refused below
            parts = [bias.evaluate(structure, memory) for bias, memory in together]
        biased = total([prediction, *parts])
        if not finite(biased):
            raise WalkerExploded("energy or forces of a bias are not finite")
        return biased

    def look(self, step: int, structure: Atoms) -> None:
        """Remember a structure that was sound at a check.

        Args:
            step: of the segment.
        """
        self.memories = [
            bias.look(memory, structure, self._start + step, self._temperature)
            for bias, memory in zip(self.biases, self.memories, strict=True)
        ]
        self._checked = _place(structure)

    def to_plain(self) -> list[Plain]:
        """What the walker takes along."""
        return [memory.to_plain() for memory in self.memories]

    def _memories_at(self, structure: Atoms) -> list[Memory]:
        same = all(map(np.array_equal, _place(structure), self._checked))
        return [memory.before() for memory in self.memories] if same else self.memories


def _place(structure: Atoms) -> tuple[Array, Array]:
    return structure.positions.copy(), np.array(structure.cell)
