"""What a campaign needs, checked one by one; each failing check names its fix. Under a minute in all."""

from __future__ import annotations

import fcntl
import importlib.util
import platform
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import psutil
from rich.text import Text

from psiflow_core import guard
from psiflow_core.bias import plumed_kernel
from psiflow_core.blocks import machine_cores
from psiflow_core.catalogue import executor, find
from psiflow_core.components import Kind, Spec
from psiflow_core.context import Context, Work
from psiflow_core.environments import known, names
from psiflow_core.errors import CampaignError, EngineMissing, EnvironmentUnfit, OptionError, PoolFailed, PsiflowError
from psiflow_core.journal import Journal
from psiflow_core.offers import faults
from psiflow_core.plugins import Registered, registry
from psiflow_core.structures import Plain
from psiflow_core.variables.names import VARIABLES

PATIENCE = 40.0
"""How long a worker may take to start, or to import an engine. [s]"""

DISK = 1.0
"""A small campaign's models, labels and walkers. [GiB]"""

MEMORY = 1.0
"""The least that a worker with an engine in it needs. [GiB]"""

OPTIONAL = {"tblite": "GFN2-xTB, a real and very cheap reference to rehearse a campaign with"}
"""Packages that the core makes use of where they are there."""

WORK: dict[Kind, Work] = {"potential": "train", "sampler": "sample", "reference": "label"}
"""Where a component's engine has to be importable."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    verdict: Literal["good", "bad", "open"]
    """`open`: it could not be checked, or is not needed."""
    check: str
    found: str
    fix: str = ""
    """What to do about it; every bad finding has one."""

    def line(self) -> Text:
        """The finding as it is shown."""
        sign, style = {"good": ("✔", "green"), "bad": ("✘", "bold red"), "open": ("–", "yellow")}[self.verdict]
        text = Text.assemble((sign, style), f" {self.check}: {self.found}")
        return text.append(f"\n  → {self.fix}", style="bold") if self.fix else text


def examine(folder: Path, wanted: Mapping[Kind, str]) -> Iterator[Finding]:
    """Every check, as it ends.

    Args:
        folder: where the campaign will be.
        wanted: components by kind; those of kinds that are not named are all looked at, if none is named.
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
    found = registry()
    for distribution in sorted({registered.distribution for registered in found.all()}):
        names = [f"{r.component.kind} {r.component.name}" for r in found.all() if r.distribution == distribution]
        yield Finding("good", f"plugin {distribution}", ", ".join(names))
    for point, cause in found.broken.items():
        fix = "reinstall the distribution that it belongs to, or uninstall it: pip uninstall NAME"
        yield Finding("bad", f"plugin {point}", f"does not load: {cause}", fix)
    for (kind, name), clash in found.clashes.items():
        yield Finding("bad", f"{kind} {name}", clash, "keep one of the two distributions: pip uninstall NAME")


def environments(wanted: Mapping[Kind, str]) -> Iterator[Finding]:
    """Whether the environments can be used: those that have what is wanted, or all if nothing is named."""
    for name in names():
        if not wanted or name in {_home(kind, component) for kind, component in wanted.items()}:
            yield from environment(name)


def environment(name: str) -> Iterator[Finding]:
    """Whether an environment starts, agrees with its record and this interpreter, and can import its engines."""
    called = f"environment {name}"
    try:
        found = known(name)
        now = found.agree(engines=True)
    except EnvironmentUnfit as error:
        yield Finding("bad", called, error.found, error.fix or f"have it recorded again: psiflow env update {name}")
        return
    has = ", ".join(_component_words(one) for one in now["components"] if one["distribution"] != "psiflow-core")
    if now is found.offers:
        yield Finding("open", called, f"{found.launch[0]} is not on this machine; recorded are {has or 'no plugins'}")
        return
    broken = list(faults(now))
    if not broken:
        yield Finding("good", called, f"starts and agrees; {has or 'it has no plugins'}")
    for fault in broken:
        yield Finding("bad", called, fault, f"install it again there: {found.mend()}")


