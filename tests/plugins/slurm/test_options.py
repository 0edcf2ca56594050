"""Options are SLURM's own; wrong ones are refused before anything is submitted, and none reaches a shell unquoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psiflow_slurm._engine import SlurmJobs, clock
from psiflow_slurm.executor import Slurm

from psiflow_core.errors import OptionError
from psiflow_core.execution.blocks import Block

EVERYTHING = {
    "partition": "gpu,long",
    "account": "lab",
    "qos": "high",
    "constraint": "(rack1|rack2)&ssd",
    "reservation": "night",
    "exclusive": True,
    "nodes": 2,
    "cores": 8,
    "gpus": 2,
    "gpu_type": "a100",
    "memory": 0.5,
    "walltime": "1-02:03:04",
    "directives": ["--mail-type=END", "#SBATCH --licenses=vasp"],
}


def script(**options: Any) -> str:
    return SlurmJobs(Slurm.parse(options)).script(Block("psi0-1", ("a", "b c"), Path("/pool")))


def test_every_option_is_in_the_script_in_the_words_of_sbatch() -> None:
    lines = [line.removeprefix("#SBATCH --") for line in script(**EVERYTHING).splitlines() if "#SBATCH" in line]
    assert lines == [
        "job-name=psi0-1", "partition=gpu,long", "account=lab", "qos=high", "constraint=(rack1|rack2)&ssd",
        "reservation=night", "nodes=2", "ntasks-per-node=8", "cpus-per-task=1", "gres=gpu:a100:2", "mem=512M",
        "time=1-02:03:04", "signal=TERM@120", "export=ALL", "no-requeue", "exclusive", "mail-type=END",
        "licenses=vasp",
    ]  # fmt: skip


def test_without_options_a_job_asks_for_one_core_of_the_default_partition() -> None:
    head = [line for line in script().splitlines() if "#SBATCH" in line]
    assert not [line for line in head if "partition" in line or "exclusive" in line or "gres" in line]
    assert "#SBATCH --ntasks-per-node=1" in head
    assert "#SBATCH --no-requeue" in head


def test_a_block_of_one_node_replaces_the_script_and_is_warned_itself() -> None:
    assert script(walltime=100).endswith("exec a 'b c'\n")
    assert "--signal=B:TERM@10\n" in script(walltime=100)


def test_a_block_of_several_nodes_starts_its_workers_by_srun() -> None:
    last = script(nodes=3, cores=4).splitlines()[-1]
    assert last.startswith("exec srun --ntasks=3 --ntasks-per-node=1 --cpus-per-task=4 --overlap ")
    assert last.endswith(" a 'b c'")
    assert script(nodes=3, launcher="mine {nodes} 'x y'").endswith("exec mine 3 'x y' a 'b c'\n")


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "reservation"])
@pytest.mark.parametrize("value", ["", "a b", "a\n#SBATCH --exclusive", "a'b", 'a"b', "a\\", "a#b", "$(id)", "`id`"])
def test_what_sbatch_would_not_read_as_one_word_is_refused(name: str, value: str) -> None:
    with pytest.raises(OptionError, match=name):
        Slurm.parse({name: value})


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--partition=gpu", "use that one"),
        ("-p gpu", "option partition"),
        ("-pgpu", "option partition"),
        ("#SBATCH --time=1:00:00", "option walltime"),
        ("--job-name=mine", "belongs to psiflow"),
        ("--array=1-3", "belongs to psiflow"),
        ("--requeue", "belongs to psiflow"),
        ("module load cp2k", "no option of sbatch"),
        ("#PBS -l walltime=1", "no option of sbatch"),
        ("", "no option of sbatch"),
        ("--comment=a\n#SBATCH --array=1-9", "line break"),
    ],
)
def test_a_directive_that_would_change_what_psiflow_asks_for_is_refused(line: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        Slurm.parse({"directives": [line]})


@pytest.mark.parametrize("launcher", ["", "srun {tasks}", "srun {", "srun 'a"])
def test_a_launcher_that_cannot_be_read_is_refused(launcher: str) -> None:
    with pytest.raises(OptionError, match="launcher"):
        Slurm.parse({"launcher": launcher, "nodes": 2})


def test_a_type_of_gpu_needs_gpus() -> None:
    with pytest.raises(OptionError, match="gpu_type='a100' needs gpus"):
        Slurm.parse({"gpu_type": "a100"})


@pytest.mark.parametrize(
    ("seconds", "words"), [(1, "0-00:00:01"), (59.2, "0-00:01:00"), (3600, "0-01:00:00"), (9e4, "1-01:00:00")]
)
def test_a_wall_time_is_rounded_up(seconds: float, words: str) -> None:
    assert clock(seconds) == words
