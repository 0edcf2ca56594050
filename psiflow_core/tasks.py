"""What runs on workers: check, label, train, sample and evaluate, by name, on plain data.

`perform` is the one function that is shipped. It never raises: a task ends in a value or in a failure, both
plain data. A task writes its result into its folder before it returns, so that a result outlives the driver.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import importlib
import json
import math
import os
import shutil
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from ase import Atoms

from psiflow_core import answers, scratch
from psiflow_core.answers import Answering
from psiflow_core.bias import WalkerBias, of_plain
from psiflow_core.claims import claimed
from psiflow_core.components import (
    Component,
    LabelTask,
    Potential,
    Prediction,
    Reference,
    Resources,
    Sampler,
    SamplingTask,
    Spec,
    TrainingTask,
    Walker,
)
from psiflow_core.errors import EngineMissing, FileCorrupt, LabelCorrupt, ReferenceFailed
from psiflow_core.files import (
    believing,
    copy_atomically,
    file_digest,
    read_json,
    read_sealed,
    write_atomically,
    write_json,
    write_sealed,
)
from psiflow_core.leases import end_children, is_worker, lease
from psiflow_core.models import Member, ModelFile, load_members
from psiflow_core.plugins import build, registry
from psiflow_core.predictors import Committee
from psiflow_core.sampling import Checked, Limits, Visited, refuse_hot, sample_together
from psiflow_core.served import homes
from psiflow_core.structures import Label, Plain, digest, from_plain, label_of, sha256, to_plain, with_label
from psiflow_core.texts import one_line, said_by, shortened

RESULT = "result.json"

NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What a full disk, a spent quota, a limit on files and a read-only disk are called."""

MESSAGE = 4000
"""Characters of a failure's message that are kept beside its task; of a longer one head and tail."""

TRACE = 16000
"""The same of its trace."""

WORD = 80
"""The same of its reason, and of the name of its type."""

PLACE = 300
"""The same of a plugin's name, and of the place where an exception was raised."""

CHUNK = 64
"""Structures that an evaluation predicts at once."""


def perform(kind: str, task: Plain) -> Plain:
    """Run one task on this worker.

    Returns:
        `{"value": …}` or `{"failure": {"type", "reason", "message", "trace"}}`, and with either of them
        `"seconds"` of wall time and `"worker"`, host and process.
    """
    start = time.perf_counter()
    outcome: Plain
    try:
        with lease(task.get("folder"), task.get("resources", {})), homes(task.get("homes", {})), _scratch(task):
            value = TASKS[kind](task)
        outcome = {"value": json.loads(json.dumps(value))}  # no plugin's own types cross the border
    except BaseException as error:  # failures cross the border as text, with the name of their type
        if isinstance(error, KeyboardInterrupt) and scratch.alone() and not is_worker():
            raise  # somebody's Ctrl-C
        outcome = {"failure": failure(error, task.get("folder"))}
        end_children()
    outcome["seconds"] = time.perf_counter() - start
    outcome["worker"] = f"{socket.gethostname()}:{os.getpid()}"
    return _kept(outcome, task) if "folder" in task else outcome


@contextlib.contextmanager
def _scratch(task: Plain) -> Iterator[None]:
    """The task's folder as working directory, and for what is printed."""
    folder = Path(task["folder"]).absolute() if "folder" in task else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with scratch.printing_to(folder), scratch.inside(folder):
        yield


def failure(error: BaseException, folder: str | Path | None = None, **known: str) -> Plain:
    """An exception as plain data: sound text of bounded length.

    Args:
        folder: the task's; what is longer lies there as a whole, and the text says where.
        known: a reason or a message that is known better than the exception knows it.
    """
    message = known.get("message") or said_by(error)
    trace = "".join(traceback.format_exception(error))
    whole = ""
    if len(message) > MESSAGE or len(trace) > TRACE:
        whole = _whole(message, trace, folder)
    return {
        "type": one_line(type(error).__name__, WORD),
        "reason": one_line(known.get("reason") or _reason(error), WORD),
        "message": shortened(message, MESSAGE, whole),
        "plugin": one_line(answers.blame(error), PLACE),
        "where": one_line(_where(error), PLACE),
        "trace": shortened(trace, TRACE, whole),
    }


