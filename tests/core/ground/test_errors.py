"""Every error is public, and stands in the tree that users read."""

from __future__ import annotations

import inspect
import re

import psiflow_core as psiflow
from psiflow_core import errors

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, psiflow.PsiflowError)]


def test_every_error_is_a_public_name() -> None:
    for error in CLASSES:
        assert getattr(psiflow, error.__name__) is error
        assert issubclass(error, psiflow.PsiflowError)


def test_the_tree_of_errors_is_that_of_the_classes() -> None:
    """The bases are read from the indentation, four spaces a level."""
    found, path = {}, [""]
    for spaces, name in re.findall(r"^( +)(\w+)(?:  +\S.*)?$", errors.__doc__ or "", re.MULTILINE):
        level = len(spaces) // 4
        path[level:] = [name]
        found[name] = path[level - 1]
    assert found.pop("PsiflowError") == ""
    assert found == {one.__name__: one.__bases__[0].__name__ for one in CLASSES if one is not errors.PsiflowError}


def test_every_public_name_is_known_to_type_checkers() -> None:
    """They read imports that never run; a lazy name alone is an error to them."""
    imported = re.findall(r"^    from psiflow_core\S* import \w+ as (\w+)$", inspect.getsource(psiflow), re.MULTILINE)
    assert sorted(imported) == psiflow.__all__
