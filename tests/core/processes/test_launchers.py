"""The ranks of a launcher, as they tell who they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from psiflow_core.processes import launchers


def rank(number: int, **changes: Any) -> str:
    return json.dumps({"rank": number, "size": 2, "library": "libmpi", "cores": [number], "host": "n1", **changes})


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (f"{rank(0)}\n{rank(1)}\n", [[0], [1]]),
        (f"{rank(0)}{rank(1)}\n\n", [[0], [1]]),
        (f"a word of the launcher {rank(1)}\nand another\n{rank(0)}", [[1], [0]]),
        (f"{rank(0)[:20]}{rank(1)}{rank(0)[20:]}\n", [[1]]),
        ("no slots\n", []),
    ],
    ids=["line by line", "joined", "among other words", "one within another", "none"],
)
def test_what_ranks_tell_is_found_however_a_launcher_joins_it(
    told: str, found: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers, "_run", lambda words: (told, "no slots"))
    seen = launchers._started("mpirun", "mpirun -n 2", 2, 1)
    assert seen.cores == found
    assert seen.sound == (len(found) == 2)
    assert bool(seen.words) == (len(found) < 2)
