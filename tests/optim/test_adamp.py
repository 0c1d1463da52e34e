"""AdamP: pytorch_optimizer's is followed in test_oracles with eps near zero, because it adds eps before correcting v; here its place is held."""

from __future__ import annotations

import pytest
import torch
from oracles import MIXED, act, distance, follow, weights

from thalweg.optim.adamp import AdamP, radial
from thalweg.optim.adamw import AdamW

W = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]], dtype=torch.float64)


def test_projection_by_hand() -> None:
    by_channel = torch.tensor([[[4.0, -3.0], [0.0, 2.0]]], dtype=torch.float64)  # each row orthogonal to its weights
    by_layer = torch.tensor([[[3.0, 4.0], [-25.0, 0.0]]], dtype=torch.float64)  # orthogonal only as a whole
    neither = W.clone()
    u = torch.tensor([[[1.0, 0.0], [2.0, 5.0]]], dtype=torch.float64)
    k = {name: radial(g, W, u, 0.1, 0.5, 0.2, 0.0) for name, g in (("channel", by_channel), ("layer", by_layer), ("neither", neither))}
    assert k["channel"].flatten().tolist() == pytest.approx([0.5 * 0.2 - 3 / 25, 0.5 * 0.2 - 2 / 1])
    assert k["layer"].flatten().tolist() == pytest.approx([0.5 * 0.2 - 5 / 26] * 2)
    assert torch.broadcast_to(k["neither"], (1, 2, 1)).flatten().tolist() == [0.5, 0.5]
    step = u + radial(by_channel, W, u, 0.1, 0.0, 0.2, 0.0) * W
    assert (step * W).sum(-1).abs().max() < 1e-12, "what is left of the step is orthogonal to the weights"


def test_eps_stands_beside_the_corrected_root() -> None:
    """pytorch_optimizer gives 1 / (1 + eps / sqrt(1 - b2)) = 0.240 here."""
    g = torch.ones(1, 1, 2, dtype=torch.float64)
    assert act(AdamP(eps=0.1), g, g)[0].flatten().tolist() == pytest.approx([1 / 1.1] * 2)


def test_nesterov_by_hand() -> None:
    g = torch.ones(1, 1, 2, dtype=torch.float64)
    d, _ = act(AdamP(betas=(0.5, 0.8), eps=0.0, nesterov=True), g, g)
    assert d.flatten().tolist() == pytest.approx([(0.5 * 0.5 + 0.5 * 1) / 0.5] * 2)


def test_equals_adamw_without_projection_and_on_vectors() -> None:
    plain = AdamW(lr=0.01, weight_decay=0.1)
    assert distance(follow(AdamP(lr=0.01, weight_decay=0.1, delta=0.0), weights(MIXED), 30), follow(plain, weights(MIXED), 30)) < 1e-14
    assert distance(follow(AdamP(lr=0.01, weight_decay=0.1, delta=9.0), weights([(7,)]), 30), follow(plain, weights([(7,)]), 30)) < 1e-14
    assert distance(follow(AdamP(lr=0.01, weight_decay=0.1, delta=9.0), weights(MIXED), 30), follow(plain, weights(MIXED), 30)) > 1e-3
