"""A thread that sends waiting tasks when a worker is free, whatever their clients do."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Sender:
    """Calls a function after news, in a thread of its own.

    News come from threads of Parsl, which must not wait: a pool that is closed waits for them.
    """

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send
        self._news = threading.Event()
        self._over = threading.Event()
        self._over.set()

    def news(self) -> None:
        """A worker is free, perhaps; called by any thread."""
        self._news.set()

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._over.is_set():
            self._over = threading.Event()
            threading.Thread(target=self._run, args=(self._over,), name="psiflow-sender", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end."""
        self._over.set()
        self._news.set()

    def _run(self, over: threading.Event) -> None:
        while self._news.wait() and not over.is_set():
            self._news.clear()
            self._send()
