"""Handles: the future results that verbs return at once."""

from __future__ import annotations

import operator
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
P = TypeVar("P")


class Handle(Generic[T, P]):
    """A future result. Given to another verb, it is a dependency.

    It is safe to use from several threads. Ctrl-C ends every wait at once.
    """

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._future: Future[T] = Future()
        self._future.set_running_or_notify_cancel()  # a handle cannot be cancelled: others may depend on it
        self._parts: list[P] = []
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        return f"<Handle of {self._verb}: {self._status()}>"

    def _status(self) -> str:
        if not self.done():
            return f"under way, {len(self._parts)} parts finished"
        return "finished" if self._future.exception() is None else f"failed: {self._future.exception()}"

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result.

        Args:
            timeout: how long to wait at most [s]; None waits to the end.

        Raises:
            TimeoutError: the result is not finished within the timeout; the work continues.
            PsiflowError: the verb, or one that it depends on, failed.
        """
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, and return the error; None with a result. Raises `TimeoutError` as `result`."""
        return self._future.exception(timeout)

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._future.done()

    def as_completed(self) -> Iterator[P]:
        """The parts of the result, each as soon as it is finished: labelled structures, trajectories, relaxations.

        Failed parts are left out; the result lists them.

        Raises:
            PsiflowError: after the last part, if `result` raises it.
        """
        seen = 0
        while fresh := self._after(seen):
            yield from fresh
            seen += len(fresh)
        self._future.result()

    def _after(self, seen: int) -> list[P]:
        """Wait for parts beyond the first `seen`; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._parts) > seen or self.done())
            return self._parts[seen:]

    def __add__(self, other: Handle[Any, Any] | Any) -> Handle[T, P]:
        """The sum of two future results: data sets are concatenated."""
        return _added(self, other)

    def __radd__(self, other: Any) -> Handle[T, P]:
        return _added(other, self)

    def finished_part(self, part: P) -> None:
        """Add a finished part of the result."""
        with self._changed:
            self._parts.append(part)
            self._changed.notify_all()

    def fulfil(self, value: T) -> None:
        """Set the result."""
        self._future.set_result(value)
        self._tell()

    def fail(self, error: BaseException) -> None:
        """Set the error."""
        self._future.set_exception(error)
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def future(self) -> Future[T]:
        """The result as a future of the standard library."""
        return self._future


def as_completed(handles: Iterable[Handle[Any, Any]]) -> Iterator[Handle[Any, Any]]:
    """The handles, each as soon as it is done. `Handle.as_completed` gives the parts of one."""
    unique = list({id(handle): handle for handle in handles}.values())
    ended: queue.SimpleQueue[Handle[Any, Any]] = queue.SimpleQueue()
    for handle in unique:
        handle.future.add_done_callback(lambda _, handle=handle: ended.put(handle))  # type: ignore[misc]
    for _ in unique:
        yield ended.get()


def _added(first: Any, second: Any) -> Handle[Any, Any]:
    terms = [first, second]
    waited = [term for term in terms if isinstance(term, Handle)]
    total: Handle[Any, Any] = Handle("a sum")
    left = threading.Lock(), [len(waited)]

    def one_less(_: Future[Any]) -> None:
        with left[0]:
            left[1][0] -= 1
            if left[1][0]:
                return
        try:
            total.fulfil(operator.add(*(_value(term) for term in terms)))
        except Exception as error:  # the handle of the sum raises it
            total.fail(error)

    for term in waited:
        term.future.add_done_callback(one_less)
    return total


def _value(term: Any) -> Any:
    return cast(Any, term).future.result() if isinstance(term, Handle) else term
