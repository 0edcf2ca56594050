"""When a model is predicted with compiled code: once it is there, and once compiling pays."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from psiflow_torch.architecture import Architecture
from psiflow_torch.compiled import Choice, Code, CompiledNetwork, has_compiler
from psiflow_torch.engine import torch
from psiflow_torch.model import Model

log = logging.getLogger("psiflow.torch")

NOTED = 5.0
"""Time of predictions after which it is noted for other processes, and code is looked for. [s]"""


class Swift:
    """The compiled network of a predictor, if it has one.

    What goes wrong with compiled code is a warning in the log: the network itself always works.

    Args:
        network: predicts without compiled code, and is what that has to agree with.
    """

    def __init__(
        self,
        architecture: Architecture,
        model: Model,
        device: torch.device,
        network: torch.nn.Module,
        choice: Choice,
    ) -> None:
        self.network: CompiledNetwork | None = None
        self._eager, self._potential = network, model.potential
        self._seconds = 0.0
        self._code: Code | None = None
        if choice == "never":
            return
        try:
            code = Code(architecture, model, device)
        except (OSError, RuntimeError) as error:  # no home directory
            self._give_up(error)
            return
        if choice == "always" or code.exists:
            self._take_up(code, wait=True)
        elif has_compiler():
            self._code = code

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the time of a prediction without compiled code; compile if it pays."""
        code = self._code
        if code is None:
            yield
            return
        begun = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begun
        if self._seconds < NOTED:
            return
        seconds, self._seconds = self._seconds, 0.0
        try:
            due = code.exists or code.pays(seconds)
        except (OSError, ValueError) as error:  # a full disk, or a file that was changed
            self._give_up(error)
            return
        if due:
            self._take_up(code, wait=False)

    def _take_up(self, code: Code, wait: bool) -> None:
        try:
            found = code.load(self._eager, wait)
        except Exception as error:  # a compiler's, or of a file of another machine: there is always the network itself
            self._give_up(error)
            return
        if found is not None:
            self.network, self._code = found, None

    def _give_up(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}"
        log.warning("potential '%s' predicts without compiled code: %s", self._potential, what)
        self._code = None
