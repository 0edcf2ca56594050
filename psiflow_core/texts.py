"""Text from engines, plugins and users' files, made safe to store and to show."""

from __future__ import annotations

import re

UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal, change the direction of writing, or belong to no encoding."""


def sound(text: str) -> str:
    """The text with its unfit characters written as escapes: ``\\x1b[31m`` is visible and colours nothing."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return UNFIT.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), lines)


def said_by(error: BaseException) -> str:
    """An exception's message, or its type if it has none; some exceptions cannot even give their message."""
    try:
        return f"sys.exit({error.code!r}) was called" if isinstance(error, SystemExit) else str(error) or _type(error)
    except Exception as another:
        return f"{_type(error)}, whose message cannot be read: {_type(another)}"


def _type(error: BaseException) -> str:
    return type(error).__name__


def shortened(text: str, limit: int, whole: str = "") -> str:
    """Head and tail of a text of more than ``limit`` characters, made `sound`; ``whole`` says where all of it is."""
    if len(text) <= limit:
        return sound(text)
    half = limit // 2
    left_out = f"[… {len(text) - 2 * half} characters left out{f'; {whole}' if whole else ''} …]"
    return f"{sound(text[:half])}\n{left_out}\n{sound(text[-half:])}"


def one_line(text: str, limit: int) -> str:
    """The text in one line of at most ``limit`` characters."""
    line = " ".join(sound(text[: 4 * limit]).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
