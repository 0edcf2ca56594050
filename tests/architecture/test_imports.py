"""Imports point one way, engines stay in their rooms, and importing psiflow is quick. See DESIGN: *Imports*."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "psiflow_core"
SOURCES = sorted(CORE.rglob("*.py"))
PLUGIN_SOURCES = sorted((ROOT / "plugins").glob("*/src/*/*.py"))

FOUNDATION = {"errors", "files", "electrons", "structures", "checks", "options", "texts", "terminal", "frames"}
CONTRACTS = FOUNDATION | {"components"}
REGISTRY = CONTRACTS | {"answers", "hookspecs", "predictors", "registration", "plugins"}
NAMES = REGISTRY | {"recorded", "offers", "environments", "catalogue"}
WORK = NAMES | {
    *("variables", "bias", "served", "models", "sampling", "scratch", "tasks"),
    *("leases", "guard", "blocks", "claims"),
}
INPUT = {"reading", "foreign_labels"}
LOOP = WORK | INPUT | {"context", "journal", "store", "learning"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "texts": set(),
    "terminal": {"texts"},
    "electrons": {"errors"},
    "structures": {"errors", "electrons"},
    "checks": {"errors", "electrons", "structures"},
    "reading": {"errors"},
    "foreign_labels": {"errors", "structures", "reading"},
    "options": set(),
    "frames": set(),
    "components": FOUNDATION,
    "hookspecs": CONTRACTS,
    "answers": CONTRACTS,
    "predictors": CONTRACTS | {"answers"},
    "registration": CONTRACTS | {"recorded"},
    "plugins": CONTRACTS | {"hookspecs", "registration"},
    "recorded": CONTRACTS,
    "offers": REGISTRY | {"recorded", "guard"},
    "environments": REGISTRY | {"recorded", "offers"},
    "catalogue": REGISTRY | {"environments", "served"},
    "packages": {"errors", "structures"},
    "installing": FOUNDATION | {"claims", "guard", "leases", "environments", "offers", "packages"},
    "served": REGISTRY | {"environments", "offers", "guard"},
    "models": REGISTRY | {"served"},
    "variables": CONTRACTS,
    "bias": REGISTRY | {"variables"},
    "sampling": REGISTRY | {"bias"},
    "leases": set(),
    "scratch": set(),
    "guard": {"leases"},
    "blocks": CONTRACTS | {"leases", "guard"},
    "claims": {"guard", "files"},
    "interruption": {"leases"},
    "tasks": REGISTRY | {"claims", "bias", "served", "models", "sampling", "leases", "scratch"},
    "serving": REGISTRY | {"models", "tasks"},
    "pools": WORK,
    "context": WORK | {"pools"},
    "journal": FOUNDATION,
    "store": WORK | {"journal"},
    "builtin": CONTRACTS | {"hookspecs", "predictors", "blocks"},
    "testing": WORK,
    "learning": WORK | INPUT | {"context", "journal", "store"},
    "trajectories": LOOP,
    "report": LOOP,
    "doctor": LOOP,
    "labels": CONTRACTS | INPUT | {"models", "tasks"},
    "cli": LOOP | {"report", "doctor", "labels", "packages", "installing", "interruption"},
}
"""What each room of the core may import, itself apart."""

ON_DEMAND = {
    ("components", "predictors"): "a predictor's calculator is made by the core",
    ("learning", "report"): "a campaign ends with its report",
}
"""Imports inside functions that point the other way, each with its reason."""

PUBLIC = CONTRACTS - {"options", "frames"} | {"hookspecs", "predictors", "testing", "blocks"}
"""The rooms that a plugin may enter."""

ENGINES = {"torch", "mace", "e3nn", "torch_ema", "nequip", "allegro", "openmm", "pyscf", "tblite", "gpaw", "jax"}
ENGINES |= {"plumed"}

EXTRAS = {("builtin/ase_reference.py", "tblite"), ("bias/plumed_kernel.py", "plumed")}
"""Engines that a built-in component imports on demand: they are optional dependencies of the core."""

PARSL = {"pools.py", "builtin/executors.py", "blocks/_htex.py"}
"""The files of the core that know of Parsl."""


@dataclass(frozen=True)
class Import:
    """One imported module, and where."""

    module: str
    file: Path
    line: int
    lazy: bool
    """Inside a function: it happens when the function is called."""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def imports(file: Path) -> list[Import]:
    """Every import of a file that can happen at run time; those for type checkers alone are left out."""
    return list(_imports(ast.parse(file.read_text()).body, file, lazy=False))


def _imports(body: list[ast.stmt], file: Path, lazy: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, file, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the whole name of the module"
            yield from (Import(f"{node.module}.{alias.name}", file, node.lineno, lazy) for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(node, field, []), file, inside)
            for clause in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                yield from _imports(clause.body, file, inside)


def room(module: str) -> str:
    """`learning` of `psiflow_core.learning.campaign.fold`."""
    return module.split(".")[1]


def room_of(file: Path) -> str:
    return file.relative_to(CORE).parts[0].removesuffix(".py")


def core_imports(files: list[Path]) -> Iterator[Import]:
    for file in files:
        yield from (found for found in imports(file) if found.module.startswith("psiflow_core."))


def package(module: str) -> str:
    return module.partition(".")[0]


def test_the_rooms_of_the_core_are_those_of_the_plan() -> None:
    rooms = {room_of(file) for file in SOURCES} - {"__init__"}
    assert rooms == set(MAY_IMPORT), "a new room needs a place in the order of imports"


def test_imports_in_the_core_point_one_way() -> None:
    wrong = []
    for found in core_imports([file for file in SOURCES if room_of(file) != "__init__"]):
        here = room_of(found.file)
        there = room(found.module)
        on_demand = found.lazy and (here, there) in ON_DEMAND
        if there != here and there in MAY_IMPORT and there not in MAY_IMPORT[here] and not on_demand:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_every_import_on_demand_is_still_needed() -> None:
    used = {(room_of(found.file), room(found.module)) for found in core_imports(SOURCES) if found.lazy}
    assert used >= set(ON_DEMAND)


def test_the_package_itself_imports_nothing_before_it_is_asked() -> None:
    assert list(core_imports([CORE / "__init__.py"])) == []


def test_the_order_of_imports_has_no_circle() -> None:
    placed: set[str] = set()
    while len(placed) < len(MAY_IMPORT):
        free = {room for room, below in MAY_IMPORT.items() if room not in placed and below & set(MAY_IMPORT) <= placed}
        assert free, f"a circle among {set(MAY_IMPORT) - placed}"
        placed |= free


def test_only_the_context_and_the_executors_know_of_parsl() -> None:
    others = [file for file in SOURCES if str(file.relative_to(CORE)) not in PARSL]
    wrong = [str(found) for file in others for found in imports(file) if package(found.module) == "parsl"]
    assert not wrong, "\n".join(wrong)


def test_the_core_knows_no_engine_and_no_plugin() -> None:
    foreign = ENGINES | {file.parent.name for file in PLUGIN_SOURCES}
    wrong = []
    for found in (found for file in SOURCES for found in imports(file) if package(found.module) in foreign):
        extra = (str(found.file.relative_to(CORE)), package(found.module))
        if not (found.lazy and extra in EXTRAS):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_plugins_enter_public_rooms_only() -> None:
    wrong = []
    for found in core_imports(PLUGIN_SOURCES):
        private = any(part.startswith("_") for part in found.module.split("."))
        if room(found.module) not in PUBLIC or private:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_plugins_know_neither_each_other_nor_parsl() -> None:
    every = {file.parent.name for file in PLUGIN_SOURCES}
    wrong = []
    for file in PLUGIN_SOURCES:
        foreign = every - {file.parent.name} | {"parsl"}
        wrong += [str(found) for found in imports(file) if package(found.module) in foreign]
    assert not wrong, "\n".join(wrong)


def test_only_private_modules_of_plugins_import_engines() -> None:
    public = [file for file in PLUGIN_SOURCES if not file.name.startswith("_") or file.name == "__init__.py"]
    wrong = [str(found) for file in public for found in imports(file) if package(found.module) in ENGINES]
    assert not wrong, "\n".join(wrong)


def test_plugins_import_their_private_modules_on_demand() -> None:
    public = [file for file in PLUGIN_SOURCES if not file.name.startswith("_") or file.name == "__init__.py"]
    wrong = [str(found) for file in public for found in imports(file) if "._" in found.module and not found.lazy]
    assert not wrong, "\n".join(wrong)


LOADED = """
import importlib, json, sys
modules, engines = json.load(sys.stdin)
blame = {}
def look(what):
    for engine in engines:
        if engine in sys.modules:
            blame.setdefault(engine, what)
