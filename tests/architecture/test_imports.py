"""Imports point one way and engines stay in their rooms."""

from __future__ import annotations

import ast
import json
import os
import re
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

ORDER = (
    *("errors", "texts", "electrons", "constraints", "files", "structures", "kinds", "identity", "checks"),
    *("processes", "components", "answers", "registry", "labels", "environments", "potentials"),
    *("sampling", "strategies", "execution", "builtin", "testing", "learning", "report", "results", "online", "cli"),
)
"""The rooms of the core, as one can read them: each imports those before it only. A lazy import counts as one."""

PUBLIC = {
    *("errors", "texts", "electrons", "constraints", "files", "structures", "checks", "components", "testing"),
    *("sampling.bias", "sampling.variables"),
    *("registry.hookspecs", "potentials.predictors", "potentials.residuals", "execution.blocks", "processes.programs"),
    *("sampling.momenta", "sampling.observer", "processes.ranks"),
}
"""The rooms, and the single modules of other rooms, that a plugin may enter."""

LIBRARIES = {"psiflow_torch"}
"""Distributions that plugins are built on."""

LIBRARY_WITHOUT_ENGINE = {"psiflow_torch.options", "psiflow_torch.potential"}
"""The modules of these libraries that the public modules of plugins import; the others need the engine."""

ENGINES = {"torch", "mace", "e3nn", "torch_ema", "nequip", "allegro", "openmm", "pyscf", "tblite", "gpaw", "jax"}
ENGINES |= {"plumed", "boto3", "botocore", "google", "kubernetes"}

EXTRAS = {("builtin/ase_reference.py", "tblite"), ("sampling/bias/plumed_kernel.py", "plumed")}
"""Engines that a built-in component imports on demand: they are optional dependencies of the core."""

ROLES = ("potential", "sampler", "reference", "executor")
"""The modules of plugins that hold components."""

PARSL = {"execution/pools.py", "execution/blocks/_htex.py", "execution/blocks/_threads.py"}
PARSL |= {"execution/blocks/provided.py", "builtin/executors.py", "execution/blocks/base.py"}
PARSL |= {"builtin/parsl_provider.py"}
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


def imports(file: Path, typing: bool = False) -> list[Import]:
    """Every import of a file that can happen at run time; with `typing` those for type checkers alone as well."""
    return list(_imports(ast.parse(file.read_text()).body, file, False, typing))


def _imports(body: list[ast.stmt], file: Path, lazy: bool, typing: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, file, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the whole name of the module"
            yield from (Import(f"{node.module}.{alias.name}", file, node.lineno, lazy) for alias in node.names)
        elif typing or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(node, field, []), file, inside, typing)
            for clause in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                yield from _imports(clause.body, file, inside, typing)


def room(module: str) -> str:
    """`learning` of `psiflow_core.learning.machine.state.fold`."""
    return module.split(".")[1]


def room_of(file: Path) -> str:
    return file.relative_to(CORE).parts[0].removesuffix(".py")


def core_imports(files: list[Path]) -> Iterator[Import]:
    for file in files:
        yield from (found for found in imports(file) if found.module.startswith("psiflow_core."))


def package(module: str) -> str:
    return module.partition(".")[0]


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


for_every_plugin = pytest.mark.parametrize(
    "plugin", sorted({file.parent for file in PLUGIN_SOURCES}), ids=lambda folder: folder.name
)

