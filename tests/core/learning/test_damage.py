"""Every file that a campaign leaves, damaged in every way: it is named in one line, and made again alone.

The matrix is made from what a campaign really leaves: a file of a kind that is not known here fails a test.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from psiflow_toys import campaigns

import psiflow_core as psiflow
from psiflow_core.cli import main
from psiflow_core.components import LabelTask
from psiflow_core.errors import ModelCorrupt, PsiflowError
from psiflow_core.labels.store import read_label, structure_file
from psiflow_core.learning.driver import pools_file
from psiflow_core.learning.driver.journal import Journal
from psiflow_core.learning.driver.request import Recorded, read_campaign
from psiflow_core.online import Result
from psiflow_core.potentials.trained import TrainedPotential
from psiflow_core.registry.plugins import build
from psiflow_core.report import figures
from psiflow_core.structures import digest, with_label

NOBODY = 65534
"""The user that reads what root may read and others may not."""


def flipped(content: bytes) -> bytes:
    """Another digit in the middle, or another bit where there is none."""
    if not content:
        return b"1"
    middle = len(content) // 2
    found = re.search(rb"[0-8]", content[middle:])
    at = middle + (found.start() if found else 0)
    return content[:at] + bytes([content[at] + 1 if found else content[at] ^ 1]) + content[at + 1 :]


def overwritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda file: (file.write_bytes(change(file.read_bytes())), None)[1]


def in_its_place_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def in_its_place_a_pipe(file: Path) -> None:
    """Whoever opens one to read waits for ever."""
    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": overwritten(lambda content: b""),
    "half": overwritten(lambda content: content[: len(content) // 2]),
    "not text": overwritten(lambda content: content[: len(content) // 2] + b"\xff" + content[len(content) // 2 :]),
    "no keys": overwritten(lambda content: b"{}"),
    "null": overwritten(lambda content: b"null"),
    "other digit": overwritten(flipped),
    "gone": Path.unlink,
    "barred": lambda file: file.chmod(0),
    "a folder": in_its_place_a_folder,
    "a pipe": in_its_place_a_pipe,
}


def asked() -> psiflow.OnlineLearning:
    return campaigns.learning(
        6,
        reference=psiflow.reference("toy", fail_fraction=0.2),
        stopping=psiflow.Stopping(tolerated_failures=1.0),
        schedule="sequential",
    )


def started(folder: Path, **more: object) -> Result:
    with psiflow.Context("threads", folder=folder.parent / "pools") as context:
        return campaigns.run(folder, context, asked(), test=campaigns.moved_water(1, seed=5), **more)


def given_data() -> list[object]:
    """Labelled structures, as a user gives them."""
    reference = build(psiflow.reference("toy"))
    structures = campaigns.moved_water(3, seed=17)
    return [with_label(one, reference.label(one, LabelTask(Path()))) for one in structures]  # type: ignore[attr-defined]


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """What nobody may read, this process may not; root becomes another user meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module", autouse=True)
def _no_pictures() -> Iterator[None]:
    """To draw the figures of so many reports would take most of the time, and they are files of nobody."""

    def undrawn(draw: Callable[[Figure], None], title: str, size: tuple[float, float]) -> str:
        return "<svg/>"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_svg", undrawn)
        yield


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that any user may enter and write."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a finished campaign leaves: bootstrap, walkers, failures and a test. To be copied."""
    return started(tmp_path_factory.mktemp("left") / "c").folder