def campaign_folder(folder: Path) -> Iterator[Finding]:
    """Whether the folder, or the one that it would be made in, can be written, locks files and has space."""
    place = _nearest(folder.absolute())
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".psiflow-doctor-") as scratch:
            yield Finding("good", "folder", f"{place} is writable")
            yield _locking(Path(scratch))
            yield _journal(Path(scratch))
    except OSError as error:
        fix = "choose another with --folder, or give yourself the right to write there"
        yield Finding("bad", "folder", f"{place} cannot be written: {error.strerror}", fix)
        return
    free = shutil.disk_usage(place).free / 2**30
    fix = "" if free >= DISK else f"free some: at least {DISK:.0f} GiB"
    yield Finding("bad" if fix else "good", "disk", f"{free:.1f} GiB are free", fix)


def machine() -> Iterator[Finding]:
    """Memory and cores."""
    free = psutil.virtual_memory().available / 2**30
    fix = "" if free >= MEMORY else f"end other programs: a worker needs {MEMORY:.0f} GiB"
    yield Finding("bad" if fix else "good", "memory", f"{free:.1f} GiB are free", fix)
    yield Finding("good", "cores", f"{machine_cores()} may be used")


def stale_processes() -> Iterator[Finding]:
    """Whether processes of campaigns whose driver has died are still there; they should have ended themselves."""
    stale = guard.orphans()
    if stale:
        time.sleep(8 * guard.PERIOD)  # they may be about to end: a guard gives its command two seconds
        stale = [process for process in stale if process.is_running()]
    pids = " ".join(str(process.pid) for process in stale)
    if stale:
        called = ", ".join(f"{count} × {name}" for name, count in Counter(map(_name, stale)).items())
        yield Finding("bad", "processes", f"the driver of {len(stale)} has died: {called}", f"end them: kill -9 {pids}")
    else:
        yield Finding("good", "processes", "none is left of a campaign that has died")


def workers(wanted: Mapping[Kind, str]) -> Iterator[Finding]:
    """Whether a worker starts and answers, and whether the engines can be imported there."""
    chosen, missing = _chosen(wanted)
    yield from missing
    with tempfile.TemporaryDirectory(prefix="psiflow-doctor-") as scratch:
        try:
            with Context(executor("local", workers=1), folder=scratch) as context:
                yield from _asked(context, chosen)
        except PoolFailed as error:
            yield Finding("bad", "workers", f"do not start: {error}", "mend what they say")
        except Exception as error:  # Parsl's import and start can fail in any way
            fix = "reinstall Parsl in this environment: pip install --force-reinstall parsl"
            yield Finding("bad", "workers", f"do not start: {type(error).__name__}: {error}", fix)


def optional_packages() -> Iterator[Finding]:
    """What the core could make use of."""
    for package, use in OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield Finding(
                "open", package, f"is not installed; it gives {use}", f"if you want it: pip install {package}"
            )
        else:
            yield Finding("good", package, f"is installed: {use}")


def variables() -> Finding:
    """Who computes collective variables."""
    names = ", ".join(variable.name for variable in VARIABLES)
    return Finding("good", "collective variables", f"psiflow's own, under every sampler: {names}")


def plumed() -> Finding:
    """Whether PLUMED is there, for the bias of this name."""
    try:
        found = plumed_kernel.find()
    except EngineMissing as error:
        return Finding("open", "plumed", "is not found; it gives the bias 'plumed'", f"if you want it: {error}")
    except RuntimeError as error:  # of the library, which may be of any age
        return Finding("open", "plumed", f"its library does not start: {error}", f"if you want it: {plumed_kernel.HOW}")
    return Finding("good", "plumed", f"{found.version}, {found.kernel}: the bias 'plumed' can be used")


def _asked(context: Context, chosen: list[Registered]) -> Iterator[Finding]:
    start = time.perf_counter()
    try:
        context.run("label", "idle", {}, PATIENCE)
    except PsiflowError as error:
        firewall = "look for a firewall on 127.0.0.1, and whether processes may be started here"
        fix = "mend what they say" if isinstance(error, PoolFailed) else firewall
        yield Finding("bad", "workers", f"do not answer: {error}", fix)
        for registered in chosen:
            yield Finding("open", _called(registered), "not checked, for want of a worker")
        return
    seconds = time.perf_counter() - start
    yield Finding("good", "workers", f"start and answer in {seconds:.1f} s, connections encrypted")
    for registered in chosen:
        yield _engine(context, registered)


