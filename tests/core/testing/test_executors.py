"""The executors of the core fulfil the contract of executors, and the contract catches those that break it."""

from pathlib import Path

import pytest
from psiflow_toys.executor import ToyBlocks

from psiflow_core.builtin.executors import Local, Threads
from psiflow_core.testing import ExecutorContract


class TestLocal(ExecutorContract):
    component = Local
    options = {"workers": 2}  # noqa: RUF012


class TestThreads(ExecutorContract):
    component = Threads
    options = {"workers": 2}  # noqa: RUF012


class Leaking(ExecutorContract):
    """Its options are lines of shell, and the contract is not told so."""

    component = ToyBlocks


def test_an_option_that_reaches_a_shell_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"before=.* has reached a shell"):
        Leaking().test_no_option_reaches_a_shell_unquoted(tmp_path)
