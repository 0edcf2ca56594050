"""What psiflow shows is a side of the work: nothing that happens to it, and nothing in it, disturbs the work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml
from ase.build import molecule
from psiflow_toys.campaigns import learning, run
from psiflow_toys.talking import SAYINGS

import psiflow_core as psiflow
from psiflow_core.cli import main
from psiflow_core.errors import CampaignError
from psiflow_core.execution.context import Context
from psiflow_core.execution.failures import MESSAGE, TRACE
from psiflow_core.learning.driver.request import read_campaign
from psiflow_core.learning.machine.events import Failed
from psiflow_core.report.display import Progress, overview
from psiflow_core.report.outlet import Outlet, Terminal

COMMAND = [sys.executable, "-m", "psiflow_core.cli"]
SAID = [*SAYINGS, "unutterable"]

REQUEST = {
    "potential": {"name": "toy", "basis": 8},
    "sampler": {"name": "ase", "temperature": 300.0},
    "reference": {"name": "toy"},
    "walkers": 1,
    "committee": 1,
    "bootstrap": {"structures": 3},
    "walking": {"segment": {"steps": 5, "check_every": 5}},
    "budget": {"labels": 4},
    "start": "water.xyz",
    "folder": "campaign",
    "context": {"everything": "threads"},
}


def requested(folder: Path) -> Path:
    molecule("H2O").write(folder / "water.xyz")
    (folder / "request.yaml").write_text(yaml.safe_dump(REQUEST))
    return folder / "request.yaml"


def nobody_reads() -> int:
    """The writing end of a pipe of which the reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def to_a_closed_pipe(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    """The command, with nobody who reads what it says on either stream."""
    pipe = nobody_reads()
    try:
        words = [*COMMAND, *map(str, arguments)]
        return subprocess.run(words, stdout=pipe, stderr=pipe, check=False)
    finally:
        os.close(pipe)


def results(folder: Path) -> set[str]:
    return {"dataset.xyz", "report.html", "results.json", "potential"} & {one.name for one in folder.iterdir()}


def test_a_campaign_that_nobody_listens_to_finishes(tmp_path: Path) -> None:
    assert to_a_closed_pipe("run", requested(tmp_path)).returncode == 0
    assert read_campaign(tmp_path / "campaign").state.finished == "labels"
    assert len(results(tmp_path / "campaign")) == 4


@pytest.mark.parametrize("words", ["--help", "labels --help", "--version", "plugins", "unheard-of"])
def test_a_command_whose_words_the_disk_does_not_take_ends_as_it_would(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        muted = subprocess.run([*COMMAND, *words.split()], stdout=full, stderr=full, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == muted.returncode == (2 if words == "unheard-of" else 0)


@pytest.mark.parametrize("words", [["status"], ["failures"], ["plugins"], ["options"], ["env", "list"], ["--help"]])
def test_a_command_whose_reader_has_left_ends_quietly(words: list[str], campaign: Path) -> None:
    where = [campaign] if words[0] in ("status", "failures") else []
    pipe = nobody_reads()
    done = subprocess.run([*COMMAND, *words, *where], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    os.close(pipe)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        *((words, "ascii") for words in ("status", "failures", "plugins", "options", "env list", "env --help", "run")),
        *(("doctor --reference toy", "ascii"), ("status", "latin-1"), ("run", "latin-1")),
    ],
)
def test_a_terminal_with_few_characters_is_shown_others(
    words: str, encoding: str, campaign: Path, tmp_path: Path
) -> None:
    where = {"status": [campaign], "failures": [campaign], "run": [requested(tmp_path)]}.get(words, [])
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [*COMMAND, *words.split(), *where]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert done.stdout.decode(encoding)
    assert b"Traceback" not in done.stderr


def test_a_result_is_printed_on_a_terminal_with_few_characters(learned: Path) -> None:
    script = (
        "import sys; from psiflow_core.online import Result; from psiflow_core.learning.driver.request import *;"
        "folder = __import__('pathlib').Path(sys.argv[1]); print(Result(folder, read_campaign(folder).state, []))"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script, learned], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"14 labels" in done.stdout


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", ["full", "closed", "none"])
def test_an_outlet_takes_whatever_its_stream_does_not(stream: str) -> None:
    closed = io.StringIO()
    closed.close()
    outlet = Outlet({"full": Broken(), "closed": closed, "none": None}[stream])
    for _ in range(2):
        outlet.write("said")
        outlet.flush()
    assert not outlet.isatty()


def test_a_progress_display_whose_terminal_is_gone_disturbs_nobody(learned: Path) -> None:
    found = read_campaign(learned)
    console = Terminal(Broken(), force_terminal=True)
    with Progress(True, console).showing(found.state, found.settings, learned) as show:
        show("")
        show("once more")


@pytest.fixture(scope="module", params=SAID)
def talked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A saying, and the folder of a campaign of which every label failed with that."""
    folder = tmp_path_factory.mktemp("talked") / "c"
    parameters = {"saying": request.param}
    reference = psiflow.reference("ase", calculator="psiflow_toys.talking:Talking", parameters=parameters)
    with Context("threads", folder=folder / "pools") as context, pytest.raises(CampaignError, match="gave up") as end:
        run(folder, context, learning(4, reference=reference, walkers=1))
    assert unfit(str(end.value)) == set()
    return request.param, folder


def unfit(text: str) -> set[str]:
    """Characters that are no text."""
    return {one for one in text if one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cs")} | (
        {"\u202e"} & set(text)
    )


def test_what_an_engine_says_is_kept_as_sound_text(talked: tuple[str, Path]) -> None:
    saying, folder = talked
    for failure in read_campaign(folder).state.failures:
        assert unfit(failure.message + failure.reason + failure.type) == set()
        assert failure.message
        if saying == "markup":
            assert SAYINGS[saying] in failure.message


def test_what_an_engine_says_is_shown_and_never_obeyed(
    talked: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    saying, folder = talked
    for command in ("status", "failures", "report"):
        with pytest.raises(SystemExit) as end:
            main([command, str(folder)])
        assert not end.value.code
        out = capsys.readouterr().out
        assert unfit(out) == set()
        if saying == "markup" and command != "report":
            assert "[red]not" in out
            assert ":smiley:" in out
    page = (folder / "report.html").read_text()
    assert unfit(page) == set()
    assert "<b>not bold" not in page


def test_of_a_long_message_head_and_tail_are_kept_and_the_place_of_the_whole(talked: tuple[str, Path]) -> None:
    saying, folder = talked
    events = [event.what for event in read_campaign(folder).events]
    failures = [what.failed.failure for what in events if isinstance(what, Failed)]
    assert (folder / "journal.sqlite").stat().st_size < 2**20
    for failure in failures:
        assert len(failure.message) < MESSAGE + 500
        assert len(failure.trace) < TRACE + 500
        if saying == "long":
            assert "begin xxx" in failure.message
            assert failure.message.endswith("xxx end")
            (file,) = (word for word in failure.message.split() if word.endswith(".txt"))
            assert SAYINGS["long"] in Path(file).read_text()


def test_a_folder_with_a_strange_name_is_shown_as_it_is_called(learned: Path) -> None:
    found = read_campaign(learned)
    stream = io.StringIO()
    Terminal(stream).print(overview(found.state, found.settings, learned.with_name("[red]\x1b[31m")))
    assert "[red][31m" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
