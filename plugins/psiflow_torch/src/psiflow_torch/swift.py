"""When compiled code is used: once it is there, and once compiling pays."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from psiflow_torch.compiled import Code, Compiled, has_compiler

log = logging.getLogger("psiflow.torch")

NOTED = 5.0
"""Time without code after which it is noted for other processes, and code is looked for. [s]"""

Choice = Literal["auto", "always", "never"]


class Swift:
    """The compiled code of a program, if there is some.

    What goes wrong with it is a warning in the log: the network itself always works.

    Args:
        make: gives the code, compiled or not.
    """

    def __init__(self, make: Callable[[], Code], choice: Choice, potential: str) -> None:
        self.compiled: Compiled | None = None
        self._potential, self._seconds = potential, 0.0
        self._code: Code | None = None
        if choice == "never":
            return
        try:
            code = make()
        except (OSError, RuntimeError) as error:  # no home directory
            self._give_up(error)
            return
        if choice == "always" or code.exists:
            self._take_up(code, wait=True)
        elif has_compiler():
            self._code = code

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the time of work without code; compile if it pays."""
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
            found = code.load(wait)
        except Exception as error:  # a compiler's, or of a file of another machine: there is always the network itself
            self._give_up(error)
            return
        if found is not None:
            self.compiled, self._code = found, None

    def _give_up(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}"
        log.warning("potential '%s' works without compiled code: %s", self._potential, what)
        self._code = None