for module in modules:
    importlib.import_module(module)
    look(module)
from psiflow_core.plugins import registry
found = registry()
assert not found.broken, found.broken
look("the components")
names = [f"{r.component.kind} {r.component.name}" for r in found.all()]
print(json.dumps({"blame": blame, "names": names}))
"""


def test_importing_the_core_or_a_plugin_loads_no_engine() -> None:
    modules = ["psiflow_core", *(_module(file) for file in SOURCES if "testing" not in file.parts)]
    modules = [name for name in modules if "._" not in name]
    modules += sorted({file.parent.name for file in PLUGIN_SOURCES})
    given = json.dumps([modules, sorted(ENGINES | {"parsl"})])
    sources = os.pathsep.join(sorted({str(file.parents[1]) for file in PLUGIN_SOURCES}))
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": sources},  # those of other environments are imported all the same
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["blame"] == {}
    assert {"potential mace", "reference pyscf", "sampler openmm"} <= set(seen["names"])


@pytest.mark.parametrize("public", ["OnlineLearning", "Context", "potential", "TrainedPotential"])
def test_a_public_name_comes_without_an_engine(public: str) -> None:
    engines = sorted(ENGINES | {"parsl"})
    code = f"import sys, psiflow_core; psiflow_core.{public}; print([e for e in {engines} if e in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_psiflow_takes_at_most_three_times_as_long_as_importing_ase() -> None:
    seconds: dict[str, list[float]] = {"ase": [], "psiflow_core": []}
    for _ in range(7):  # in turn, so that both see the same weather
        for module, found in seconds.items():
            found.append(_import_seconds(module))
    assert min(seconds["psiflow_core"]) <= 3 * min(seconds["ase"])


def _import_seconds(module: str) -> float:
    """CPU time of an import in a new process. [s]"""
    code = f"import time; start = time.process_time(); import {module}; print(time.process_time() - start)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
