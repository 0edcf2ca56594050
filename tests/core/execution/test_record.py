"""The record of a pool's jobs: what a driver that dies at any moment leaves for the next one."""

from __future__ import annotations

from pathlib import Path

import pytest
from psiflow_toys.batch import ToyBatch

from psiflow_core.errors import PoolFailed
from psiflow_core.execution.blocks._record import RECORD, Record, close, left


def executor(folder: Path) -> ToyBatch:
    return ToyBatch(queue=str(folder / "queue"), address="127.0.0.1")


def test_jobs_that_have_not_ended_are_left_with_what_it_takes_to_cancel_them(tmp_path: Path) -> None:
    record = Record(tmp_path, executor(tmp_path), "psi0")
    for number in range(3):
        record.submitted(str(number), f"job-{number}")
    record.ended(["job-1"])
    found = left(tmp_path / RECORD)
    assert found is not None
    assert (found.executor, found.tag, found.jobs) == ("toy-batch", "psi0", ("job-0", "job-2"))
    assert ToyBatch.parse(found.options) == executor(tmp_path)
    record.close(empty=True)
    assert left(tmp_path / RECORD) is None


def test_a_tag_is_left_before_any_job_is(tmp_path: Path) -> None:
    Record(tmp_path, executor(tmp_path), "psi0").close(empty=False)
    found = left(tmp_path / RECORD)
    assert found is not None
    assert (found.tag, found.jobs) == ("psi0", ())


def test_a_line_that_was_cut_off_hides_no_other_line(tmp_path: Path) -> None:
    record = Record(tmp_path, executor(tmp_path), "psi0")
    record.submitted("0", "job-0")
    record.close(empty=False)
    with (tmp_path / RECORD).open("ab") as stream:
        stream.write(b'{"job": "job-')
    found = left(tmp_path / RECORD)
    assert found is not None
    assert found.jobs == ("job-0",)
    close(tmp_path / RECORD)
    assert left(tmp_path / RECORD) is None


def test_two_drivers_do_not_share_a_record(tmp_path: Path) -> None:
    first = Record(tmp_path, executor(tmp_path), "psi0")
    with pytest.raises(PoolFailed, match=r"is used by process \d+ on .*give the context another folder"):
        Record(tmp_path, executor(tmp_path), "psi1")
    first.close(empty=True)
    Record(tmp_path, executor(tmp_path), "psi1").close(empty=True)
