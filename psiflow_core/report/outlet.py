"""Output to terminals and pipes that never ends the work.

A reader may leave (``| head``), a disk may be full, a terminal may lack characters; and the text may come from an
engine that sends colours, or from a file named ``[red]``. This module handles all of these cases.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from psiflow_core.texts import UNFIT

PLAIN = "psiflow.plain"
"""The name of the error handler for characters that an encoding lacks."""

ALIKE = {"█": "#", "░": ".", "…": "~", "–": "-", "—": "-", "−": "-", "·": "-", "→": ">", "×": "x", "Å": "A"}
ALIKE |= {"✔": "+", "✘": "x", "ö": "o", "é": "e", "²": "2", "³": "3", "σ": "s", "Δ": "D", "å": "a"}
"""Replacements for characters that cannot be written; every other one becomes a question mark."""


class Outlet(io.TextIOBase):
    """A stream for messages that never raises.

    Characters that the stream lacks are replaced. When its reader has left or its disk is full, all further output
    of this process to it is discarded.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def write(self, text: str) -> int:
        with self._as_far_as_it_goes():
            if self._stream is not None:
                self._stream.write(showable(text, self._encoding))
        return len(text)

    def flush(self) -> None:
        with self._as_far_as_it_goes():
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        with self._as_far_as_it_goes():
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("there is no stream")
        return self._stream.fileno()

    @contextlib.contextmanager
    def _as_far_as_it_goes(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # a ValueError is what a stream that was closed raises
            stream, self._stream = self._stream, None
            with contextlib.suppress(OSError, ValueError):  # one that is no file of the system's cannot be led away
                if stream is not None and stream.fileno() in (1, 2):
                    _lead_nowhere(stream.fileno())


class Terminal(Console):
    """A console that prints text literally: without markup and control codes, and with psiflow's own colours only.

    Args:
        stream: standard output, if none is given.
    """

    def __init__(self, stream: TextIO | None = None, **options: Any) -> None:
        outlet = Outlet(sys.stdout if stream is None else stream)
        super().__init__(file=cast("IO[str]", outlet), markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            fit = segment.control or segment.text == "\n" or not UNFIT.search(segment.text)
            yield segment if fit else Segment(UNFIT.sub("", segment.text), segment.style)


def showable(text: str, encoding: str | None = None) -> str:
    """The text with only the characters of an encoding, by default that of standard output."""
    encoding = encoding or getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, PLAIN).decode(encoding)


@contextlib.contextmanager
def outlets() -> Iterator[None]:
    """A block in which writing to standard output and error never raises, not even in libraries."""
    with contextlib.redirect_stdout(Outlet(sys.stdout)), contextlib.redirect_stderr(Outlet(sys.stderr)):
        yield


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(ALIKE.get(one, "?") for one in error.object[error.start : error.end]), error.end


codecs.register_error(PLAIN, _plain)
