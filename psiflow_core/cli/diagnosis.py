"""The checks of `psiflow doctor`. Each failed check names its fix. All of them take less than a minute."""

from __future__ import annotations

import importlib.util
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import cast

from psiflow_core.cli.machine import Finding, campaign_folder, machine, stale_processes
from psiflow_core.components import Kind, Spec
from psiflow_core.environments.catalogue import executor, find, spec_by
from psiflow_core.environments.description import faults
from psiflow_core.environments.environment import known, names
from psiflow_core.errors import EngineMissing, EnvironmentUnfit, OptionError, PoolFailed, PsiflowError
from psiflow_core.execution.context import Context
from psiflow_core.execution.tasks.check import CheckRequest
from psiflow_core.execution.tasks.engine import EngineFound, EngineRequest
from psiflow_core.execution.tasks.idle import IdleRequest
from psiflow_core.execution.tasks.request import WORK
from psiflow_core.registry.plugins import Registered, registry
from psiflow_core.sampling.bias import plumed_kernel
from psiflow_core.structures import Plain

PATIENCE = 40.0
"""How long a worker may take to start, or to import an engine. [s]"""


OPTIONAL = {"tblite": "GFN2-xTB, a real and very cheap reference to rehearse a campaign with"}
"""Optional packages of the core, and their use."""


def examine(folder: Path, wanted: Mapping[Kind, str]) -> Iterator[Finding]:
    """All checks; each finding is given as soon as its check ends.

    Args:
        folder: the future folder of the campaign.
        wanted: the components to check, by kind; if empty, all components are checked.
    """
    yield Finding("good", "python", f"{platform.python_version()}, psiflow-core {version('psiflow-core')}")
    yield from plugins()
    yield from environments(wanted)
    yield from campaign_folder(folder)
    yield from machine()
    yield from stale_processes()
    yield from workers(wanted)
    yield from optional_packages()
    yield variables()
    yield plumed()


def plugins() -> Iterator[Finding]:
    """Whether every installed plugin loads."""
    installed = registry()
    for distribution in sorted({registered.distribution for registered in installed.all()}):
        names = [f"{r.component.kind} {r.component.name}" for r in installed.all() if r.distribution == distribution]
        yield Finding("good", f"plugin {distribution}", ", ".join(names))
    for point, cause in installed.broken.items():
        fix = "reinstall its distribution, or uninstall it: pip uninstall NAME"
        yield Finding("bad", f"plugin {point}", f"does not load: {cause}", fix)
    for (kind, name), clash in installed.clashes.items():
        yield Finding("bad", f"{kind} {name}", clash, "keep one of the two distributions: pip uninstall NAME")


def environments(wanted: Mapping[Kind, str]) -> Iterator[Finding]:
    """Whether the environments can be used: those with the wanted components, or all if none are named."""
    for name in names():
        if not wanted or name in {_home(kind, component) for kind, component in wanted.items()}:
            yield from environment(name)


def environment(name: str) -> Iterator[Finding]:
    """Whether an environment starts, agrees with its description and this interpreter, and imports its engines."""
    called = f"environment {name}"
    try:
        stored = known(name)
        now = stored.agree(engines=True)
    except EnvironmentUnfit as error:
        yield Finding("bad", called, error.found, error.fix or f"update it: psiflow env update {name}")
        return
    has = ", ".join(_component_words(one) for one in now["components"] if one["distribution"] != "psiflow-core")
    if now is stored.description:
        problem = f"{stored.launch[0]} is not on this machine; its description has {has or 'no plugins'}"
        yield Finding("open", called, problem)
        return
    broken = list(faults(now))
    if not broken:
        yield Finding("good", called, f"starts and agrees; {has or 'it has no plugins'}")
    for fault in broken:
        yield Finding("bad", called, fault, f"reinstall it in this environment: {stored.mend()}")


def workers(wanted: Mapping[Kind, str]) -> Iterator[Finding]:
    """Whether a worker starts and answers, and whether it can import the engines."""
    chosen, missing = chosen_components(wanted)
    yield from missing
    with tempfile.TemporaryDirectory(prefix="psiflow-doctor-") as scratch:
        try:
            with Context(executor("local", workers=1), folder=scratch) as context:
                yield from _asked(context, chosen)
        except PoolFailed as error:
            yield Finding("bad", "workers", f"do not start: {error}", "repair the cause that they report")
        except Exception as error:  # Parsl's import and start can fail in any way
            fix = "reinstall Parsl in this environment: pip install --force-reinstall parsl"
            yield Finding("bad", "workers", f"do not start: {type(error).__name__}: {error}", fix)


