"""Adam: torch.optim.Adam is followed in test_oracles."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.optim.adam import Adam
from thalweg.optim.adamw import AdamW


def test_two_steps_by_hand() -> None:
    rule, w = Adam(lr=0.1, betas=(0.5, 0.8), eps=0.3, weight_decay=0.5), numbers(2.0)
    d, s = act(rule, numbers(3.0), w)
    assert d.item() == pytest.approx(4 / (4 + 0.3)), "at t = 1 both corrections give the gradient itself, here with its L2 term"
    w = rule.apply(w, d)
    g = -1 + 0.5 * w.item()
    m, v = 0.5 * 2 + 0.5 * g, 0.8 * 0.2 * 16 + 0.2 * g * g
    d, s = act(rule, numbers(-1.0), w, s, t=2)
    assert d.item() == pytest.approx((m / 0.75) / (math.sqrt(v / 0.36) + 0.3)), "eps stands beside the corrected root"
    assert (s["m"].item(), s["v"].item()) == pytest.approx((m, v))


def test_tiny_gradients_meet_eps_as_in_torch() -> None:
    """A floor under the denominator in place of a sum would give 1 here and not 1/2."""
    d, _ = act(Adam(eps=1e-8), numbers(1e-8), numbers(1.0))
    assert d.item() == pytest.approx(0.5)


def test_equals_adamw_without_decay_only() -> None:
    def both(decay: float) -> float:
        return distance(follow(Adam(lr=0.01, weight_decay=decay), weights(MIXED), 30), follow(AdamW(lr=0.01, weight_decay=decay), weights(MIXED), 30))

    assert both(0.0) == 0
    assert both(0.1) > 1e-3


def test_without_averages_it_is_the_sign() -> None:
    g = weights(MIXED)[0]
    d, _ = act(Adam(betas=(0.0, 0.0), eps=1e-12), g, g)
    assert torch.allclose(d, g.sign(), rtol=0, atol=1e-9)