MODULES = {module_of(file): file for file in SOURCES}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Modules of which each reaches every other one by imports (Tarjan, SIAM J. Comput. 1, 146 (1972))."""
    found: list[list[str]] = []
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []

    def visit(here: str) -> None:
        number[here] = low[here] = len(number)
        path.append(here)
        for there in arrows[here]:
            if there not in number:
                visit(there)
                low[here] = min(low[here], low[there])
            elif there in path:
                low[here] = min(low[here], number[there])
        if low[here] == number[here]:
            circle = path[path.index(here) :]
            del path[path.index(here) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for module in arrows:
        if module not in number:
            visit(module)
    return found


def arrows(modules: dict[str, Path], typing: bool = False) -> dict[str, set[str]]:
    """Which of these modules each imports; with `typing` for type checkers alone as well."""
    found: dict[str, set[str]] = {}
    for module, file in modules.items():
        wanted = {
            one.module if one.module in modules else one.module.rpartition(".")[0] for one in imports(file, typing)
        }
        found[module] = wanted & set(modules) - {module, "psiflow_core"}
    return found


LONGEST = 300
"""Lines of a module, which can be read in one sitting."""

LONGER: dict[str, str] = {
    "psiflow_core/testing/potential.py": "one contract is one class of claims",
}
"""Modules that may be longer, and why."""


def test_a_module_can_be_read_in_one_sitting() -> None:
    lines = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in (*SOURCES, *PLUGIN_SOURCES)}
    assert {name: count for name, count in lines.items() if count > LONGEST and name not in LONGER} == {}


def test_the_rooms_of_the_core_are_those_of_the_plan() -> None:
    rooms = {room_of(file) for file in SOURCES} - {"__init__"}
    assert rooms == set(ORDER), "a new room needs a place in the order of imports"


def test_the_table_of_rooms_for_contributors_is_the_order_of_imports() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| room | contents |")[2].partition("\n\n")[0]
    rooms = re.findall(r"^\| `([a-z]+)(/|\.py)` \|", table, re.MULTILINE)
    assert [room for room, _ in rooms] == list(ORDER)
    assert all((CORE / room).is_dir() == (kind == "/") for room, kind in rooms)


def test_the_tests_of_the_core_lie_in_folders_of_its_rooms() -> None:
    folders = {path.name for path in (ROOT / "tests" / "core").iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders <= {*ORDER, "ground", "project"}


def test_imports_in_the_core_point_one_way() -> None:
    wrong = []
    for found in core_imports([file for file in SOURCES if room_of(file) != "__init__"]):
        here, there = room_of(found.file), room(found.module)
        if there in ORDER and ORDER.index(there) > ORDER.index(here):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_no_imports_of_the_core_go_in_a_circle() -> None:
    assert circles(arrows(MODULES)) == []


def modules_of(plugin: Path) -> dict[str, Path]:
    return {f"{plugin.name}.{file.stem}".removesuffix(".__init__"): file for file in plugin.glob("*.py")}


def reached(start: str, arrows: dict[str, set[str]]) -> set[str]:
    """A module, and all that it imports, directly or not."""
    found, ahead = set(), {start}
    while ahead:
        found |= ahead
        ahead = set().union(*(arrows[module] for module in ahead)) - found
    return found


@for_every_plugin
def test_no_imports_of_a_plugin_go_in_a_circle(plugin: Path) -> None:
    """Imports for type checkers count: an engine is given options, and need not know the component."""
    assert circles(arrows(modules_of(plugin), typing=True)) == []


@for_every_plugin
def test_an_engine_does_not_know_the_component(plugin: Path) -> None:
    """In a library, where all modules but the component are the engine, those."""
    modules = modules_of(plugin)
    components = {name for name in modules if name.partition(".")[2] in ROLES}
    private = {name for name in modules if "._" in name or (plugin.name in LIBRARIES and name not in components)}
    wrong = [name for name, wanted in arrows(modules, typing=True).items() if name in private and wanted & components]
    assert components
    assert not wrong, "take the options"


@for_every_plugin
def test_options_know_neither_the_engine_nor_the_component(plugin: Path) -> None:
    """A private module that reads an option's text may be used, as long as it needs no engine."""
    modules = modules_of(plugin)
    known = reached(f"{plugin.name}.options", arrows(modules, typing=True))
    assert not {name for name in known if name.partition(".")[2] in ROLES}
    used = [one for name in known for one in imports(modules[name], typing=True)]
    assert not [str(one) for one in used if package(one.module) in ENGINES]


def test_the_package_itself_imports_nothing_before_it_is_asked() -> None:
    assert list(core_imports([CORE / "__init__.py"])) == []


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
        _, there, *inside = found.module.split(".")
        if not {there, ".".join([there, *inside[:1]])} & PUBLIC or private:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_plugins_know_neither_each_other_nor_parsl() -> None:
    every = {file.parent.name for file in PLUGIN_SOURCES}
    wrong = []
    for file in PLUGIN_SOURCES:
        foreign = every - LIBRARIES - {file.parent.name} | {"parsl"}
        wrong += [str(found) for found in imports(file) if package(found.module) in foreign]
    assert not wrong, "\n".join(wrong)


def needs_engine(found: Import) -> bool:
    """Whether an import loads an engine, itself or as a module of a library."""
    there = found.module.removesuffix(".TorchPotential").removesuffix(".TorchOptions")
    return package(there) in ENGINES or (package(there) in LIBRARIES and there not in LIBRARY_WITHOUT_ENGINE)


def test_only_private_modules_of_plugins_import_engines() -> None:
    """A public module may ask a library for more within a function."""
    public = [file for file in PLUGIN_SOURCES if not file.name.startswith("_") or file.name == "__init__.py"]
    public = [file for file in public if file.parent.name not in LIBRARIES]
    used = [found for file in public for found in imports(file) if needs_engine(found)]
    assert not [str(found) for found in used if not (found.lazy and package(found.module) in LIBRARIES)]


def test_the_common_options_of_a_library_need_no_engine() -> None:
    files = [file for file in PLUGIN_SOURCES if module_of_plugin(file) in LIBRARY_WITHOUT_ENGINE]
    assert len(files) == len(LIBRARY_WITHOUT_ENGINE)
    assert not [str(found) for file in files for found in imports(file) if needs_engine(found) and not found.lazy]


def module_of_plugin(file: Path) -> str:
    return f"{file.parent.name}.{file.stem}"


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
from psiflow_core.registry.plugins import registry
found = registry()
assert not found.broken, found.broken
look("the components")
names = [f"{r.component.kind} {r.component.name}" for r in found.all()]
print(json.dumps({"blame": blame, "names": names}))
"""


def test_importing_the_core_or_a_plugin_loads_no_engine() -> None:
    modules = ["psiflow_core", *(module_of(file) for file in SOURCES if "testing" not in file.parts)]
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