def optional_packages() -> Iterator[Finding]:
    """Whether the optional packages of the core are installed."""
    for package, use in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield Finding(
                "open", package, f"is not installed; it provides {use}", f"to install it: pip install {package}"
            )
        else:
            yield Finding("good", package, f"is installed: {use}")


def variables() -> Finding:
    """The available collective variables."""
    installed = (registered.component for registered in registry().all())
    names = ", ".join(component.name for component in installed if component.kind == "variable")
    return Finding("good", "collective variables", f"of psiflow and plugins, with every sampler: {names}")


def plumed() -> Finding:
    """Whether PLUMED is installed, for the bias of this name."""
    try:
        library = plumed_kernel.find()
    except EngineMissing as error:
        return Finding("open", "plumed", "is not found; it provides the bias 'plumed'", f"to use it: {error}")
    except RuntimeError as error:  # from the library, which may be of any version
        return Finding("open", "plumed", f"its library does not start: {error}", f"to use it: {plumed_kernel.HOW}")
    return Finding("good", "plumed", f"{library.version}, {library.kernel}: the bias 'plumed' can be used")


def _asked(context: Context, chosen: list[Registered]) -> Iterator[Finding]:
    start = time.perf_counter()
    try:
        context.run(IdleRequest(), PATIENCE)
    except PsiflowError as error:
        firewall = "check for a firewall on 127.0.0.1, and that processes may be started here"
        fix = "repair the cause that they report" if isinstance(error, PoolFailed) else firewall
        yield Finding("bad", "workers", f"do not answer: {error}", fix)
        for registered in chosen:
            yield Finding("open", _called(registered), "not checked, because no worker answered")
        return
    seconds = time.perf_counter() - start
    yield Finding("good", "workers", f"start and answer in {seconds:.1f} s, connections encrypted")
    for registered in chosen:
        yield engine(context, registered)


def engine(context: Context, registered: Registered) -> Finding:
    """Import a component's engine on a worker. If all of its options have defaults, it also checks itself there."""
    component, called = registered.component, _called(registered)
    complete = _with_defaults(registered)
    try:
        outcome = context.run(EngineRequest(component=component.kind, name=component.name), PATIENCE)
        if outcome.failure is None and complete is not None:
            outcome = context.run(CheckRequest(component=complete), PATIENCE)
    except PsiflowError as error:
        alone = component.program or f"python -c 'import {component.engine}'"
        return Finding("bad", called, str(error), f"start it alone to see why it is slow: {alone}")
    if outcome.failure is not None:
        return Finding("bad", called, outcome.failure.message, _fix(registered, outcome.failure.type))
    version_there = cast(EngineFound, outcome.value).engine
    words = [component.engine or component.program, version_there, "works on a worker"]
    return Finding("good", called, " ".join(filter(None, words)))


def _with_defaults(registered: Registered) -> Spec | None:
    """The component with default options; None if it has required options."""
    try:
        return spec_by(registered, {})
    except OptionError:
        return None


def _fix(registered: Registered, failure: str) -> str:
    if failure == "EngineMissing":
        return f"reinstall it with its requirements: pip install --force-reinstall {registered.distribution}"
    return f"check its options: psiflow plugins {registered.component.name}"


def chosen_components(wanted: Mapping[Kind, str]) -> tuple[list[Registered], list[Finding]]:
    """The components to check, and a finding for each wanted component that is not installed."""
    if not wanted:
        return [registered for registered in registry().all() if registered.component.kind in WORK], []
    chosen, missing = [], []
    for kind, name in wanted.items():
        try:
            entry = find(kind, name)
            chosen += [] if entry.environment else [entry.registered]  # an environment is checked as a whole
        except PsiflowError as error:
            fix = f"install its plugin; psiflow plugins --kind {kind} lists the installed ones"
            missing.append(Finding("bad", f"{kind} {name}", str(error), fix))
    return chosen, missing


def _home(kind: Kind, name: str) -> str:
    """The environment of a component; empty if this interpreter has it, or nothing has it."""
    try:
        return find(kind, name).environment
    except PsiflowError:
        return ""  # `chosen_components` reports it


def _component_words(described: Plain) -> str:
    version = described.get("engine_version", "")
    engine = f" ({described['engine']} {version})" if version else ""
    return f"{described['component']['kind']} {described['component']['name']}{engine}"


def _called(registered: Registered) -> str:
    return f"{registered.component.kind} {registered.component.name}"
