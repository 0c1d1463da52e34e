"""SGD: torch.optim.SGD is followed in test_oracles."""

from __future__ import annotations

import pytest
import torch
from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.optim.sgd import SGD
from thalweg.optim.sgdw import SGDW


def test_two_steps_by_hand() -> None:
    rule, w = SGD(lr=0.1, momentum=0.5, weight_decay=0.2), numbers(2.0)
    d, s = act(rule, numbers(3.0), w)
    assert d.item() == pytest.approx(3 + 0.2 * 2)
    w = rule.apply(w, d)
    assert w.item() == pytest.approx(2 - 0.1 * 3.4)
    d, _ = act(rule, numbers(-1.0), w, s, t=2)
    assert d.item() == pytest.approx(0.5 * 3.4 + (-1 + 0.2 * 1.66))


def test_nesterov_looks_ahead() -> None:
    d, _ = act(SGD(momentum=0.5, nesterov=True), numbers(3.0), numbers(0.0), {"m": numbers(4.0)})
    assert d.item() == 3 + 0.5 * (0.5 * 4 + 3)
    with pytest.raises(ValueError, match="nesterov=True needs momentum"):
        SGD(nesterov=True)


def test_without_momentum_it_is_gradient_descent_and_keeps_nothing() -> None:
    d, s = act(SGD(weight_decay=0.5), numbers(3.0), numbers(2.0))
    assert (d.item(), s) == (4.0, {})
    assert distance(follow(SGD(lr=0.1), weights(MIXED), 20), follow(SGD(lr=0.1, momentum=0.0), weights(MIXED), 20)) == 0


def test_equals_sgdw_without_decay_only() -> None:
    def both(decay: float) -> float:
        l2, decoupled = SGD(lr=0.05, momentum=0.9, weight_decay=decay), SGDW(lr=0.05, momentum=0.9, weight_decay=decay)
        return distance(follow(l2, weights(MIXED), 30), follow(decoupled, weights(MIXED), 30))

    assert both(0.0) == 0
    assert both(0.1) > 1e-2
    assert torch.equal(SGD(momentum=0.9).init(torch.ones(3))["m"], torch.zeros(3))
