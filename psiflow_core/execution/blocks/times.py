"""Times as options of executors."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, PositiveFloat

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]?\d):(?P<seconds>[0-5]?\d)")
"""`HH:MM:SS` or `D-HH:MM:SS`. Of two numbers batch systems read the first as hours or as minutes."""


def seconds(given: object) -> object:
    """A time as all batch systems read it, or a number of seconds. [s]"""
    if not isinstance(given, str):
        return given
    if not (found := TIME.fullmatch(given.strip())):
        try:
            return float(given)
        except ValueError:
            raise ValueError(f"{given!r} is not a time; write HH:MM:SS, D-HH:MM:SS or seconds") from None
    days, hours, minutes, rest = (int(found[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    return float(((24 * days + hours) * 60 + minutes) * 60 + rest)


Seconds = Annotated[PositiveFloat, BeforeValidator(seconds)]
