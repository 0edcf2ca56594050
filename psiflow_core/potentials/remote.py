"""Predictors in the processes of other environments, used like local ones.

Only JSON crosses the pipe: structures one way, predictions the other. So a committee may hold members whose packages
cannot be imported together. The other end is `psiflow_core.execution.serve`. An answer has the number of its
request. A process that answers with another number is ended, because its later answers could not be trusted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ase import Atoms

from psiflow_core import answers
from psiflow_core.components import Prediction, Predictor, Spec
from psiflow_core.environments.environment import home
from psiflow_core.environments.process import ProcessLost, _server
from psiflow_core.errors import WrongAnswer
from psiflow_core.structures import Array, to_plain

_homes: ContextVar[Mapping[str, Sequence[str]]] = ContextVar("_homes", default=MappingProxyType({}))
"""By the name of a potential of the running task: the command that starts the Python of its environment."""


@contextlib.contextmanager
def homes(launches: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """While a task runs: the commands that start the Python of the potentials that this interpreter lacks."""
    before = _homes.set(launches)
    try:
        yield
    finally:
        _homes.reset(before)


def launch_of(spec: Spec) -> tuple[str, ...]:
    """The command that starts a Python with this potential, of any version; raises `PluginNotFound`."""
    return tuple(_homes.get().get(spec.name) or home(replace(spec, version="")).launch)


class Served(Predictor):
    """A model in another environment.

    Raises:
        EngineMissing: the environment's process has ended; the message holds its last output.
        PsiflowError: an error of the predictor, with the same type.
        WrongAnswer: the answer does not fit the request.
    """

    def __init__(self, spec: Spec, model: Path, digest: str, device: str) -> None:
        self._made_of = spec, model, digest, device
        self._server = _server(launch_of(spec))
        described = {"potential": spec.to_plain(), "path": str(model.absolute()), "digest": digest}
        self._known = {"model": described, "device": device}
        self._who = answers.named(spec)
        self.cutoff = float(self._ask("cutoff"))

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        predicted = self._ask("predict", structures=[to_plain(one) for one in structures])
        with self._checking():
            return answers.predictions([Prediction.from_plain(one) for one in predicted], structures, self._who)

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        computed = self._ask("features", structures=[to_plain(one) for one in structures])
        with self._checking():
            return answers.features([np.asarray(one, float) for one in computed], structures, self._who)

    def __reduce__(self) -> tuple[Any, ...]:
        return Served, self._made_of

    def export(self, folder: Path, stem: str) -> Path:
        """Write the model in its architecture's own format; returns the file."""
        return Path(self._ask("export", folder=str(folder.absolute()), stem=stem))

    @contextlib.contextmanager
    def _checking(self) -> Iterator[None]:
        """Read an answer; an answer of the wrong form ends the process."""
        try:
            yield
        except (WrongAnswer, KeyError, TypeError, ValueError) as error:
            self._server.end()
            if isinstance(error, WrongAnswer):
                raise
            raise answers.wrong(
                self._who, f"answered what is no prediction ({type(error).__name__}: {error})"
            ) from error

    def _ask(self, what: str, **more: Any) -> Any:
        request = {"do": what, **self._known, **more}
        try:
            return self._server.ask(request)
        except ProcessLost:  # whatever ended it: a prediction can be repeated
            return self._server.ask(request)
