"""Normalised SGD with momentum."""

from __future__ import annotations

import pytest
import torch
from oracles import MIXED, act, distance, follow, numbers, weights

from thalweg.optim.normalized_sgd import NormalizedSGD
from thalweg.optim.trust_region import NonEuclideanTrustRegion


def test_a_step_by_hand() -> None:
    rule, w, g, s = NormalizedSGD(momentum=0.5, weight_decay=0.1), numbers(1.0, 1.0), numbers(6.0, 0.0), {"m": numbers(0.0, 8.0)}
    square = rule.measure(g, w, s, {})["square"]
    d, new = act(rule, g, w, s, square=square)
    assert square.item() == 25
    assert new["m"].tolist() == [3.0, 4.0]
    assert d.tolist() == pytest.approx([0.6 + 0.1, 0.8 + 0.1])


def test_every_step_of_the_whole_model_has_length_lr() -> None:
    before, after = weights(MIXED), follow(NormalizedSGD(lr=0.25), weights(MIXED), 1)
    assert torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).norm().item() == pytest.approx(0.25)
    still = follow(NormalizedSGD(lr=0.25), [numbers(1.0)], 3, grads=lambda t, ws: [0 * w for w in ws])
    assert still[0].item() == 1


def test_is_the_trust_region_step_in_the_euclidean_norm() -> None:
    named = NormalizedSGD(lr=0.05, momentum=0.9, weight_decay=0.1)
    general = NonEuclideanTrustRegion(lr=0.05, norm="l2", momentum=0.9, weight_decay=0.1)
    for shape in MIXED:
        assert distance(follow(general, weights([shape]), 50), follow(named, weights([shape]), 50)) < 1e-6
    assert distance(follow(general, weights(MIXED), 50), follow(named, weights(MIXED), 50)) > 1e-3, "one norm for each tensor is another method"


def test_without_momentum_it_is_normalised_gradient_descent() -> None:
    g = numbers(3.0, 4.0)
    assert act(NormalizedSGD(momentum=0.0), g, g, square=g.square().sum())[0].tolist() == pytest.approx([0.6, 0.8])
