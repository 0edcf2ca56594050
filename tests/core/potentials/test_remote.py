"""Predictors of another interpreter, used as if they were here; in these tests it is this one, in another process."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from psiflow_toys.potential import ToyPotential
from psiflow_toys.reference import ToyReference
from psiflow_toys.waiting import survivors

import psiflow_core as psiflow
from psiflow_core.components import LabelTask, Spec, TrainingTask
from psiflow_core.environments import description, process
from psiflow_core.environments.process import ask_once
from psiflow_core.errors import EngineMissing, ModelCorrupt, OptionError, PluginNotFound, WrongAnswer
from psiflow_core.execution.tasks.label import LabelRequest
from psiflow_core.files import file_digest
from psiflow_core.potentials.remote import Served, homes
from psiflow_core.potentials.trained import Member, ModelFile, load_members
from psiflow_core.structures import displaced, with_label

HERE = (sys.executable,)


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """A model that learned water from the toy reference."""
    random = np.random.default_rng(0)
    structures = [displaced(molecule("H2O"), 0.1, 0.0, random) for _ in range(6)]
    labelled = [with_label(atoms, ToyReference().label(atoms, LabelTask(tmp_path))) for atoms in structures]
    task = TrainingTask(labelled, [], {"H": -1.0, "O": -8.0}, 0, tmp_path / "training")
    model = ToyPotential(basis=6).train(task).model
    return Member(psiflow.potential("toy", basis=6), ModelFile(model, file_digest(model)))


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """The toy potential is in an environment; its processes end with the test."""
    with homes({"toy": HERE}):
        yield
    while process._servers:
        process._servers.popitem()[1].end()


def there(member: Member) -> Served:
    return Served(member.potential, member.file.path, member.file.digest, "cpu")


def test_what_is_served_is_what_is_here_to_the_last_bit(member: Member, elsewhere: None) -> None:
    (here,) = load_members([member])
    served_there = there(member)
    structures = [displaced(molecule("H2O"), 0.1, 0.0, np.random.default_rng(n)) for n in range(3)]
    for own, other in zip(here.predict(structures), served_there.predict(structures), strict=True):
        assert own.energy == other.energy
        np.testing.assert_array_equal(own.forces, other.forces)
    for own, other in zip(here.features(structures), served_there.features(structures), strict=True):
        np.testing.assert_array_equal(own, other)
    assert served_there.cutoff == here.cutoff
    atoms = structures[0]
    atoms.calc = served_there.calculator()
    np.testing.assert_array_equal(atoms.get_forces(), here.predict([atoms])[0].forces)


def test_models_of_one_environment_share_a_process(member: Member, elsewhere: None) -> None:
    first, second = there(member), there(member)
    assert first._server is second._server


def test_errors_cross_with_their_names(member: Member, elsewhere: None) -> None:
    with pytest.raises(ModelCorrupt, match="its hash differs"):
        Served(member.potential, member.file.path, "0" * 64, "cpu")
    with homes({"toys": HERE}), pytest.raises(PluginNotFound, match="no potential 'toys'"):
        Served(Spec("potential", "toys", {}), member.file.path, member.file.digest, "cpu")


def test_a_process_that_was_killed_is_started_again(member: Member, elsewhere: None) -> None:
    predictor = there(member)
    before = predictor.predict([molecule("H2O")])[0]
    process = predictor._server._process
    assert process is not None
    process.kill()
    process.wait()
    assert predictor.predict([molecule("H2O")])[0].energy == before.energy


def test_a_question_over_which_the_process_was_ended_is_asked_again(member: Member, tmp_path: Path) -> None:
    """Memory was short, or somebody killed it: the walkers of the task that asks lose nothing."""
    once = (
        "import os, sys\n"
        f"if not os.path.exists({str(tmp_path / 'died')!r}):\n"
        f"    open({str(tmp_path / 'died')!r}, 'w').close(); sys.stdin.readline(); os._exit(9)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    (here,) = load_members([member])
    with homes({"toy": (sys.executable, "-c", once)}):
        predictor = there(member)
        assert (tmp_path / "died").exists()
        assert predictor.predict([molecule("H2O")])[0].energy == here.predict([molecule("H2O")])[0].energy
        predictor._server.end()


def test_a_process_that_dies_over_a_request_is_told_with_its_last_words(member: Member) -> None:
    launch = (sys.executable, "-c", "import sys; sys.stderr.write('no room left'); sys.exit(3)")
    with pytest.raises(EngineMissing, match="exit code 3; it printed: no room left"):
        ask_once(launch, {"do": "nothing"})
    with pytest.raises(EngineMissing, match="nowhere/python cannot be started: No such file"):
        ask_once(("nowhere/python",), {"do": "nothing"})


def test_the_process_ends_with_the_one_who_asks(member: Member, tmp_path: Path) -> None:
    """Also when that is killed: nobody writes to it any longer."""
    script = f"""
import sys, time
from psiflow_core.components import Spec
from psiflow_core.environments.process import Server
server = Server({HERE!r})
try:
    server.ask({{"do": "parse", "spec": Spec("potential", "toy", {{"basis": -1}}).to_plain()}})
except Exception as error:
    print(server._process.pid, flush=True)
