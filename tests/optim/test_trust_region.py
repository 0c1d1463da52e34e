"""The non-Euclidean trust region: each step maximises <m, d> over the unit ball of its norm; the named cases are equal to 1e-6 (test_muon, ...)."""

from __future__ import annotations

import pytest
import torch
from oracles import MATRICES, MIXED, act, distance, follow, weights

from thalweg.optim.normalized_sgd import NormalizedSGD
from thalweg.optim.signum import Signum
from thalweg.optim.trust_region import NonEuclideanTrustRegion

DUAL = {"spectral": lambda m: torch.linalg.svdvals(m).sum(), "linf": lambda m: m.abs().sum(), "l2": lambda m: m.norm()}
BALL = {"spectral": lambda d: torch.linalg.svdvals(d).max(), "linf": lambda d: d.abs().max(), "l2": lambda d: d.norm()}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_step_is_the_best_of_its_ball(norm: str) -> None:
    m = weights([(6, 4)])[0]
    d, _ = act(NonEuclideanTrustRegion(norm=norm, momentum=0.0), m.unsqueeze(0), m.unsqueeze(0))
    assert BALL[norm](d[0]).item() == pytest.approx(1)
    assert (d[0] * m).sum().item() == pytest.approx(DUAL[norm](m).item()), "<m, d> reaches the dual norm of m"


def test_the_spectral_step_is_so_up_to_newton_schulz() -> None:
    m = weights([(6, 4)])[0]
    d, _ = act(NonEuclideanTrustRegion(norm="spectral", momentum=0.0, ns_compute="native"), m.unsqueeze(0), m.unsqueeze(0))
    assert 0.65 < BALL["spectral"](d[0]).item() < 1.2
    assert 0.65 < (d[0] * m).sum().item() / DUAL["spectral"](m).item() < 1.2
    assert (d[0] * m).sum() > 3 * (torch.sign(m) / BALL["spectral"](m.sign()) * m).sum() / 4, "no worse than the sign put into the ball"


@pytest.mark.parametrize("norm", ["spectral", "linf", "l2"])
def test_decay_keeps_the_weights_in_the_ball_of_radius_one_over_lambda(norm: str) -> None:
    rule = NonEuclideanTrustRegion(lr=0.2, norm=norm, weight_decay=2.0)
    for w in follow(rule, [0.3 * w / BALL[norm](w) for w in weights(MATRICES)], 60):
        assert BALL[norm](w).item() <= (0.5 if norm != "spectral" else 0.6) + 1e-9


def test_named_cases() -> None:
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    for norm, named in (("linf", Signum(**options)), ("l2", NormalizedSGD(**options))):
        general = NonEuclideanTrustRegion(norm=norm, **options)
        assert all(distance(follow(general, weights([s]), 50), follow(named, weights([s]), 50)) < 1e-6 for s in MIXED)