def told(failure: Plain) -> str:
    """The message of a failure; of an exception that a plugin did not foresee, whose it is, its type and its place."""
    if not failure["plugin"]:
        return str(failure["message"])
    place = f" ({failure['where']})" if failure["where"] else ""
    return f"{failure['plugin']} raised {failure['type']}: {failure['message']}{place}"


def _where(error: BaseException) -> str:
    """File and line of where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _whole(message: str, trace: str, folder: str | Path | None) -> str:
    """Write all that an exception says into the task's folder; returns where that is."""
    if folder is None:
        return ""
    file = Path(folder) / f"failure-{uuid.uuid4().hex[:8]}.txt"
    content = trace if message in trace else f"{message}\n\n{trace}"
    try:
        write_atomically(file, content.encode(errors="backslashreplace"), durable=False)
    except OSError as error:
        return f"they could not be kept: {error.strerror}"
    return f"all of it: {file}"


def _reason(error: BaseException) -> str:
    """A word that policies and reports count by."""
    if isinstance(error, ReferenceFailed):
        return str(error.reason)
    if isinstance(error, OSError) and error.errno in NO_DISK:
        return "disk"
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate" in said_by(error):
        return "memory"
    return "error"


def _kept(outcome: Plain, task: Plain) -> Plain:
    """The outcome, once it is in the task's folder; a failure where there is no room for it."""
    try:
        write_sealed(Path(task["folder"]) / RESULT, outcome)
    except OSError as error:
        return {**outcome, "value": None, "failure": failure(error)}
    return outcome


def check(task: Plain) -> Plain:
    """Whether a component works here: its engine can be imported, and it accepts the structures."""
    spec = Spec.from_plain(task["spec"])
    component, who = build(spec), answers.named(spec)
    require_engine(component)
    structures = [from_plain(plain) for plain in task["structures"]]
    answers.check(component, structures, who)
    if "starts" in task:
        starts, temperature = structures[: task["starts"]], answers.temperature(cast(Sampler, component), who)
        refuse_hot(starts, temperature, task["temperature_quantile"])
        for plain in task["bias"]:
            of_plain(plain).try_out(starts, temperature)
    return {"engine": engine_version(component)}


def engine(task: Plain) -> Plain:
    """Whether a component's engine can be imported here, whatever the options would be."""
    component = registry().find(task["kind"], task["name"]).component
    require_engine(component)
    return {"engine": engine_version(component)}


def label(task: Plain) -> Plain:
    """A label, from the store or computed and put there; or who is computing it, for a driver to wait for."""
    spec, structure = Spec.from_plain(task["reference"]), from_plain(task["structure"])
    files = label_places(task)
    if any(map(has_label, files)):
        return {"cached": True}
    file = label_place(files)
    with claimed(claim_file(file)) as other:
        if other is not None:
            return {"cached": True, "computed_by": str(other)}
        if any(map(has_label, files)):  # it was finished just now
            return {"cached": True}
        return _computed(spec, structure, file, task)


def _computed(spec: Spec, structure: Atoms, file: Path, task: Plain) -> Plain:
    reference, who = cast(Reference, build(spec)), answers.named(spec)
    require_engine(reference)
    own = _attempt(Path(task["folder"]))
    start = time.perf_counter()
    with scratch.inside(own), answers.blamed(who):
        found = reference.label(structure.copy(), LabelTask(own, _resources(task)))
    found = answers.label(found, structure, who)
    record = {
        "structure": to_plain(with_label(structure, found)),
        "reference": spec.to_plain(),
        "seconds": time.perf_counter() - start,
    }
    if not has_label(file):  # one that others have put there is theirs, and stays
        write_label(file, record, durable=False)  # the driver sees to that before it believes it
    shutil.rmtree(own, ignore_errors=True)
    return {"cached": False}


