"""An exception that crosses a process is the same on the other side."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import pytest

from psiflow_core import errors
from psiflow_core.errors import CampaignError, EngineMissing, EnvironmentUnfit, PsiflowError
from psiflow_core.execution.failures import Failure, failure


def kinds() -> Iterator[type[PsiflowError]]:
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, PsiflowError):
            yield kind


def made(kind: type[PsiflowError]) -> PsiflowError:
    """One of a kind, with a value for each of its arguments that is not the default."""
    if not inspect.isfunction(kind.__init__):
        return kind("something is wrong")
    parameters = inspect.signature(kind).parameters.values()
    return kind(*(True if one.annotation == "bool" else f"the {one.name}" for one in parameters))


def crossed(error: BaseException) -> Failure:
    """As another process has it."""
    return Failure.from_plain(json.loads(json.dumps(failure(error).to_plain())))


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_survives_the_border_with_all_its_fields(kind: type[PsiflowError]) -> None:
    error = made(kind)
    again = crossed(error).error(CampaignError)
    assert type(again) is kind
    assert str(again) == str(error)
    kept = {name: value for name, value in vars(error).items() if name != "problems"}
    assert vars(again) == kept, "the places of wrong options are told where they were given"


def test_fields_that_decide_what_is_done_are_among_them() -> None:
    assert vars(crossed(errors.ReferenceFailed("no", "unconverged")).error(CampaignError)) == {"reason": "unconverged"}
    unfit = crossed(EnvironmentUnfit("it is old", "Update it")).error(CampaignError)
    assert vars(unfit) == {"found": "it is old", "fix": "Update it"}
    assert vars(crossed(errors.LabelCorrupt("no", barred=True)).error(CampaignError)) == {"barred": True, "late": False}


def test_an_error_that_is_defined_elsewhere_is_of_its_type_too() -> None:
    from psiflow_core.environments.process import ProcessLost

    again = crossed(ProcessLost("it has ended")).error(CampaignError)
    assert isinstance(again, EngineMissing)
    assert type(again) is ProcessLost


def test_an_exception_of_nobodys_is_told() -> None:
    again = crossed(ZeroDivisionError("division by zero")).error(CampaignError)
    assert type(again) is CampaignError
    assert "division by zero" in str(again)
