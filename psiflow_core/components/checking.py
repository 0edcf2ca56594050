"""Checks of the parts of plugins' answers: numbers, arrays, types; and the errors that name a plugin."""

from __future__ import annotations

import contextlib
import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np

from psiflow_core.components.component import Spec
from psiflow_core.errors import PsiflowError, WrongAnswer
from psiflow_core.structures import Array
from psiflow_core.texts import said_by


def named(spec: Spec) -> str:
    """The name of a component and its plugin in messages."""
    plugin = f" of distribution {spec.distribution} {spec.version}" if spec.distribution else ""
    return f"{spec.kind} '{spec.name}'{plugin}"


def wrong(who: str, did: str) -> WrongAnswer:
    """The error of a plugin that breaks its contract."""
    return WrongAnswer(f"{who} {did}; once its plugin is corrected, run the same again to continue")


@contextlib.contextmanager
def reading(who: str) -> Iterator[None]:
    """Read an answer; any exception while reading it becomes a `WrongAnswer`."""
    try:
        yield
    except PsiflowError:
        raise
    except Exception as error:
        raise wrong(who, f"returned what cannot be read ({type(error).__name__}: {said_by(error)})") from error


@contextlib.contextmanager
def in_the_driver(who: str) -> Iterator[None]:
    """Call an executor; any exception becomes a `WrongAnswer` that names the executor, because no task reports it."""
    try:
        yield
    except (PsiflowError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise wrong(who, f"raised {type(error).__name__}: {said_by(error)}") from error


BLAMED = "raised by "
"""The beginning of an exception's note that names the plugin."""


@contextlib.contextmanager
def blamed(who: str) -> Iterator[None]:
    """Add the plugin's name as a note to its exceptions; psiflow's own error types stay unchanged.

    If a plugin forks and returns in both processes, the copy is ended here; else the work would be done twice.
    """
    process = os.getpid()
    try:
        yield
    except PsiflowError:
        raise
    except BaseException as error:
        if not blame(error):  # a sampler passes on an error of a potential
            error.add_note(f"{BLAMED}{who}")
        raise
    finally:
        if os.getpid() != process:
            os.write(2, f"{who} came back in a process that it has forked; that one ends\n".encode())
            os._exit(1)


def blame(error: BaseException) -> str:
    """The plugin that raised an exception; empty if unknown."""
    notes = getattr(error, "__notes__", [])
    return next((note.removeprefix(BLAMED) for note in notes if note.startswith(BLAMED)), "")


def an(found: object, kind: Any, who: str) -> Any:
    """The returned value, if it has the required type; raises `WrongAnswer`."""
    if isinstance(found, kind):
        return found
    wanted = getattr(kind, "__name__", None) or str(kind)
    raise wrong(who, f"returned {told(found)} where its contract asks for {wanted}")


def number(found: object, what: str, who: str) -> float:
    """A real number, finite or not; raises `WrongAnswer`."""
    plain = _unmasked(found, found)
    plain = plain.item() if isinstance(plain, np.ndarray | np.generic) and plain.ndim == 0 else plain
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise wrong(who, f"returned {what} that is {told(found)}, not a number")
    return float(plain)


def count(found: object, what: str, who: str) -> int:
    """A whole number that is not negative; raises `WrongAnswer`."""
    try:
        whole = operator.index(found)  # type: ignore[arg-type]
    except TypeError:
        raise wrong(who, f"returned {what} that are {told(found)}, not a whole number") from None
    if isinstance(found, bool) or whole < 0:
        raise wrong(who, f"returned {told(found)} for {what}")
    return whole


def numbers(found: object, what: str, who: str, needed: Sequence[str] = ()) -> dict[str, float]:
    """Finite numbers by name, as Python's own; raises `WrongAnswer`."""
    given: Mapping[str, Any] = an(found, Mapping, who)
    missing = [name for name in needed if name not in given]
    if missing:
        raise wrong(who, f"returned {what} without {', '.join(missing)}")
    checked = {an(name, str, who): number(value, f"{what} with {name!r}", who) for name, value in given.items()}
    for name, value in checked.items():
        if not math.isfinite(value):
            raise wrong(who, f"returned {what} in which {name!r} is {value}")
    return checked


def array(found: object, shape: tuple[int, ...], what: str, who: str) -> Array:
    """A new array of real numbers of a shape, in double precision, not necessarily finite; raises `WrongAnswer`."""
    try:
        given = np.asarray(found)
    except Exception as error:  # ragged lists, and tensors that are not on this device
        raise wrong(who, f"returned {what} that are no array ({type(error).__name__}: {said_by(error)})") from error
    if given.dtype.kind not in "fiu":
        kind = "complex numbers" if given.dtype.kind == "c" else told(found)
        raise wrong(who, f"returned {what} that are {kind}, not an array of real numbers")
    if given.shape != shape:
        raise wrong(who, f"returned {what} of shape {given.shape}; the contract asks for {shape}")
    return np.array(_unmasked(found, given), np.float64)


def _unmasked(found: object, given: Any) -> Any:
    """The array with NaN in masked places: values under a mask are not part of the answer."""
    return np.ma.filled(found.astype(float), np.nan) if isinstance(found, np.ma.MaskedArray) else given


def each(found: object, wanted: int, what: str, who: str) -> list[Any]:
    """The returned list, if it has one item for each structure; raises `WrongAnswer`."""
    if found is None or isinstance(found, str | bytes | Mapping):
        raise wrong(who, f"returned {told(found)} where its contract asks for a list of {what}")
    try:
        one_by_one = iter(found)  # type: ignore[call-overload]
    except TypeError:
        raise wrong(who, f"returned {told(found)} where its contract asks for a list of {what}") from None
    given = list(islice(one_by_one, wanted + 1))
    if len(given) != wanted:
        raise wrong(who, f"returned a wrong number of {what}: {len(given)} for {wanted} structures")
    return given


def told(found: object) -> str:
    """A short description of a value: itself if it is short, else its type."""
    known = isinstance(found, bool | int | float | str | None)  # only these types have a trusted `repr`
    text = repr(found)[:41] if known else ""
    return text if known and len(text) <= 40 else f"a {type(found).__name__}"