def train(task: Plain) -> Plain:
    """One member of a committee; the weights are copied into the folder of models, named by their hash."""
    spec = Spec.from_plain(task["potential"])
    potential, who = cast(Potential, build(spec)), answers.named(spec)
    require_engine(potential)
    manifest = read_sealed(Path(task["manifest"]))
    checkpoints = Path(task["folder"]) / "training"
    checkpoints.mkdir(parents=True, exist_ok=True)
    asked = _training_task(task, manifest, checkpoints)
    with scratch.inside(checkpoints), answers.blamed(who):
        found = potential.train(asked)
    result = answers.training(found, checkpoints, who)
    weights = file_digest(result.model)
    kept = Path(task["weights"]) / f"{weights}{result.model.suffix}"
    copy_atomically(result.model, kept)
    return {
        "model": {"path": kept.name, "digest": weights},
        "steps": result.steps,
        "errors": result.errors,
        "history": result.history,
    }


def _training_task(task: Plain, manifest: Plain, folder: Path) -> TrainingTask:
    parent = task["parent"]
    return TrainingTask(
        training=read_labels(manifest["training"]),
        validation=read_labels(manifest["validation"]),
        atomic_energies=manifest["atomic_energies"],
        seed=task["seed"],
        folder=folder,
        parent=ModelFile.from_plain(parent).verified() if parent else None,
        steps=task["steps"],
        resources=_resources(task),
    )


def sample(task: Plain) -> Plain:
    """One segment of each of several walkers, driven by the first model, watched by the whole committee."""
    spec = Spec.from_plain(task["sampler"])
    sampler = cast(Sampler, build(spec))
    require_engine(sampler)
    resources = _resources(task)
    members = _members(task["models"], resources)
    walkers = [read_walker(plain) for plain in task["walkers"]]
    biases = [_bias(plain, walker, sampler) for plain, walker in zip(task["walkers"], walkers, strict=True)]
    folder, structures = Path(task["folder"]), Path(task["candidates"])
    attempt = _attempt(folder)
    with scratch.inside(attempt):
        visits = sample_together(
            sampler,
            walkers,
            [_sampling_task(plain, task, resources) for plain in task["walkers"]],
            driving=members[0],
            committee=Committee(members),
            limits=Limits.model_validate(task["limits"]),
            biases=biases,
            who=answers.named(spec),
        )
    seen = [visit.most_uncertain for visit in visits if visit.most_uncertain]
    answers.disagreeing(members, [(checked.structure, checked.prediction) for checked in seen])
    ended = zip(task["walkers"], visits, biases, strict=True)
    told = [_visited(plain["walker"], visit, attempt, structures, bias) for plain, visit, bias in ended]
    return {"walkers": [{**one, **_inside(folder, one)} for one in told]}


def score(task: Plain) -> Plain:
    """How much a committee disagrees about structures that wait for a label: the largest spread in each. [eV/Å]"""
    records = [read_structure(Path(task["candidates"]), key) for key in task["structures"]]
    committee = Committee(_members(task["models"], _resources(task)))
    answers = committee.predict([from_plain(record["structure"]) for record in records])
    return {"deviations": [_need(one) for one in answers]}


def evaluate(task: Plain) -> Plain:
    """Predictions of several committees for labelled structures, into one file."""
    structures = read_labels(read_sealed(Path(task["manifest"]))["structures"])
    predictions = []
    for models in task["committees"]:
        committee = Committee(_members(models, _resources(task)))
        chunks = [structures[n : n + CHUNK] for n in range(0, len(structures), CHUNK)]
        predictions.append([answer.to_plain() for chunk in chunks for answer in committee.predict(chunk)])
    folder = Path(task["folder"])
    target = _attempt(folder) / "predictions.json"
    write_json(target, {"predictions": predictions})
    return {"file": str(target.relative_to(folder)), "digest": file_digest(target)}


def idle(task: Plain) -> Plain:
    """Nothing: for `psiflow doctor` and for measuring what a task costs."""
    return {"cores": task.get("resources", {}).get("cores")}


TASKS: dict[str, Callable[[Plain], Plain]] = {
    "check": check,
    "engine": engine,
    "label": label,
    "train": train,
    "sample": sample,
    "score": score,
    "evaluate": evaluate,
    "idle": idle,
}


def require_engine(component: Component | type[Component]) -> None:
    """Import the package that does a component's work.

    Raises:
        EngineMissing: it cannot be imported in this environment.
    """
    if not component.engine:
        return
    try:
        importlib.import_module(component.engine)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # an engine's import can fail in any way, sys.exit among them
        raise EngineMissing(
            f"{component.kind} '{component.name}' needs '{component.engine}', which cannot be imported on the "
            f"worker {socket.gethostname()} ({type(error).__name__}: {said_by(error)}); install it there"
        ) from error


