"""Predictors that live in another environment's process, used as if they were here.

Only JSON crosses the pipe: structures one way, predictions the other. So a committee may hold members whose packages
cannot be imported together. The other end is `psiflow_core.serving`. An answer has the number of its request; whoever
gives another one is ended, for nothing that it says later can be told from it.
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

from psiflow_core import answers, errors
from psiflow_core.components import Prediction, Predictor, Spec
from psiflow_core.environments import home
from psiflow_core.errors import EngineMissing, PsiflowError, WrongAnswer
from psiflow_core.frames import NoAnswer, token, unframe
from psiflow_core.guard import end_family
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
        WrongAnswer: what came back is no answer to what was asked.
    """

    def __init__(self, spec: Spec, model: Path, digest: str, device: str) -> None:
        self._made_of = spec, model, digest, device
        self._server = _server(launch_of(spec))
        told = {"potential": spec.to_plain(), "path": str(model.absolute()), "digest": digest}
        self._known = {"model": told, "device": device}
        self._who = answers.named(spec)
        self.cutoff = float(self._ask("cutoff"))

    def predict(self, structures: Sequence[Atoms]) -> list[Prediction]:
        told = self._ask("predict", structures=[to_plain(one) for one in structures])
        with self._believing():
            return answers.predictions([Prediction.from_plain(one) for one in told], structures, self._who)

    def features(self, structures: Sequence[Atoms]) -> list[Array]:
        told = self._ask("features", structures=[to_plain(one) for one in structures])
        with self._believing():
            return answers.features([np.asarray(one, float) for one in told], structures, self._who)

    def __reduce__(self) -> tuple[Any, ...]:
        return Served, self._made_of

    def export(self, folder: Path, stem: str) -> Path:
        """Write the model in its architecture's own format; returns the file."""
        return Path(self._ask("export", folder=str(folder.absolute()), stem=stem))

    @contextlib.contextmanager
    def _believing(self) -> Iterator[None]:
        """Read an answer; the process ends with one that is not in the shape of what was asked."""
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
        except ProcessLost:  # whoever ended it: what a model says can be asked twice
            return self._server.ask(request)


class Server:
    """The process of an environment that predicts; started when it is first asked, and again when it has died."""

    def __init__(self, launch: tuple[str, ...]) -> None:
        self._launch = launch
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._token = token()
        self._asked = 0

    def ask(self, request: Plain) -> Any:
        """The answer to a request.

        Raises:
            EngineMissing: the process cannot be started here, or has ended without an answer.
            WrongAnswer: what it says is no answer to this request; it is ended.
            PsiflowError: whatever it raises, by its name.
        """
        with self._lock:
            answer = self._exchange(request)
        if "error" in answer:
            raise _raised(answer)
        return answer["value"]

    def _exchange(self, request: Plain) -> Plain:
        process = self._running()
        self._asked += 1
        try:
            process.stdin.write(json.dumps({"id": self._asked, **request}).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            answer = unframe(self._token, cast(IO[bytes], process.stdout))
        except BrokenPipeError:
            answer = None
        except NoAnswer as error:
            raise self._misled(str(error)) from error
        except BaseException:
            self.end()  # an answer that nobody waits for must not be the next one's
            raise
        if answer is None:
            raise self._lost()
        if not isinstance(answer, dict) or answer.get("id") != self._asked or not {"value", "error"} & answer.keys():
            raise self._misled(f"it answered something else than request {self._asked}")
        return answer

    def _misled(self, why: str) -> WrongAnswer:
        """The error of a process that says what was not asked; it has ended by then."""
        self.end()
        return WrongAnswer(
            f"the process of {shlex.join(self._launch)} was ended, for what it says cannot be believed: {why}; "
            "look for what prints or answers in its place"
        )

    def end(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            end_family(process)  # a task may have started an engine there
            process.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 as long as the process lives
            words = [*self._launch, "-P", "-m", "psiflow_core.serving", self._token]  # -P: as in `offers.ask`
            try:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=variables()
                )
            except OSError as error:
                raise EngineMissing(f"{self._launch[0]} cannot be started: {error.strerror}") from error
        return self._process

    def _lost(self) -> ProcessLost:
        said = cast(IO[bytes], self._said)
        process, self._process = cast("subprocess.Popen[bytes]", self._process), None
        code = process.wait()
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        return ProcessLost(
            f"the predicting process of {shlex.join(self._launch)} has ended with exit code {code}; it said: {last[0]}"
        )


def _raised(answer: Plain) -> PsiflowError:
    """The error that a process met; of a type that is not psiflow's, its name and its place are in the message."""
    kind = getattr(errors, answer["type"], None)
    if isinstance(kind, type) and issubclass(kind, PsiflowError):
        return kind(answer["error"])
    return PsiflowError(f"{answer['type']}: {answer['error']} ({answer.get('where') or 'no place is known'})")


def ask_once(launch: tuple[str, ...], request: Plain) -> Any:
    """The answer of an environment to one request, of a process that ends with it.

    Raises:
        EngineMissing, WrongAnswer, PsiflowError: as `Server.ask`.
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
