"""Predictors that live in another environment's process, used as if they were here.

Only JSON crosses the pipe: structures one way, predictions the other. So a committee may hold members whose packages
cannot be imported together. The other end is `psiflow_core.serving`.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, cast

import numpy as np
from ase import Atoms

from psiflow_core import errors
from psiflow_core.components import Prediction, Predictor, Spec
from psiflow_core.environments import home
from psiflow_core.errors import EngineMissing, PsiflowError
from psiflow_core.offers import variables
from psiflow_core.structures import Array, Plain, to_plain

_homes: ContextVar[Mapping[str, Sequence[str]]] = ContextVar("_homes", default=MappingProxyType({}))
"""The words that start the Python of the potentials that a task was told of, by name."""

_servers: dict[tuple[str, ...], Server] = {}


@contextlib.contextmanager
def homes(told: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """While a task runs: where the potentials are that this interpreter lacks, by name."""
    before = _homes.set(told)
    try:
        yield
    finally:
        _homes.reset(before)


def launch_of(spec: Spec) -> tuple[str, ...]:
    """What starts the Python that has a potential, of whatever version; raises `PluginNotFound`."""
    return tuple(_homes.get().get(spec.name) or home(replace(spec, version="")).launch)


class ProcessLost(EngineMissing):
    """The process of an environment has ended over a request."""


class Served(Predictor):
    """A model in another environment.

    Raises:
        EngineMissing: the environment's process has ended, with what it said last.
        PsiflowError: whatever the predictor there raises, by its name.
    """

    def __init__(self, spec: Spec, model: Path, digest: str, device: str) -> None:
        self._made_of = spec, model, digest, device
        self._server = _server(launch_of(spec))
        told = {"potential": spec.to_plain(), "path": str(model.absolute()), "digest": digest}
        self._known = {"model": told, "device": device}
        self.cutoff = float(self._ask("cutoff"))

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        return [
            Prediction.from_plain(one) for one in self._ask("predict", structures=[to_plain(one) for one in structures])
        ]

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        told = self._ask("features", structures=[to_plain(one) for one in structures])
        return [np.asarray(one, float) for one in told]

    def __reduce__(self) -> tuple[Any, ...]:
        return Served, self._made_of

    def export(self, folder: Path, stem: str) -> Path:
        """Write the model in its architecture's own format; returns the file."""
        return Path(self._ask("export", folder=str(folder.absolute()), stem=stem))

    def _ask(self, what: str, **more: Any) -> Any:
        request = {"do": what, **self._known, **more}
        try:
            return self._server.ask(request)
        except ProcessLost:  # whoever ended it: what a model says can be asked twice
            return self._server.ask(request)


class Server:
    """The process of an environment that predicts; started when it is first asked, and again when it has died."""

    def __init__(self, launch: tuple[str, ...]) -> None:
        self._launch = launch
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[bytes] | None = None

    def ask(self, request: Plain) -> Any:
        """The answer to a request."""
        with self._lock:
            process = self._running()
            try:
                process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                line = process.stdout.readline()  # type: ignore[union-attr]
            except BrokenPipeError:
                line = ""
            except BaseException:
                self.end()  # an answer that nobody waits for must not be the next one's
                raise
            if not line:
                raise self._lost()
        answer = json.loads(line)
        if "error" in answer:
            kind = getattr(errors, answer["type"], PsiflowError)
            kind = kind if issubclass(kind, PsiflowError) else PsiflowError
            raise kind(answer["error"])
        return answer["value"]

    def end(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 as long as the process lives
            words = [*self._launch, "-P", "-m", "psiflow_core.serving"]  # -P: as in `offers.ask`
            try:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True, env=variables()
                )
            except OSError as error:
                raise EngineMissing(f"{self._launch[0]} cannot be started: {error.strerror}") from error
        return self._process

    def _lost(self) -> ProcessLost:
        said = cast(IO[bytes], self._said)
        process, self._process = cast("subprocess.Popen[str]", self._process), None
        code = process.wait()
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        return ProcessLost(
            f"the predicting process of {shlex.join(self._launch)} has ended with exit code {code}; it said: {last[0]}"
        )


def ask_once(launch: tuple[str, ...], request: Plain) -> Any:
    """The answer of an environment to one request, of a process that ends with it.

    Raises:
        EngineMissing: the environment cannot be started here, or has ended without an answer.
        PsiflowError: whatever it raises, by its name.
    """
    server = Server(launch)
    try:
        return server.ask(request)
    finally:
        server.end()


def _server(launch: tuple[str, ...]) -> Server:
    if launch not in _servers:
        _servers[launch] = Server(launch)
        atexit.register(_servers[launch].end)
    return _servers[launch]
