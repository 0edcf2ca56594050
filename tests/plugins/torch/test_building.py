"""Networks are built with settings of the whole process, by one thread at a time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from psiflow_core.structures import Plain

PLAN: Plain = {"cutoff": 5.0, "width": 8, "species": 2, "scale": 1.0}


def test_networks_that_threads_build_at_once_are_those_of_their_seeds_and_precisions() -> None:
    import torch
    from psiflow_toys_torch._network import PairArchitecture

    class Slow(PairArchitecture):
        def build(self, plan: Plain) -> torch.nn.Module:
            time.sleep(0.05)
            return super().build(plan)

    def weights(asked: tuple[str, int]) -> list[Any]:
        return [value.detach() for value in Slow().new(PLAN, *asked).state_dict().values()]

    asked = [("float32", 1), ("float64", 2), ("float32", 3), ("float64", 4)]
    before = torch.get_default_dtype()
    alone = [weights(one) for one in asked]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(weights, asked))
    assert torch.get_default_dtype() == before
    for some, others in zip(alone, together, strict=True):
        assert [value.dtype for value in some] == [value.dtype for value in others]
        assert all(torch.equal(a, b) for a, b in zip(some, others, strict=True))
