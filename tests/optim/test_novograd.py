"""NovoGrad: pytorch_optimizer's is followed in test_oracles, with weight_decouple=False: its default leaves the paper's algorithm 1."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import MIXED, act, distance, follow, weights

from thalweg.optim.novograd import NovoGrad
from thalweg.optim.sgd import SGD

G = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]], dtype=torch.float64)


def test_two_steps_by_hand() -> None:
    rule, w = NovoGrad(betas=(0.5, 0.8), eps=0.0, weight_decay=0.1), torch.ones_like(G)
    d, s = act(rule, G, w)
    assert s["v"].item() == 25, "the first step takes the squared norm itself"
    assert torch.allclose(d, G / 5 + 0.1 * w, rtol=1e-12)
    d, s = act(rule, 2 * G, w, s, t=2)
    assert s["v"].item() == pytest.approx(0.8 * 25 + 0.2 * 100)
    assert torch.allclose(d, 0.5 * (G / 5 + 0.1 * w) + 2 * G / math.sqrt(40) + 0.1 * w, rtol=1e-12)


def test_one_second_moment_for_each_layer_of_a_stack() -> None:
    d, s = act(NovoGrad(eps=0.0), torch.cat([G, 100 * G]), torch.cat([G, G]))
    assert s["v"].flatten().tolist() == [25.0, 250_000.0]
    assert torch.allclose(d[0], d[1], rtol=1e-12), "layers do not feel each other's scale"


def test_limits() -> None:
    d, _ = act(NovoGrad(betas=(0.0, 0.0), eps=0.0), G, G, t=9)
    assert d.norm().item() == pytest.approx(1)
    def normalised(t: int, ws: list[torch.Tensor]) -> list[torch.Tensor]:
        return [w / w.norm() for w in ws]

    raw = follow(NovoGrad(lr=0.05, betas=(0.9, 0.0), eps=0.0), weights(MIXED), 20, grads=lambda t, ws: [7 * w for w in ws])
    assert distance(raw, follow(SGD(lr=0.05, momentum=0.9), weights(MIXED), 20, grads=normalised)) < 1e-12
