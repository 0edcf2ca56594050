"""Checks of components before the first task: an objection that may be the fault of a host is put to another one."""

from __future__ import annotations

import socket

import pytest

from psiflow_core.errors import EngineMissing, OptionError, PoolFailed, PsiflowError
from psiflow_core.execution.failures import failure
from psiflow_core.execution.tasks.engine import EngineFound
from psiflow_core.execution.tasks.request import Outcome
from psiflow_core.learning.driver.checks import Objections

MISSING = EngineMissing("cp2k.psmp is not there")


def on(host: str, error: PsiflowError | None, reason: str = "") -> Outcome:
    failed = None if error is None else failure(error, reason=reason)
    return Outcome("0", EngineFound(engine="") if error is None else None, failed, worker=f"{host}:1")


def test_another_host_decides() -> None:
    objections = Objections()
    assert objections.again("0", on("n1", MISSING))
    assert objections.hosts == {"n1"}
    assert list(objections.told) == ["on host n1: cp2k.psmp is not there; another host is asked"]
    assert not objections.again("0", on("n2", None))
    assert not list(objections.told)


def test_the_objection_of_two_hosts_is_final_and_names_both() -> None:
    objections = Objections()
    objections.again("0", on("n1", MISSING))
    with pytest.raises(EngineMissing, match=r"cp2k.psmp is not there \(seen on host n2, and on n1 before\)"):
        objections.again("0", on("n2", MISSING))


def test_the_objection_of_the_only_host_is_told_rather_than_the_end_of_its_pool() -> None:
    objections = Objections()
    objections.again("0", on("n1", MISSING))
    with pytest.raises(EngineMissing, match="on host n1; no other host can be asked: refused"):
        objections.again("0", PoolFailed("refused"))
    with pytest.raises(PoolFailed, match="refused"):
        objections.again("1", PoolFailed("refused"))


@pytest.mark.parametrize(
    ("host", "error", "told"),
    [
        ("n1", OptionError("no such basis"), r"no such basis \(seen on host n1\)"),
        (socket.gethostname(), MISSING, "cp2k.psmp is not there$"),
        ("", MISSING, "cp2k.psmp is not there$"),
    ],
    ids=["input", "here", "unknown"],
)
def test_wrong_input_and_the_drivers_own_host_are_told_at_once(host: str, error: PsiflowError, told: str) -> None:
    with pytest.raises(type(error), match=told):
        Objections().again("0", on(host, error))


def test_a_lost_worker_is_replaced_twice_before_its_host_is_doubted() -> None:
    objections, lost = Objections(), PsiflowError("lost")
    for _ in range(2):
        assert objections.again("0", on("n1", lost, "lost worker"))
        assert not objections.hosts
    assert objections.again("0", on("n1", lost, "lost worker"))
    assert objections.hosts == {"n1"}
