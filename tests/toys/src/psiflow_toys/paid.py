"""Labels that are counted: what was begun, what was finished, and what was paid for twice."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import psiflow_core as psiflow
from psiflow_core.components import Spec
from psiflow_core.labels.dataset import Dataset

LOG = "log"


def counted(folder: Path, delay: float) -> Spec:
    """A reference that writes down in a folder when a computation begins, and when it has finished.

    Args:
        delay: time that a computation takes. [s]
    """
    parameters = {"log": str(folder / LOG), "delay": delay}
    return psiflow.reference("ase", calculator="psiflow_toys.counted:Counted", parameters=parameters)


def computations(folder: Path, what: str) -> Counter[str]:
    """How often the computation of each structure has `begun`, or `finished`."""
    file = folder / LOG
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return Counter(line["structure"] for line in lines if line["what"] == what)


def assert_paid_once(data: Dataset, folder: Path, number: int, in_vain: int = 0) -> None:
    """Every structure has a label, computed once; so many computations at most began and did not finish."""
    assert len(data) == number
    assert not data.failures
    finished, begun = computations(folder, "finished"), computations(folder, "begun")
    assert len(finished) == number
    assert set(finished.values()) == {1}
    assert begun.total() <= number + in_vain