def engine_version(component: Component | type[Component]) -> str:
    """The version of the package that does the work, empty where it tells none."""
    return str(getattr(importlib.import_module(component.engine), "__version__", "")) if component.engine else ""


def label_key(reference: Spec, structure: str) -> str:
    """What a label is found by: the reference with its version, and the structure's content hash."""
    return sha256([reference.digest, structure])


def by_key(folder: Path, key: str) -> Path:
    """Where a label or a structure lies in its store: in folders of manageable size."""
    return folder / key[:2] / f"{key}.json"


def label_file(labels: Path, reference: Spec, structure: Atoms) -> Path:
    """Where the label of a structure is, or would be."""
    return by_key(labels, label_key(reference, digest(structure)))


def label_places(task: Plain) -> list[Path]:
    """Where a task's label may be: in the store that it is asked of, then in the campaign's own if that is another."""
    spec, structure = Spec.from_plain(task["reference"]), from_plain(task["structure"])
    stores = task["labels"], task.get("own_labels", task["labels"])
    return [label_file(Path(store), spec, structure) for store in dict.fromkeys(stores)]


def label_place(files: Sequence[Path]) -> Path:
    """Where a label that is nowhere yet is computed for: the first place that takes it.

    In a store that users share a label may lie that this one may not read: it is not ours to replace.
    """
    *shared, own = files
    return next((file for file in shared if not is_barred(file) and _takes(file.parent)), own)


