"""SGDW: pytorch_optimizer's is followed in test_oracles."""

from __future__ import annotations

import pytest
from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.optim.sgd import SGD
from thalweg.optim.sgdw import SGDW


def test_two_steps_by_hand() -> None:
    rule, w = SGDW(lr=0.1, momentum=0.5, weight_decay=0.2), numbers(2.0)
    d, s = act(rule, numbers(3.0), w)
    assert d.item() == pytest.approx(3 + 0.2 * 2)
    w = rule.apply(w, d)
    d, s = act(rule, numbers(-1.0), w, s, t=2)
    assert s["m"].item() == pytest.approx(0.5 * 3 - 1), "the decay does not pass through the momentum"
    assert d.item() == pytest.approx(0.5 + 0.2 * 1.66)


def test_without_momentum_decay_is_the_l2_penalty() -> None:
    l2, decoupled = SGD(lr=0.05, weight_decay=0.1), SGDW(lr=0.05, momentum=0.0, weight_decay=0.1)
    assert distance(follow(decoupled, weights(MIXED), 30), follow(l2, weights(MIXED), 30)) < 1e-14


def test_decay_shrinks_the_weights_by_the_same_factor_under_any_momentum() -> None:
    for momentum in (0.0, 0.9):
        still = follow(SGDW(lr=0.1, momentum=momentum, weight_decay=0.5), [numbers(1.0)], 10, grads=lambda t, ws: [0 * w for w in ws])
        assert still[0].item() == pytest.approx(0.95**10)
