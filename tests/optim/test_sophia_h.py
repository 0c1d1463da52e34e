"""Sophia-H: by hand, against pytorch_optimizer's (the first version's convention), and on a quadratic with a known diagonal."""

from __future__ import annotations

import pytest
import torch
from oracles import act, distance, gradient, numbers, weights

from thalweg.optim.signum import Signum
from thalweg.optim.sophia_h import SophiaH


def test_by_hand() -> None:
    rule = SophiaH(betas=(0.5, 0.9), gamma=0.1, weight_decay=0.1)
    s = rule.absorb(numbers(200.0, 20.0, -20.0, 0.0), numbers(1.0, 1.0, 1.0, 1.0), rule.init(numbers(1.0, 1.0, 1.0, 1.0)), {})
    assert s["h"].tolist() == pytest.approx([20.0, 2.0, -2.0, 0.0])
    d, new = act(rule, numbers(1.0, 1.0, -1.0, 0.0), numbers(1.0, 1.0, 1.0, 1.0), s)
    assert d.tolist() == pytest.approx([0.5 / 2 + 0.1, 1 + 0.1, -1 + 0.1, 0.1]), "Newton, clipped, the sign where h <= 0, nothing where m = 0"
    assert new["h"] is s["h"]


def test_the_first_versions_convention() -> None:
    """clip(m / max(h, eps), rho): lr / rho, rho lambda and gamma = rho here. pytorch_optimizer keeps it, with p for rho."""
    peer = pytest.importorskip("pytorch_optimizer", reason="the oracle is pytorch_optimizer: pip install 'thalweg[oracles]'")
    lr, rho, decay = 0.02, 0.3, 0.1
    rule = SophiaH(lr=lr * rho, gamma=rho, eps=rho * 1e-12, weight_decay=decay / rho)
    w = weights([(6, 4)])[0]
    p, s = torch.nn.Parameter(w.clone()), rule.init(w)
    theirs = peer.SophiaH([p], lr=lr, p=rho, weight_decay=decay, update_period=10)
    for t in range(1, 51):
        h, p.grad, g = 3 * gradient(100 + t, [w])[0], gradient(t, [p.detach()])[0], gradient(t, [w])[0]
        if t % 10 == 1:
            s = rule.absorb(h, w, s, {})
        theirs.step(hessian=[h] if t % 10 == 1 else None)
        d, s = act(rule, g, w, s, t)
        w = rule.apply(w, d)
    assert distance([w], [p.detach()]) < 1e-10


def test_the_engine_brings_the_diagonal_every_k_steps() -> None:
    """The Hessian of sum a_i w_i^2 / 2 is diagonal, so every Hutchinson estimate is a itself."""
    a = numbers(1.0, -2.0, 30.0)
    p = torch.nn.Parameter(numbers(1.0, 1.0, 1.0))
    opt = SophiaH([p], lr=0.0, betas=(0.9, 0.5), every=2)
    held = []
    for _ in range(4):
        opt.step(lambda: (a * p.square()).sum() / 2)
        held.append(opt.state[p]["h"].clone())
    assert torch.allclose(torch.stack(held), torch.outer(numbers(0.5, 0.5, 0.75, 0.75), a), rtol=1e-12)


def test_limits() -> None:
    w, g, h = numbers(1.0, 2.0, -3.0), numbers(0.5, -0.25, 1e-3), numbers(40.0, 40.0, 40.0)
    plain = act(SophiaH(gamma=0.0, weight_decay=0.0), g, w, {"m": 0 * w, "h": h})[0]
    assert torch.equal(plain, act(Signum(momentum=0.96), g, w)[0]), "no curvature, no preconditioner: the sign of the average"
    newton = act(SophiaH(gamma=1.0, weight_decay=0.0, betas=(0.0, 0.99)), g, w, {"m": 0 * w, "h": h})[0]
    assert torch.allclose(newton, g / h, rtol=1e-12)
