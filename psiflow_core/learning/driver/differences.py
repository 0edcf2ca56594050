"""How two configurations of a campaign differ, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
"""A SHA-256; messages show its first characters at most."""


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every difference between two configurations: the name of the setting, and a clause that tells it."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif name == "walkers" and _groups(before) and _groups(now) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{name}.{number}")
    elif before != now and name in ("start", "test", "data"):
        yield name, _other_structures(name, before, now)
    elif before != now:
        yield name, f"{name} was {short(before)} and is now {short(now)}"


def _groups(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _other_structures(name: str, before: str | None, now: str | None) -> str:
    was, is_now = (HASH.sub("", text).strip() if text else "none" for text in (before, now))
    moved = " with other positions, cell, charge, spin or fixed atoms" if was == is_now else ""
    return f"{name} was {was} and is now {is_now}{moved}"


def short(value: Any) -> str:
    """A value in at most 60 characters."""
    text = HASH.sub(r"\1", repr(value))
    return text if len(text) <= 60 else f"{text[:57]}…"
