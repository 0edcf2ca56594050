"""Messages between processes over a pipe that others write to as well: a line each, known by a token.

A container's command hands on standard input and output and nothing else, and both are open to whatever an interpreter
prints when it starts. So an answer is the line that begins with the token that its asker made up; all others are noise.
"""

from __future__ import annotations

import json
import secrets
from typing import IO, Any

NOISE = 2**20
"""What else may be printed before an answer: more of it is a process that never answers. [bytes]"""


class NoAnswer(Exception):
    """What was read is no answer, or not the one that was asked for."""


def token() -> str:
    """A word that nobody else writes."""
    return secrets.token_hex(16)


def frame(token: str, content: Any) -> bytes:
    """A message as bytes. It begins a line of its own, also after noise that did not end in one."""
    return b"\n" + token.encode() + json.dumps(content).encode() + b"\n"


def unframe(token: str, stream: IO[bytes]) -> Any:
    """The next message of a stream; None at its end.

    Raises:
        NoAnswer: there is too much else, or what comes with the token is not JSON.
    """
    start, noise = token.encode(), 0
    while line := stream.readline(NOISE):
        if line.startswith(start):
            whole = line if line.endswith(b"\n") else line + stream.readline()
            return _parsed(whole[len(start) :])
        noise += len(line)
        if noise > NOISE:
            raise NoAnswer(f"it printed more than {NOISE} bytes that are no answer")
    return None


def _parsed(said: bytes) -> Any:
    try:
        return json.loads(said)
    except ValueError as error:
        raise NoAnswer(f"its answer is not JSON ({error})") from error
