"""Norms of a stack."""

from __future__ import annotations

import pytest
import torch

from thalweg.optim.frobenius import frobenius


def test_by_hand_and_for_many_entries() -> None:
    x = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert frobenius(x).flatten().tolist() == pytest.approx([5.0, 2.0])
    assert frobenius(x).shape == (2, 1, 1)
    many = torch.full((1, 4096, 4096), 1.01)
    assert frobenius(many).item() == pytest.approx(1.01 * 4096, rel=1e-5)
    assert abs(torch.linalg.vector_norm(many).item() / (1.01 * 4096) - 1) > 1e-5, "what torch's norm over everything at once loses"
