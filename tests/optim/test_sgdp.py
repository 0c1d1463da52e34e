"""SGDP: pytorch_optimizer's is followed in test_oracles."""

from __future__ import annotations

import pytest
import torch
from oracles import MIXED, act, distance, follow, weights

from thalweg.optim.sgdp import SGDP
from thalweg.optim.sgdw import SGDW


def test_a_step_by_hand() -> None:
    w = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]], dtype=torch.float64)
    g = torch.tensor([[[4.0, -3.0], [0.0, 2.0]]], dtype=torch.float64)  # each row orthogonal to its weights
    m = torch.tensor([[[2.0, 0.0], [2.0, 2.0]]], dtype=torch.float64)
    d, s = act(SGDP(momentum=0.5, weight_decay=0.1, wd_ratio=0.2, eps=0.0), g, w, {"m": m})
    assert s["m"][0].tolist() == [[5.0, -3.0], [1.0, 3.0]]
    radial = torch.tensor([(5 * 3 - 3 * 4) / 25, 1.0], dtype=torch.float64).view(2, 1)
    assert torch.allclose(d, s["m"] - radial * w + 0.2 * 0.1 / 0.5 * w, rtol=1e-12)


def test_norms_of_scale_invariant_weights_grow_less_than_under_sgd() -> None:
    """The paper's point: with gradients orthogonal to the weights, momentum adds a radial part, and the norm grows by it."""
    def turn(t: int, ws: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.stack([-w[:, 1], w[:, 0]], 1) / w.square().sum(1, keepdim=True) for w in ws]

    start = weights([(4, 2)])
    grown = [follow(rule, start, 50, grads=turn)[0].norm() - start[0].norm() for rule in (SGDP(lr=0.05), SGDW(lr=0.05, weight_decay=0.0))]
    assert 0 < grown[0] < 0.7 * grown[1]


@pytest.mark.parametrize(("delta", "shapes"), [(0.0, MIXED), (9.0, ((7,),))])
def test_equals_sgdw_without_projection_and_on_vectors(delta: float, shapes: tuple[tuple[int, ...], ...]) -> None:
    pair = SGDP(lr=0.01, weight_decay=0.01, delta=delta), SGDW(lr=0.01, momentum=0.9, weight_decay=0.1)
    assert distance(follow(pair[0], weights(shapes), 30), follow(pair[1], weights(shapes), 30)) < 1e-14
