"""Muon against torch.optim.Muon (bfloat16 in both) and against an SVD in float64."""

from __future__ import annotations

import pytest
import torch
from oracles import MATRICES, act, distance, follow, gradient, optimize, weights

from thalweg.optim.muon import Muon
from thalweg.optim.newton_schulz import orthogonalize
from thalweg.optim.trust_region import NonEuclideanTrustRegion


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_follows_torch_within_bfloat16(scale: str) -> None:
    start = weights(MATRICES, torch.float32)
    ours = follow(Muon(lr=0.02, weight_decay=0.1, scale=scale), start, 10)
    theirs = optimize(lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.1, adjust_lr_fn=scale), start, 10)
    moved = distance(theirs, start)
    assert distance(ours, theirs) < 0.05 * moved, "bfloat16 products are good to about one part in a hundred"


SCALES = [(True, "original", 1.5**0.5), (False, "match_rms_adamw", 0.2 * 6**0.5), (False, "none", 1.0)]


@pytest.mark.parametrize(("nesterov", "scale", "factor"), SCALES)
def test_a_step_in_float64(nesterov: bool, scale: str, factor: float) -> None:
    w, g, m = (x.unsqueeze(0) for x in (weights([(6, 4)])[0], gradient(1, weights([(6, 4)]))[0], gradient(2, weights([(6, 4)]))[0]))
    d, s = act(Muon(momentum=0.8, weight_decay=0.1, nesterov=nesterov, scale=scale, ns_compute="native"), g, w, {"m": m})
    new = 0.8 * m + 0.2 * g
    u = 0.8 * new + 0.2 * g if nesterov else new
    assert torch.allclose(s["m"], new, rtol=1e-12)
    assert torch.allclose(d, factor * orthogonalize(u, compute="native") + 0.1 * w, rtol=1e-10)


def test_is_the_trust_region_step_in_the_spectral_norm() -> None:
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    for compute in ("bf16", "native"):
        general = follow(NonEuclideanTrustRegion(norm="spectral", ns_compute=compute, **options), weights(MATRICES), 20)
        named = follow(Muon(nesterov=False, scale="none", ns_compute=compute, **options), weights(MATRICES), 20)
        assert distance(general, named) < 1e-6


def test_without_momentum_it_orthogonalises_the_gradient_and_the_state_is_its_own() -> None:
    g = weights([(3, 7)])[0].unsqueeze(0)
    d, s = act(Muon(momentum=0.0, scale="none", ns_compute="native"), g, g)
    assert torch.allclose(d, orthogonalize(g, compute="native"), rtol=1e-12)
    before = s["m"].clone()
    act(Muon(nesterov=False), g.bfloat16(), g.bfloat16(), {"m": (m := s["m"].bfloat16())})
    assert torch.equal(m, before.bfloat16()), "torch.optim.Muon in bfloat16 without Nesterov normalises its own buffer"
