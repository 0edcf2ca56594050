"""What an interpreter offers: versions, plugins, their components with options. Told by itself, and asked of another.

Run as ``python -m psiflow_core.offers TOKEN`` this module is the one who answers, in a line (`psiflow_core.frames`).
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
from psiflow_core.errors import EnvironmentUnfit
from psiflow_core.frames import NoAnswer, frame, token, unframe
from psiflow_core.guard import DROPPED, end_family
from psiflow_core.plugins import Registered, registry
from psiflow_core.recorded import record
from psiflow_core.structures import Plain

MUST_AGREE = {
    "python": "a worker and its driver have to run the same minor version of Python",
    "parsl": "a worker and its driver have to run the same version of Parsl",
    "psiflow-core": "a worker and its driver have to run the same version of psiflow",
}
"""What has to be the same in driver and environment, and why."""

PATIENCE = 600.0
"""How long an environment may take to tell what it offers: engines may be slow to import. [s]"""


def ask(launch: Sequence[str], engines: bool = False) -> Plain:
    """What an environment offers, told by itself.

    Args:
        engines: import every engine too, and tell its version; seconds to a minute.

    Raises:
        EnvironmentUnfit: it does not answer.
        FileNotFoundError: it cannot be started on this machine.
    """
    # -P: what lies in the working directory is not installed there
    mark = token()
    words = [*launch, "-P", "-m", "psiflow_core.offers", mark, *(["--engines"] if engines else [])]
    try:
        code, said, complaint = _run(words)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EnvironmentUnfit(f"{launch[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnfit(f"{shlex.join(launch)} did not answer within {PATIENCE:.0f} s") from error
    told = _answer(said, mark) if code == 0 else None
    if told is None:
        raise _silent(launch, *(words.decode(errors="replace").strip() for words in (complaint, said)))
    return told


def _run(words: Sequence[str]) -> tuple[int, bytes, bytes]:
    """Exit code, output and complaints of a command; it ends with all that it has started when this is cut short."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=variables()) as process:
        try:
            said, complaint = process.communicate(timeout=PATIENCE)
        except BaseException:
            end_family(process)
            raise
    return process.returncode, said, complaint


def ask_here(launch: Sequence[str], engines: bool = False) -> Plain:
    """The same, of what has to start on this machine; raises `EnvironmentUnfit` where it does not."""
    try:
        return ask(launch, engines)
    except FileNotFoundError as error:
        raise EnvironmentUnfit(f"there is neither a folder nor a command {launch[0]!r}") from error


def _answer(said: bytes, mark: str) -> Plain | None:
    """What an environment offers, among what else was printed; None where it is not told."""
    with contextlib.suppress(NoAnswer):
        told = unframe(mark, io.BytesIO(said))
        if isinstance(told, dict) and {*MUST_AGREE, "components", "broken"} <= set(told):
            return told
    return None


def _silent(launch: Sequence[str], complaint: str, output: str) -> EnvironmentUnfit:
    """Why an environment did not answer."""
    words = shlex.join(launch)
    if re.search("unknown option:? -P", complaint, re.IGNORECASE):
        return EnvironmentUnfit(f"{words} is older than Python 3.11, which psiflow needs", "Choose another")
    if "No module named" in complaint and "psiflow_core" in complaint:
        wanted = f"psiflow-core=={versions()['psiflow-core']}"
        return EnvironmentUnfit(f"{words} has no psiflow", f"Install it there: {words} -m pip install {wanted}")
    fix = "" if complaint else "It has to start a Python: an interpreter, or a container's command before one"
    said = (complaint or output or "nothing").splitlines()[-1]
    return EnvironmentUnfit(f"{words} cannot tell what it offers; it says: {said}", fix)


def versions() -> dict[str, str]:
    """Of this interpreter: what a driver and its workers have to agree about."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "parsl": version("parsl"), "psiflow-core": version("psiflow-core")}


def variables() -> dict[str, str]:
    """The environment variables that a process of another environment is started with."""
    return {name: value for name, value in os.environ.items() if name not in DROPPED}


def faults(offers: Plain) -> Iterator[str]:
    """What does not work in an environment: plugins that do not load, engines that cannot be imported."""
    for plugin, cause in offers["broken"].items():
        yield f"plugin {plugin} is broken: {cause}"
    for one in offers["components"]:
        if "engine_error" in one:
            kind, name = one["component"]["kind"], one["component"]["name"]
            yield f"the engine of {kind} {name}, {one['engine']}, cannot be imported: {one['engine_error']}"


def changes(before: Plain, now: Plain) -> Iterator[str]:
    """What differs between two answers: versions of plugins and of engines, components, options."""
    was, is_now = _told_versions(before), _told_versions(now)
    for name in sorted({*was, *is_now}):
        if was.get(name) != is_now.get(name):
            yield f"{name} was {was.get(name, 'not there')} and is {is_now.get(name, 'not there')}"
    old, new = (
        {f"{one['component']['kind']} {one['component']['name']}": one for one in offers["components"]}
        for offers in (before, now)
    )
    for name in sorted({*old, *new}):
        yield from _change(name, old.get(name), new.get(name))


def _told_versions(offers: Plain) -> dict[str, str]:
    return {one["distribution"]: one["version"] for one in offers["components"]}


def _change(name: str, was: Plain | None, now: Plain | None) -> Iterator[str]:
    if was is None or now is None:
        yield f"{name} is {'new' if was is None else 'gone'}"
    elif was["component"] != now["component"]:
        yield f"the options of {name} are others"
    told = [str(one["engine_version"]) for one in (was, now) if one is not None and "engine_version" in one]
    if len(set(told)) == 2:
        yield f"the engine of {name} was {told[0]} and is {told[1]}"


def _offered(registered: Registered, engines: bool) -> Plain:
    component = registered.component
    told = {
        "component": record(component),
        "distribution": registered.distribution,
        "version": registered.version,
        "engine": component.engine,
    }
    return told | (_engine(component) if engines else {})


def _engine(component: type[Component]) -> Plain:
    """The version of a component's engine, or why it cannot be imported."""
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
    """Tell what this interpreter offers, in one line: the token that was given, and JSON."""
    parser = argparse.ArgumentParser(prog="psiflow_core.offers")
    parser.add_argument("token")
    parser.add_argument("--engines", action="store_true")
    given = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print is no answer
        found = registry()
        told: Mapping[str, Any] = {
            **versions(),
            "components": [_offered(registered, given.engines) for registered in found.all()],
            "broken": {**found.broken, **{f"{kind} {name}": why for (kind, name), why in found.clashes.items()}},
        }
    print(frame(given.token, told).decode(), end="")


if __name__ == "__main__":
    main()
