"""Signals that ask a command to end: it then ends as after Ctrl-C, with all processes that it started."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import psutil

from psiflow_core.processes.limits import end

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""The signals of batch systems and service managers, and of a terminal that is closed."""


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block when a signal asks this process to end, and end its children after it.

    A signal that is ignored, as under ``nohup``, stays ignored. After the first of these signals the others are
    ignored, because they often arrive together. Ctrl-C always counts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for other in STOP_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    wanted = {**dict.fromkeys(STOP_SIGNALS, signal.SIG_DFL), signal.SIGINT: signal.default_int_handler}
    before = {number: handler for number, handler in wanted.items() if signal.getsignal(number) == handler}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        if asked:
            end(psutil.Process().children(recursive=True))
        for number, handler in before.items():
            signal.signal(number, handler)
