"""Processes in other environments that answer requests."""

from __future__ import annotations

import atexit
import json
import shlex
import subprocess
import tempfile
import threading
from typing import IO, Any, cast

from psiflow_core.environments.description import variables
from psiflow_core.errors import EngineMissing, PsiflowError, WrongAnswer, rebuilt
from psiflow_core.processes.guard import end_family
from psiflow_core.processes.messages import NoAnswer, token, unframe
from psiflow_core.structures import Plain

_servers: dict[tuple[str, ...], Server] = {}


class ProcessLost(EngineMissing):
    """The process of an environment ended before it answered a request."""


class Server:
    """The process of an environment that answers requests; it starts at the first request, and again after a death."""

    def __init__(self, launch: tuple[str, ...]) -> None:
        self._launch = launch
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._token = token()
        self._asked = 0

    def ask(self, request: Plain) -> Any:
        """The answer to a request.

        Raises:
            EngineMissing: the process cannot be started here, or ended without an answer.
            WrongAnswer: its output is not an answer to this request; the process is then ended.
            PsiflowError: an error that it raised, with the same type.
        """
        with self._lock:
            answer = self._exchange(request)
        if "error" in answer:
            raise _raised(answer["error"])
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
            self.end()  # a late answer must not be taken for the answer to the next request
            raise
        if answer is None:
            raise self._lost()
        if not isinstance(answer, dict) or answer.get("id") != self._asked or not {"value", "error"} & answer.keys():
            raise self._misled(f"it did not answer request {self._asked}")
        return answer

    def _misled(self, why: str) -> WrongAnswer:
        """End the process, and return the error about its wrong answer."""
        self.end()
        return WrongAnswer(
            f"the process of {shlex.join(self._launch)} gave a wrong answer and was ended: {why}; "
            "look for code that prints to its output"
        )

    def end(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            end_family(process)  # a task may have started an engine there
            process.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 as long as the process lives
            # -P: as in `description.ask`
            words = [*self._launch, "-P", "-m", "psiflow_core.execution.serve", self._token]
            try:
                self._process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=variables()
                )
            except OSError as error:
                raise EngineMissing(f"{self._launch[0]} cannot be started: {error.strerror}") from error
        return self._process

    def _lost(self) -> ProcessLost:
        stderr = cast(IO[bytes], self._stderr)
        process, self._process = cast("subprocess.Popen[bytes]", self._process), None
        code = process.wait()
        stderr.seek(0)
        last = stderr.read().decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        return ProcessLost(
            f"the predicting process of {shlex.join(self._launch)} ended with exit code {code}; it printed: {last[0]}"
        )


def _raised(failure: Plain) -> PsiflowError:
    """The error that a process raised. For a type outside psiflow, the message holds its name and place."""
    message, where = failure["message"], failure["where"] or "place unknown"
    error = rebuilt(failure["type"], message, failure["fields"])
    return error or PsiflowError(f"{failure['type']}: {message} ({where})")


def ask_once(launch: tuple[str, ...], request: Plain) -> Any:
    """The answer of an environment to one request, from a process that is ended afterwards.

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