def _takes(folder: Path) -> bool:
    """Whether this user may write into a folder, or make it."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return os.access(there, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def claim_file(label: Path) -> Path:
    """Beside a label that somebody computes: who that is."""
    return label.with_suffix(".claim")


def write_label(file: Path, record: Plain, durable: bool = True) -> None:
    """Write a labelled structure and what is known of it, sealed with a hash."""
    write_sealed(file, record, durable)


def read_label(file: str | Path) -> tuple[Atoms, Plain]:
    """A labelled structure, and the record around it: reference, seconds.

    Raises:
        LabelCorrupt: the file is missing, cannot be read, or is not what `write_label` wrote.
    """
    file = Path(file)
    record = read_sealed(file, LabelCorrupt)
    with believing(file, LabelCorrupt):
        structure = from_plain(record["structure"])
        label_of(structure)
        float(record["seconds"])
        key = digest(structure)
        if "reference" in record:  # a label that was given with the request is named by its structure alone
            key = label_key(Spec.from_plain(record["reference"]), key)
    if key != file.stem:
        raise LabelCorrupt(f"label {file} is damaged: its content belongs to another name")
    return structure, record


def read_labels(files: Sequence[str]) -> list[Atoms]:
    """Labelled structures, from the files that `label` wrote; raises `LabelCorrupt`."""
    return [read_label(file)[0] for file in files]


def has_label(file: Path) -> bool:
    """Whether there is a label in a file that can be believed."""
    try:
        read_label(file)
    except LabelCorrupt:
        return False
    return True


def is_barred(file: Path) -> bool:
    """Whether there is a label that this user may not read."""
    try:
        read_label(file)
    except LabelCorrupt as error:
        return error.barred
    return False


def structure_file(structures: Path, key: str) -> Path:
    """Where a structure that may be labelled is kept, by its content hash."""
    return by_key(structures, key)


def write_structure(structures: Path, structure: Atoms, **more: Plain) -> None:
    """Keep a structure, and what made it a candidate."""
    file = structure_file(structures, digest(structure))
    write_sealed(file, {"structure": to_plain(structure), **more})


def read_structure(structures: Path, key: str) -> Plain:
    """What `write_structure` wrote, by the structure's content hash.

    Raises:
        FileCorrupt: the file is missing, cannot be read, or is not what its name says.
    """
    file = structure_file(structures, key)
    record = read_sealed(file)
    with believing(file):
        found = digest(from_plain(record["structure"]))
    if found != key:
        raise FileCorrupt(f"{file} is damaged: its content belongs to another name")
    return record


def trustworthy(found: Label, structure: Atoms) -> bool:
    """Whether a label is made of numbers, as many as the structure needs."""
    shapes = found.forces.shape == (len(structure), 3)
    stress = found.stress is None or (found.stress.shape == (6,) and bool(np.isfinite(found.stress).all()))
    return bool(shapes and stress and np.isfinite(found.energy) and np.isfinite(found.forces).all())


def read_walker(plain: Plain) -> Walker:
    """A walker from what `sample` wrote of it, or from a structure that has not moved."""
    if "file" not in plain:
        return Walker(from_plain(plain["structure"]))
    written = _written(plain)
    state = written["state"]
    return Walker(from_plain(written["structure"]), None if state is None else base64.b64decode(state), written["step"])


def _written(walker: Plain) -> Plain:
    file = ModelFile(Path(walker["file"]), walker["digest"]).verified()
    return read_json(file, ("structure", "state", "step"))


def _bias(plain: Plain, walker: Walker, sampler: Sampler) -> WalkerBias | None:
    """The biases of a walker, with what they remember of it; None without any."""
    if "bias" not in plain:
        return None
    kept = _written(plain)["bias"] if "file" in plain else []
    return WalkerBias([of_plain(one) for one in plain["bias"]], walker, kept, sampler.target_temperature())


def _members(models: Sequence[Plain], resources: Resources) -> list[Answering]:
    return load_members([Member.from_plain(plain) for plain in models], resources.device)


def _resources(task: Plain) -> Resources:
    return Resources(**task.get("resources", {}))


def _attempt(folder: Path) -> Path:
    """A folder of this attempt's own: an orphan and its successor never write into each other's files."""
    attempt = folder / f"attempt-{uuid.uuid4().hex[:8]}"
    attempt.mkdir(parents=True)
    return attempt


def _sampling_task(walker: Plain, task: Plain, resources: Resources) -> SamplingTask:
    return SamplingTask(
        steps=task["steps"],
        seed=walker["seed"],
        check_every=task["check_every"],
        stride=task["stride"],
        resources=resources,
    )


def _visited(number: int, visit: Visited, folder: Path, structures: Path, bias: WalkerBias | None) -> Plain:
    """What the driver is told of one walker; walker, trajectory and candidate go into files."""
    met = {"candidate": _write_candidate(visit.most_uncertain, structures)} if visit.most_uncertain else {}
    if visit.segment is None:
        error = cast(BaseException, visit.error)
        return {"walker": number, "failure": failure(error, folder), **met}
    segment = visit.segment
    state = segment.walker.state
    file = folder / f"walker-{number}.json"
    write_json(
        file,
        {
            "structure": to_plain(segment.walker.structure),
            "state": None if state is None else base64.b64encode(state).decode(),
            "step": segment.walker.step,
            **({"bias": bias.to_plain()} if bias else {}),
        },
    )
    told: Plain = {
        "walker": number,
        "file": str(file),
        "digest": file_digest(file),
        "steps": segment.steps,
        "stopped": segment.stopped,
        "finished": segment.finished,
        "averages": segment.averages,
    }
    if segment.frames:
        told["trajectory"] = _write_trajectory(folder / f"walker-{number}.xyz", segment.frames)
    return told | met


def _inside(folder: Path, told: Plain) -> Plain:
    """The files that are told of, as seen from the task's folder: it may be moved."""
    return {name: str(Path(told[name]).relative_to(folder)) for name in ("file", "trajectory") if name in told}


def _need(answer: Prediction) -> float:
    """How much a committee disagrees; without limit where it gives no number. [eV/Å]"""
    largest = 0.0 if answer.deviation is None else float(answer.deviation.max())
    return largest if math.isfinite(largest) else math.inf


def _write_trajectory(file: Path, frames: Sequence[Atoms]) -> str:
    import ase.io

    ase.io.write(file, list(frames), format="extxyz")
    return str(file)


def _write_candidate(checked: Checked, structures: Path) -> Plain:
    """Keep the structure together with what the committee said of it, to be held against the label."""
    structure = checked.structure
    structure.arrays.pop("momenta", None)
    write_structure(structures, structure, prediction=checked.prediction.to_plain())
    return {"structure": digest(structure), "deviation": checked.deviation, "step": checked.step}
