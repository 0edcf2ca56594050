"""Signals that ask a command to end: it ends as after Ctrl-C, and so does all that it has started."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import psutil

from psiflow_core.leases import end

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What batch systems and service managers send, and a terminal that is closed."""


@contextlib.contextmanager
def ends_in_order() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the block when a signal asks this process to end, and end its children after it.

    A signal that is ignored, as under ``nohup``, stays so. After the first one others are ignored, for they come
    together; Ctrl-C counts each time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for other in ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    wanted = {**dict.fromkeys(ENDING, signal.SIG_DFL), signal.SIGINT: signal.default_int_handler}
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
