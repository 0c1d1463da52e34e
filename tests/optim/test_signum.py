"""Signum: pytorch_optimizer's SignSGD is followed in test_oracles."""

from __future__ import annotations

import pytest
import torch
from oracles import MATRICES, MIXED, act, distance, follow, numbers, weights

from thalweg.optim.lion import Lion
from thalweg.optim.signum import Signum
from thalweg.optim.trust_region import NonEuclideanTrustRegion


def test_a_step_by_hand() -> None:
    d, s = act(Signum(momentum=0.5, weight_decay=0.1), numbers(5.0, -1.0, 0.0), numbers(1.0, 1.0, 1.0), {"m": numbers(-6.0, 0.0, 0.0)})
    assert d.tolist() == pytest.approx([-0.9, -0.9, 0.1]), "a zero average does not move its coordinate"
    assert s["m"].tolist() == pytest.approx([-0.5, -0.5, 0.0])


def test_is_the_trust_region_step_in_the_max_norm() -> None:
    general = NonEuclideanTrustRegion(lr=0.01, norm="linf", momentum=0.9, weight_decay=0.1)
    for shapes in (MIXED, MATRICES):
        assert distance(follow(general, weights(shapes), 50), follow(Signum(lr=0.01, weight_decay=0.1), weights(shapes), 50)) < 1e-6


def test_is_lion_with_one_average_and_signsgd_without() -> None:
    assert distance(follow(Lion(lr=0.01, betas=(0.9, 0.9)), weights(MIXED), 50), follow(Signum(lr=0.01), weights(MIXED), 50)) == 0
    g = weights(MIXED)[0]
    assert torch.equal(act(Signum(momentum=0.0), g, g)[0], g.sign())