@pytest.fixture(scope="module")
def left_with_gifts(left: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of one that was given data and a model."""
    gifts = {"data": given_data(), "model": left / "potential"}
    return started(tmp_path_factory.mktemp("given") / "c", **gifts).folder


def copied(source: Path, place: Path) -> Path:
    folder = Path(shutil.copytree(source, place / "c"))
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    return folder


def labelled_by(campaign: Recorded, origin: str, *, status: str = "labelled") -> Path:
    """The label of the first such candidate."""
    one = next(c for c in campaign.state.candidates if c.origin == origin and c.status == status)
    return campaign.store.absolute(one.file or "")


def structure_of(campaign: Recorded, status: str) -> Path:
    one = next(c for c in campaign.state.candidates if c.origin == "walker" and c.status == status)
    return structure_file(campaign.store.structures, one.structure)


def first(pattern: str) -> Callable[[Recorded], Path]:
    return lambda campaign: min(campaign.store.folder.glob(pattern))


RELIED_ON: dict[str, Callable[[Recorded], Path]] = {
    "journal": lambda campaign: campaign.store.journal_file,
    "tip": first("journal.tip"),
    "results": first("results.json"),
    "data set": first("dataset.xyz"),
    "report": first("report.html"),
    "description": first("potential/potential.json"),
    "saved weights": first("potential/member-0.json"),
    "label of the bootstrap": lambda campaign: labelled_by(campaign, "bootstrap"),
    "label of a walker": lambda campaign: labelled_by(campaign, "walker"),
    "label of an atom": lambda campaign: labelled_by(campaign, "atom"),
    "label of a test": lambda campaign: labelled_by(campaign, "test"),
    "structure": lambda campaign: structure_of(campaign, "labelled"),
    "first weights": lambda campaign: campaign.store.absolute(campaign.state.generations[0].models[0].path),
    "last weights": lambda campaign: campaign.store.absolute(campaign.state.generations[-1].models[0].path),
    "walker": lambda campaign: next(campaign.store.absolute(one.file) for one in campaign.state.walkers if one.file),
    "predictions": lambda campaign: campaign.store.absolute(campaign.state.evaluation.file),
}
"""Files without which a campaign would not be what it came to."""

SPENT: dict[str, Callable[[Recorded], Path]] = {
    "result of a label": first("tasks/label-*/result.json"),
    "result of a training": first("tasks/train-*/result.json"),
    "result of a segment": first("tasks/sample-*/result.json"),
    "result of an evaluation": first("tasks/evaluate-*/result.json"),
    "input of a failure": first("tasks/*/task.json"),
    "list of a training": first("tasks/train-*.json"),
    "list of an evaluation": first("tasks/evaluate-*.json"),
    "checkpoint": first("tasks/train-*/training/*"),
}
"""Files that nothing is read of any longer once the campaign has ended."""

LOCKED = {("journal", "barred"), ("journal", "a folder"), ("journal", "a pipe")}
"""What a person has to mend: nobody can tell what is in it."""

PATTERNS = (
    *("journal.sqlite", "journal.tip", "driver.lock", "psiflow.log", "pools.json"),
    *("results.json", "dataset.xyz", "report.html"),
    *("potential/potential.json", "potential/member-?.json", "labels/??/*.json", "structures/??/*.json"),
    *("models/*.json", "models/given/*.json", "given/*.json", "tasks/*.json", "tasks/*/result.json"),
    *("tasks/*/task.json", "tasks/train-*/training/*", "tasks/sample-*/attempt-*/walker-*.json"),
    "tasks/evaluate-*/attempt-*/predictions.json",
)


def test_every_file_that_a_campaign_leaves_is_of_a_kind_that_is_damaged_here(left: Path, left_with_gifts: Path) -> None:
    for folder in (left, left_with_gifts):
        files = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
        assert [file for file in files if not any(file.match(pattern) for pattern in PATTERNS)] == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"time": 0.0}'], ids=repr)
def test_damaged_states_of_pools_are_not_shown(content: bytes, tmp_path: Path) -> None:
    (tmp_path / pools_file.NAME).write_bytes(content)
    assert pools_file.read_pools(tmp_path) is None


def told(work: Callable[[], object]) -> list[str]:
    """What is said in warnings and in one error, line by line; a traceback fails the test."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            work()
            said = []
        except PsiflowError as error:
            said = [f"error: {error}"]
    said += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    assert not [line for line in said if "\n" in line]
    return said


def labels_in(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.glob("labels/??/*.json")}


def looked_at(folder: Path, *commands: str) -> list[str]:
    """What looks at a campaign ends in good order."""

    def look() -> None:
        for command in commands:
            with contextlib.suppress(SystemExit):
                main([command, str(folder)])

    return told(look)


def again(folder: Path, **more: object) -> list[str]:
    """What is said when the campaign is run again."""
    return told(lambda: started(folder, **more))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", RELIED_ON)
def test_a_damaged_file_is_named_and_what_it_was_comes_back_alone(
    kind: str, damage: str, left: Path, place: Path
) -> None:
    folder = copied(left, place)
    victim = RELIED_ON[kind](read_campaign(folder))
    before = {file: when for file, when in labels_in(folder).items() if file != victim}
    with unprivileged():
        DAMAGES[damage](victim)
        looked_at(folder, "status", "failures")
        said = again(folder)
        assert [line for line in said if victim.name in line], said
        if (kind, damage) in LOCKED:
            assert [line for line in said if line.startswith("error: ")] == said
            return
        assert not [line for line in said if line.startswith("error: ")], said
        assert again(folder) == [], "mended once is mended for good"
        assert labels_in(folder).items() >= before.items()
        is_whole(folder)


def is_whole(folder: Path) -> None:
    """A finished campaign whose results are there, and made of what it paid for."""
    state = read_campaign(folder).state
    assert state.finished == "labels"
    assert TrainedPotential.load(folder / "potential").members
    assert (folder / "report.html").read_text().endswith("</html>")
    labelled = {c.structure for c in state.candidates if c.status == "labelled"}
    assert len(labelled) == len(labels_in(folder)), "each was paid for once"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_log_that_cannot_be_written_is_named_and_stops_nothing(damage: str, left: Path, place: Path) -> None:
    folder = copied(left, place)
    log, before = folder / "psiflow.log", labels_in(folder)
    with unprivileged():
        DAMAGES[damage](log)
        said = again(folder)
        assert [line for line in said if str(log) not in line] == []
        assert bool(said) == (damage in ("barred", "a folder", "a pipe"))
        assert labels_in(folder) == before


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", SPENT)
def test_a_damaged_file_that_nobody_needs_any_longer_costs_nothing(
    kind: str, damage: str, left: Path, place: Path
) -> None:
    folder = copied(left, place)
    before = labels_in(folder)
    with unprivileged():
        DAMAGES[damage](SPENT[kind](read_campaign(folder)))
        assert looked_at(folder, "status", "failures") == []
        assert again(folder) == []
        assert labels_in(folder) == before


READ_BY_A_REPORT = ("journal", "tip", "results", "report", "label of the bootstrap", "structure", "predictions")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", READ_BY_A_REPORT)
def test_a_report_of_a_damaged_campaign_is_written_or_names_the_file(
    kind: str, damage: str, left: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(left, place)
    victim = RELIED_ON[kind](read_campaign(folder))
    with unprivileged():
        DAMAGES[damage](victim)
        looked_at(folder, "report")
        said = capsys.readouterr()
        assert str(folder / "report.html") in said.out or victim.name in said.err, said
        assert said.err.count("\n") <= 1


GIVEN: dict[str, Callable[[Recorded], Path]] = {
    "label": first("given/*.json"),
    "model": first("models/given/member-0.json"),
    "its description": first("models/given/potential.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", GIVEN)
def test_what_was_given_comes_back_from_the_request(
    kind: str, damage: str, left: Path, left_with_gifts: Path, place: Path
) -> None:
    folder = copied(left_with_gifts, place)
    victim = GIVEN[kind](read_campaign(folder))
    content, before = victim.read_bytes(), labels_in(folder)
    gifts = {"data": given_data(), "model": Path(shutil.copytree(left / "potential", place / "model"))}
    with unprivileged():
        DAMAGES[damage](victim)
        said = again(folder, **gifts)
        assert [line for line in said if "made again from the request" in line] == said
        assert said, victim
        assert victim.read_bytes() == content
        assert labels_in(folder) == before
        assert again(folder, **gifts) == []


def test_the_lock_of_no_driver_may_hold_anything(left: Path, place: Path) -> None:
    for damage in DAMAGES.values():
        folder = copied(left, place)
        with unprivileged():
            lock = folder / "driver.lock"
            damage(lock)
            said = [*looked_at(folder, "status"), *again(folder)]
            assert all(str(lock) in line for line in said)
        shutil.rmtree(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from psiflow_core.learning.driver import journal
sys.path.insert(0, sys.argv[1])
import test_damage

append, left = journal.Journal.append, int(sys.argv[3])

def last_but(*given):
    global left
    event = append(*given)
    left -= 1
    if not left:
        given[0]._connection.execute("COMMIT")
        given[0]._point()
        os.kill(os.getpid(), signal.SIGKILL)
    return event

journal.Journal.append = last_but
journal.Journal.settle = lambda *given, **named: None  # a disk that is not waited for: every event is in the log
test_damage.started(Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def killed(left: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a driver leaves that was killed when it had nearly all of its labels. To be copied."""
    folder = tmp_path_factory.mktemp("killed") / "c"
    events = [event.kind for event in read_campaign(left).events]
    last = len(events) - events[::-1].index("labelled") - 1
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder), str(last)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    return folder


@pytest.mark.parametrize("forgets_results", [False, True])
@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "barred"])
def test_the_log_of_a_killed_driver_is_damaged_and_no_label_is_paid_for_again(
    damage: str, forgets_results: bool, killed: Path, left: Path, place: Path
) -> None:
    """What workers finished is in the store also where the results of their tasks are lost, and other walkers walk."""
    folder = copied(killed, place)
    log = folder / "journal.sqlite-wal"
    assert log.stat().st_size > (folder / "journal.sqlite").stat().st_size
    before = labels_in(folder)
    paid = {digest(read_label(file)[0]) for file in before}
    if forgets_results:
        shutil.rmtree(folder / "tasks")
    DAMAGES[damage](log)
    looked_at(folder, "status", "failures", "report")
    said = again(folder)
    assert [line for line in said if "journal.sqlite-wal" in line], said
    assert not [line for line in said if line.startswith("error: ")]
    assert labels_in(folder).items() >= before.items()
    state = read_campaign(folder).state
    assert paid <= {candidate.structure for candidate in state.candidates if candidate.status == "labelled"}
    is_whole(folder)
    assert len(labels_in(folder)) == len(labels_in(left))


def test_events_that_the_log_has_lost_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "settle", lambda *given, **named: None)
    journal = Journal(tmp_path / "journal.sqlite", write=True)
    for number in range(20):
        journal.append("counted", {"number": number})
    killed = Path(shutil.copytree(tmp_path, tmp_path.with_name("killed"))) / "journal.sqlite"
    journal.close()
    log = killed.with_name("journal.sqlite-wal")
    os.truncate(log, log.stat().st_size // 2)
    found = Journal(killed, write=True)
    assert found.damaged is not None
    assert len(list(found.events())) + found.lost == 20
    assert found.lost > 5
    found.append("counted", {})
    found.close()
    assert Journal(killed, write=True).lost == 0


def test_a_candidate_whose_structure_is_lost_before_its_label_is_dropped_and_told(killed: Path, place: Path) -> None:
    state = read_campaign(killed).state
    waiting = [one for one in state.candidates if one.status in ("queued", "labelling") and one.origin == "walker"]
    assert waiting
    for damage in DAMAGES:
        folder = copied(killed, place)
        with unprivileged():
            victim = structure_file(folder / "structures", waiting[0].structure)
            DAMAGES[damage](victim)
            said = again(folder)
            assert [line for line in said if victim.name in line] == said, said
            is_whole(folder)
        shutil.rmtree(folder)


def test_a_label_in_a_shared_store_that_this_user_may_not_read_is_named_and_kept_apart(left: Path, place: Path) -> None:
    store = Path(shutil.copytree(left / "labels", place / "shared"))
    if os.geteuid() == 0:
        for path in (store, *store.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    victim = store / labelled_by(read_campaign(left), "bootstrap").relative_to(left / "labels")
    content = victim.read_bytes()
    victim.chmod(0)
    with unprivileged():
        said = again(place / "c", labels=store)
        assert [line for line in said if str(victim) in line] == said
        assert [file.name for file in labels_in(place / "c")] == [victim.name]
        victim.chmod(0o644)
        assert victim.read_bytes() == content, "it is not this user's to replace"


def test_a_shared_store_that_takes_no_label_costs_none(left: Path, place: Path) -> None:
    store = Path(shutil.copytree(left / "labels", place / "shared"))
    victim = store / labelled_by(read_campaign(left), "bootstrap").relative_to(left / "labels")
    victim.unlink()
    for path in (store, *store.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with unprivileged():
            assert again(place / "c", labels=store) == []
            assert [file.name for file in labels_in(place / "c")] == [victim.name]
            assert again(place / "c", labels=store) == []
    finally:
        for path in (store, *store.rglob("*")):
            path.chmod(0o777)


def test_a_report_of_a_folder_that_cannot_be_written_is_refused_in_one_line(
    left: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(left, place)
    folder.chmod(0o555)
    with unprivileged():
        looked_at(folder, "report")
    folder.chmod(0o777)
    said = capsys.readouterr().err
    assert f"cannot write into {folder}: Permission denied" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_potential_to_begin_with_that_cannot_be_believed_is_refused_in_one_line(
    damage: str, left: Path, place: Path
) -> None:
    model = Path(shutil.copytree(left / "potential", place / "model"))
    for path in (model, *model.iterdir()):
        path.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(model / "potential.json", NOBODY, NOBODY)
    DAMAGES[damage](model / "potential.json")
    with unprivileged(), pytest.raises(ModelCorrupt, match=r"potential\.json") as refused:
        started(place / "c", model=model)
    assert "\n" not in str(refused.value)
