"""Adafactor: torch.optim.Adafactor is followed in test_oracles on matrices and vectors (a convolution is factored otherwise there)."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import act, follow, numbers, weights

from thalweg.optim.adafactor import Adafactor

G = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]], dtype=torch.float64)


def test_first_step_by_hand() -> None:
    d, s = act(Adafactor(lr=0.5, d=0.5), G, 2 * torch.ones_like(G))
    row, col = [2.5, 12.5], [5.0, 10.0]  # means of g^2, since the decay is 1 - 1^-0.8 = 0 at t = 1
    u = [[g / math.sqrt(r * c / 7.5) for g, c in zip(gs, col, strict=True)] for gs, r in zip(G[0].tolist(), row, strict=True)]
    size = math.sqrt(sum(x * x for xs in u for x in xs) / 4)
    assert (s["r"].flatten().tolist(), s["c"].flatten().tolist()) == (row, col)
    assert size > 0.5, "so that the clipping is at work"
    expected = torch.tensor([[x * 2 / (size / 0.5) for x in xs] for xs in u], dtype=torch.float64)
    assert torch.allclose(d[0], expected, rtol=1e-12), "times RMS(w) = 2; lr = 0.5 is below 1 / sqrt(1)"


def test_step_size_and_decay_over_time() -> None:
    rule = Adafactor(lr=0.5)
    assert [rule.scalars(t)["limit"] * 0.5 for t in (1, 4, 100)] == pytest.approx([0.5, 0.5, 0.1])
    assert [rule.scalars(t)["b"] for t in (1, 32)] == pytest.approx([0.0, 1 - 1 / 16])
    assert Adafactor(lr=0.5, relative_step=False).scalars(10**6)["limit"] == 1
    assert Adafactor(lr=0.0).scalars(3)["limit"] == 1
    with pytest.raises(ValueError, match="beta2_decay must be negative"):
        Adafactor(beta2_decay=0.8)


def test_a_vector_is_not_factored_and_rank_one_squares_are_exact() -> None:
    rule = Adafactor(lr=1.0, d=1e9, scale_parameter=False, relative_step=False)
    for g in (numbers(1.0, -2.0, 3.0).view(1, 1, 3), (numbers(1.0, 2.0).view(2, 1) * numbers(3.0, -4.0, 5.0)).unsqueeze(0)):
        _, s = act(rule, g, g)
        d, s = act(rule, 2 * g, g, s, t=2)
        v = (1 - 2**-0.8) * g * g + 2**-0.8 * 4 * g * g
        assert torch.allclose(d, 2 * g / v.sqrt(), rtol=1e-12)


def test_state_is_rows_plus_columns_and_zeros_stand_still() -> None:
    s = Adafactor().init(torch.zeros(3, 40, 50))
    assert {name: tuple(x.shape) for name, x in s.items()} == {"r": (3, 40, 1), "c": (3, 1, 50)}
    still = follow(Adafactor(), weights([(4, 3)]), 2, grads=lambda t, ws: [0 * w for w in ws])
    assert torch.equal(still[0], weights([(4, 3)])[0])
