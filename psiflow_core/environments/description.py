"""The description of an interpreter: its versions, plugins, and their components with options.

An interpreter describes itself: ``python -m psiflow_core.environments.description TOKEN`` prints its description in
one line (`psiflow_core.processes.messages`). `ask` runs this command in another environment.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from psiflow_core.components import Component
from psiflow_core.components.schema import schema_of
from psiflow_core.errors import EnvironmentUnfit
from psiflow_core.processes.guard import DROPPED, end_family
from psiflow_core.processes.messages import NoAnswer, frame, token, unframe
from psiflow_core.registry.plugins import Registered, registry
from psiflow_core.structures import Plain

MUST_AGREE = {
    "python": "a worker and its driver must run the same minor version of Python",
    "parsl": "a worker and its driver must run the same version of Parsl",
    "psiflow-core": "a worker and its driver must run the same version of psiflow",
}
"""Software whose versions must agree between driver and environment, and the reason."""

PATIENCE = 600.0
"""How long an environment may take to describe itself: engines may be slow to import. [s]"""


def ask(launch: Sequence[str], engines: bool = False) -> Plain:
    """The description of an environment, printed by its own Python.

    Args:
        launch: the words of the command that starts its Python.
        engines: also import every engine and report its version; this takes seconds to a minute.

    Raises:
        EnvironmentUnfit: the environment does not answer.
        FileNotFoundError: the command does not exist on this machine.
    """
    # -P: packages in the working directory are not part of the environment
    mark = token()
    words = [*launch, "-P", "-m", "psiflow_core.environments.description", mark, *(["--engines"] if engines else [])]
    try:
        code, output, errors = _run(words)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EnvironmentUnfit(f"{launch[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnfit(f"{shlex.join(launch)} did not answer within {PATIENCE:.0f} s") from error
    answer = _answer(output, mark) if code == 0 else None
    if answer is None:
        raise _silent(launch, *(text.decode(errors="replace").strip() for text in (errors, output)))
    return answer


def _run(words: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a command. On an interruption, the command and all its children are ended."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=variables()) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        except BaseException:
            end_family(process)
            raise
    return process.returncode, output, errors


def ask_here(launch: Sequence[str], engines: bool = False) -> Plain:
    """The same for an environment that must start on this machine; raises `EnvironmentUnfit` if it does not."""
    try:
        return ask(launch, engines)
    except FileNotFoundError as error:
        raise EnvironmentUnfit(f"{launch[0]!r} is neither a folder nor a command") from error


def _answer(output: bytes, mark: str) -> Plain | None:
    """The description in the output of an environment; None if the output contains none."""
    with contextlib.suppress(NoAnswer):
        answer = unframe(mark, io.BytesIO(output))
        if isinstance(answer, dict) and {*MUST_AGREE, "components", "broken"} <= set(answer):
            return answer
    return None


def _silent(launch: Sequence[str], errors: str, output: str) -> EnvironmentUnfit:
    """The error for an environment that did not answer, with the cause."""
    words = shlex.join(launch)
    if re.search("unknown option:? -P", errors, re.IGNORECASE):
        return EnvironmentUnfit(f"{words} is older than Python 3.11, which psiflow needs", "Choose a newer Python")
    if "No module named" in errors and "psiflow_core" in errors:
        wanted = f"psiflow-core=={versions()['psiflow-core']}"
        return EnvironmentUnfit(f"{words} has no psiflow", f"Install it there: {words} -m pip install {wanted}")
    fix = "" if errors else "It must start a Python: give an interpreter, or a container's command and its interpreter"
    last = (errors or output or "nothing").splitlines()[-1]
    return EnvironmentUnfit(f"{words} did not describe its components; it printed: {last}", fix)


def versions() -> dict[str, str]:
    """The versions of this interpreter that a driver and its workers must share (`MUST_AGREE`)."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "parsl": version("parsl"), "psiflow-core": version("psiflow-core")}


def variables() -> dict[str, str]:
    """The environment variables for a process of another environment."""
    return {name: value for name, value in os.environ.items() if name not in DROPPED}


def faults(description: Plain) -> Iterator[str]:
    """The faults of an environment: plugins that do not load, and engines that cannot be imported."""
    for plugin, cause in description["broken"].items():
        yield f"plugin {plugin} is broken: {cause}"
    for one in description["components"]:
        if "engine_error" in one:
            kind, name = one["component"]["kind"], one["component"]["name"]
            yield f"the engine of {kind} {name}, {one['engine']}, cannot be imported: {one['engine_error']}"


def changes(before: Plain, now: Plain) -> Iterator[str]:
    """The differences between two descriptions: versions of plugins and engines, components, options."""
    was, is_now = _plugin_versions(before), _plugin_versions(now)
    for name in sorted({*was, *is_now}):
        if was.get(name) != is_now.get(name):
            yield f"{name} was {was.get(name, 'not installed')} and is now {is_now.get(name, 'not installed')}"
    old, new = (
        {f"{one['component']['kind']} {one['component']['name']}": one for one in description["components"]}
        for description in (before, now)
    )
    for name in sorted({*old, *new}):
        yield from _change(name, old.get(name), new.get(name))


def _plugin_versions(description: Plain) -> dict[str, str]:
    return {one["distribution"]: one["version"] for one in description["components"]}


def _change(name: str, was: Plain | None, now: Plain | None) -> Iterator[str]:
    if was is None or now is None:
        yield f"{name} is {'new' if was is None else 'gone'}"
    elif was["component"] != now["component"]:
        yield f"the options of {name} have changed"
    engines = [str(one["engine_version"]) for one in (was, now) if one is not None and "engine_version" in one]
    if len(set(engines)) == 2:
        yield f"the engine of {name} was {engines[0]} and is now {engines[1]}"


def _described(registered: Registered, engines: bool) -> Plain:
    component = registered.component
    description = {
        "component": schema_of(component),
        "distribution": registered.distribution,
        "version": registered.version,
        "engine": component.engine,
    }
    return description | (_engine(component) if engines else {})


def _engine(component: type[Component]) -> Plain:
    """The version of a component's engine, or the error of its import."""
    if not component.engine:
        return {}
    try:
        module = importlib.import_module(component.engine)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an engine's import can fail in any way, sys.exit among them
        return {"engine_error": f"{type(error).__name__}: {error}"}
    return {"engine_version": str(getattr(module, "__version__", ""))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the description of this interpreter in one line: the given token, then JSON."""
    parser = argparse.ArgumentParser(prog="psiflow_core.environments.description")
    parser.add_argument("token")
    parser.add_argument("--engines", action="store_true")
    given = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr):  # output of plugins must not mix with the answer
        plugins = registry()
        description: Mapping[str, Any] = {
            **versions(),
            "components": [_described(registered, given.engines) for registered in plugins.all()],
            "broken": {**plugins.broken, **{f"{kind} {name}": why for (kind, name), why in plugins.clashes.items()}},
        }
    print(frame(given.token, description).decode(), end="")


if __name__ == "__main__":
    main()