time.sleep(600)
"""
    asking = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    pid = int(asking.stdout.readline())
    os.kill(asking.pid, signal.SIGKILL)
    asking.wait()
    assert not survivors([pid])


def test_options_are_parsed_where_the_plugin_is() -> None:
    spec = psiflow.potential("toy", basis=6)
    told = ask_once(HERE, {"do": "parse", "spec": spec.to_plain()})
    assert Spec.from_plain(told) == spec
    wrong = Spec("potential", "toy", {"basis": -1})
    with pytest.raises(OptionError, match="potential 'toy': basis=-1"):
        ask_once(HERE, {"do": "parse", "spec": wrong.to_plain()})


BANNER = (
    "bash",
    "-c",
    'echo "Loading modules"; printf "\\xff and no end of line"; exec "$@"',
    "banner",
    sys.executable,
)
"""An interpreter behind a shell that prints on standard output."""


def test_what_an_interpreter_prints_when_it_starts_is_no_answer(member: Member) -> None:
    (here,) = load_members([member])
    assert {one["component"]["name"] for one in description.ask(BANNER)["components"]} >= {"toy"}
    with homes({"toy": BANNER}):
        predictor = there(member)
        for n in range(3):
            structures = [displaced(molecule("H2O"), 0.1, 0.0, np.random.default_rng(n))]
            assert predictor.predict(structures)[0].energy == here.predict(structures)[0].energy
        predictor._server.end()


def test_an_environment_whose_python_prints_from_usercustomize_predicts_what_it_is_asked(
    member: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a line shifted every answer by one: the energy of a structure was that of the one before."""
    site = tmp_path / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (site / "usercustomize.py").write_text('print(\'{"value": 1.0, "id": 1}\', flush=True)\n')
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    printing = (sys.executable, "-c", RUNS_WITH_USER_SITE)
    (here,) = load_members([member])
    with homes({"toy": printing}):
        predictor = there(member)
        for n in range(3):
            structures = [displaced(molecule("H2O"), 0.1, 0.0, np.random.default_rng(n))]
            assert predictor.predict(structures)[0].energy == here.predict(structures)[0].energy
        predictor._server.end()


RUNS_WITH_USER_SITE = """
import os, runpy, sys
sys.path.append(os.path.join(os.environ["PYTHONUSERBASE"], "lib", f"python{sys.version_info[0]}.{sys.version_info[1]}",
                             "site-packages"))
import usercustomize
sys.argv = sys.argv[sys.argv.index("-m") + 1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

ANSWERING = """
import json, sys
from psiflow_core.processes.messages import frame
token = sys.argv[-1]
for line in sys.stdin:
    request = json.loads(line)
    number, predicts = request["id"], request["do"] == "predict"
    print("noise", flush=True)
    sys.stdout.buffer.write({answer})
    sys.stdout.buffer.flush()
"""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('frame(token, {"id": number - predicts, "value": 5.0})', "it did not answer request 2"),
        ('frame(token, {"value": 5.0})', "it did not answer request 1"),
        ('frame(token, {"id": number})', "it did not answer request 1"),
        ("frame(token, [5.0])", "it did not answer request 1"),
        ('token.encode() + b"5.0, 6.0\\n"', "not JSON"),
        ('b"x" * 2**22', "more than 1048576 bytes without an answer"),
        ('frame(token, {"id": number, "value": [] if predicts else 5.0})', "a wrong number of predictions: 0 for 1"),
        (
            'frame(token, {"id": number, "value": [{"energy": 1}] if predicts else 5.0})',
            "answered what is no prediction",
        ),
        (
            'frame(token, {"id": number, "value": [{"energy": 1, "forces": [[0, 0, 0]], "stress": None,'
            ' "deviation": None}] if predicts else 5.0})',
            r"forces of shape \(1, 3\); the contract asks for \(3, 3\)",
        ),
    ],
)
def test_a_bad_answer_ends_the_process_and_is_never_anothers(answer: str, said: str, member: Member) -> None:
    with homes({"toy": (sys.executable, "-c", ANSWERING.replace("{answer}", answer))}):
        with pytest.raises(WrongAnswer, match=said):
            there(member).predict([molecule("H2O")])
        (server,) = [one for words, one in process._servers.items() if answer in words[2]]
        assert server._process is None


def test_an_exit_over_a_request_is_told_and_the_process_goes_on(member: Member, elsewhere: None) -> None:
    task = {"do": "perform", "kind": "no such kind", "request": {}, "grant": {}}
    assert ask_once(HERE, task)["failure"]["type"] == "KeyError"
    wrong = Spec("reference", "faithless", {"how": "an exit"}, "psiflow-toys", "0.1.0")
    place = member.file.path.parent
    label = LabelRequest(reference=wrong, structure=molecule("H2O"), labels=place, folder=place)
    told = ask_once(HERE, {"do": "perform", "kind": "label", "request": label.to_plain(), "grant": {}})
    assert told["failure"]["message"] == "sys.exit('the licence has run out') was called"


def test_the_calculator_of_a_served_model_reaches_other_processes(member: Member, elsewhere: None) -> None:
    atoms = molecule("H2O")
    atoms.calc = there(member).calculator()
    again = pickle.loads(pickle.dumps(atoms))
    np.testing.assert_array_equal(again.get_forces(), copy.deepcopy(atoms).get_forces())
