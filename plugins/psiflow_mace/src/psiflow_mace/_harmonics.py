"""Real spherical harmonics in plain operations: e3nn's are TorchScript, which cannot be traced."""

from __future__ import annotations

import math

from psiflow_torch.engine import torch

from psiflow_mace._engine import o3


class SphericalHarmonics(torch.nn.Module):
    """As `e3nn.o3.SphericalHarmonics` of normalised vectors, normalised by component.

    Yⁿ is the coupling of Yⁿ⁻¹ with the vector by Wigner's 3j symbols, times (2n + 1)/√n (e3nn's documentation gives the
    recursion; the factor follows from the norms).
    """

    def __init__(self, highest: int) -> None:
        super().__init__()
        self.highest = highest
        for n in range(2, highest + 1):
            coupling = o3.wigner_3j(n - 1, 1, n, dtype=torch.float64)
            self.register_buffer(f"coupling_{n}", coupling.flatten(0, 1) * (2 * n + 1) / math.sqrt(n))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Shape (vectors, (highest + 1)²)."""
        vectors = torch.nn.functional.normalize(vectors, dim=1)
        parts = [torch.ones_like(vectors[:, :1])]
        for n in range(1, self.highest + 1):
            if n == 1:
                parts.append(math.sqrt(3) * vectors)
            else:
                coupling = getattr(self, f"coupling_{n}").to(vectors.dtype)
                parts.append((parts[-1][:, :, None] * vectors[:, None, :]).flatten(1) @ coupling)
        return torch.cat(parts, 1)