def _engine(context: Context, registered: Registered) -> Finding:
    """Import a component's engine on a worker; with options that all have defaults, it checks itself there too."""
    component, called = registered.component, _called(registered)
    work, complete = WORK[component.kind], _with_defaults(registered)
    try:
        outcome = context.run(work, "engine", {"kind": component.kind, "name": component.name}, PATIENCE)
        if outcome.failure is None and complete is not None:
            outcome = context.run(work, "check", {"spec": complete.to_plain(), "structures": []}, PATIENCE)
    except PsiflowError as error:
        alone = component.program or f"python -c 'import {component.engine}'"
        return Finding("bad", called, str(error), f"find out what takes so long: {alone}")
    if outcome.failure is not None:
        return Finding("bad", called, outcome.failure["message"], _fix(registered, outcome.failure["type"]))
    value = outcome.value or {}
    words = [component.engine or component.program, value["engine"], "works on a worker"]
    return Finding("good", called, " ".join(filter(None, words)))


def _with_defaults(registered: Registered) -> Spec | None:
    """The component as it is without a word on its options; None where it asks for some."""
    try:
        return registered.spec({})
    except OptionError:
        return None


def _fix(registered: Registered, failure: str) -> str:
    if failure == "EngineMissing":
        return f"install what it needs: pip install --force-reinstall {registered.distribution}"
    return f"see what its options ask for: psiflow plugins {registered.component.name}"


def _chosen(wanted: Mapping[Kind, str]) -> tuple[list[Registered], list[Finding]]:
    """The components to look at, and a finding for each that is wanted and not there."""
    if not wanted:
        return [registered for registered in registry().all() if registered.component.kind in WORK], []
    chosen, missing = [], []
    for kind, name in wanted.items():
        try:
            entry = find(kind, name)
            chosen += [] if entry.environment else [entry.registered]  # an environment is looked at as a whole
        except PsiflowError as error:
            fix = f"psiflow plugins --kind {kind} lists what there is; install the plugin that has it"
            missing.append(Finding("bad", f"{kind} {name}", str(error), fix))
    return chosen, missing


def _home(kind: Kind, name: str) -> str:
    """The environment of a component; none for one that is here, or nowhere."""
    try:
        return find(kind, name).environment
    except PsiflowError:
        return ""  # `_chosen` tells it


def _component_words(offer: Plain) -> str:
    version = offer.get("engine_version", "")
    engine = f" ({offer['engine']} {version})" if version else ""
    return f"{offer['component']['kind']} {offer['component']['name']}{engine}"


def _called(registered: Registered) -> str:
    return f"{registered.component.kind} {registered.component.name}"


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _locking(scratch: Path) -> Finding:
    """Two drivers must not have one folder: the second to ask for a lock has to be refused."""
    fix = "choose a folder on a file system with locks; a local disk has them"
    try:
        with (scratch / "lock").open("w") as first, (scratch / "lock").open("w") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("good", "locks", "files can be locked there")
    except OSError as error:
        return Finding("bad", "locks", f"files cannot be locked there: {error.strerror}", fix)
    return Finding("bad", "locks", "two processes get the same lock there", fix)


def _journal(scratch: Path) -> Finding:
    """A journal must be readable while a driver writes it."""
    file = scratch / "journal.sqlite"
    try:
        writer = Journal(file, write=True)
        writer.append("opened", {})
        reader = Journal(file)
        seen = len(list(reader.events()))
        reader.close()
        writer.close()
    except CampaignError as error:
        return Finding("bad", "journal", str(error), "choose a folder on a local disk")
    if seen != 1:
        return Finding("bad", "journal", "what is written there is not seen", "choose a folder on a local disk")
    return Finding("good", "journal", f"SQLite {sqlite3.sqlite_version} works there, and is read while it is written")


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "ended"
