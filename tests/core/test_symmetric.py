"""Symmetric products from three quarters of their entries."""

from __future__ import annotations

import pytest
import torch

from thalweg.core.symmetric import MIRRORED, symmetric


@pytest.mark.parametrize("n", [5, MIRRORED, MIRRORED + 1])
def test_is_the_product(n: int) -> None:
    x = torch.randn(n, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(symmetric(n, lambda i, j: x[i] @ x[j].mT), x @ x.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("n", "batch", "blocks"), [(MIRRORED, 1, 3), (MIRRORED - 1, 1, 1), (MIRRORED, 2, 1)])
def test_large_single_matrices_are_made_of_three_blocks(n: int, batch: int, blocks: int) -> None:
    seen = []

    def block(i: slice, j: slice) -> torch.Tensor:
        rows, columns = len(range(n)[i]), len(range(n)[j])
        seen.append(rows * columns)
        return torch.zeros(batch, rows, columns)

    assert symmetric(n, block, batch=batch).shape == (batch, n, n)
    assert len(seen) == blocks and sum(seen) == (n * n if blocks == 1 else n * n - (n // 2) * (n - n // 2))
