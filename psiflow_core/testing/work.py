"""What holds for everything that works on workers, where others work too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from psiflow_core.testing.component import ComponentContract
from psiflow_core.testing.traces import Traces, within


class WorkContract(ComponentContract):
    """It ends, and leaves the process, the machine and its inputs unchanged."""

    patience: ClassVar[float] = 600.0
    """A check, or the training that several share, hangs if it takes longer. [s]"""
    _hanging: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _nothing_hangs(self, request: pytest.FixtureRequest) -> Iterator[None]:
        cls, name = type(self), request.function.__name__
        if cls._hanging:
            pytest.fail(f"not tried, for {cls._hanging} hangs")
        with within(self.patience, name) as late:
            yield
        cls._hanging = " ".join(late)

    @classmethod
    def once(cls, what: str, make: Callable[[], Any]) -> Any:
        """What is made, or was made for another check of this class."""
        made = cls.__dict__.get(f"_made_{what}") or (make(),)
        setattr(cls, f"_made_{what}", made)
        return made[0]

    @pytest.fixture
    def traces(self) -> Traces:
        """What one piece of work leaves; each contract has its own."""
        raise NotImplementedError

    def test_the_working_directory_is_left_alone(self, traces: Traces) -> None:
        before, after = traces.folder
        assert after == before

    def test_environment_variables_are_left_alone(self, traces: Traces) -> None:
        before, after = traces.variables
        assert after == before

    def test_global_random_numbers_are_left_alone(self, traces: Traces) -> None:
        before, after = traces.random
        assert after == before, "take random numbers from a generator of your own: numpy.random.default_rng(seed)"

    def test_numpy_goes_on_to_treat_errors_as_before(self, traces: Traces) -> None:
        before, after = traces.errors
        assert after == before, "write: with numpy.errstate(…)"

    def test_settings_of_the_process_are_left_alone(self, traces: Traces) -> None:
        before, after = traces.settings
        assert after == before

    def test_no_file_is_left_outside_its_folder(self, traces: Traces) -> None:
        before, after = traces.files
        assert after == before, "neither in the working directory nor among temporary files"

    def test_no_thread_is_left(self, traces: Traces) -> None:
        before, after = traces.threads
        assert after == before

    def test_no_process_is_left(self, traces: Traces) -> None:
        before, after = traces.processes
        assert after == before
