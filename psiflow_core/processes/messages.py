"""Messages between processes over a pipe with other output in it: one line each, recognised by a token.

A container's command passes on standard input and output only, and an interpreter may print to both when it starts.
So the asking process makes up a token. A line that begins with the token is an answer; all other lines are noise.
"""

from __future__ import annotations

import json
import secrets
from typing import IO, Any

NOISE = 2**20
"""How much other output may precede an answer; a process that prints more will never answer. [bytes]"""


class NoAnswer(Exception):
    """The output is not an answer, or not the expected one."""


def token() -> str:
    """A random word that no other program prints."""
    return secrets.token_hex(16)


def frame(token: str, content: Any) -> bytes:
    """A message as bytes. It begins on a new line, also after noise without a line break."""
    return b"\n" + token.encode() + json.dumps(content).encode() + b"\n"


def unframe(token: str, stream: IO[bytes]) -> Any:
    """The next message of a stream; None at its end.

    Raises:
        NoAnswer: there is too much other output, or the text after the token is not JSON.
    """
    start, noise = token.encode(), 0
    while line := stream.readline(NOISE):
        if line.startswith(start):
            whole = line if line.endswith(b"\n") else line + stream.readline()
            return _parsed(whole[len(start) :])
        noise += len(line)
        if noise > NOISE:
            raise NoAnswer(f"it printed more than {NOISE} bytes without an answer")
    return None


def _parsed(message: bytes) -> Any:
    try:
        return json.loads(message)
    except ValueError as error:
        raise NoAnswer(f"its answer is not JSON ({error})") from error
