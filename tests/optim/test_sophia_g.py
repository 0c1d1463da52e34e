"""Sophia-G: the published code's two conventions, and the probe's scale."""

from __future__ import annotations

import pytest
import torch
from oracles import act, distance, follow, gradient, numbers, weights

from thalweg.optim.signum import Signum
from thalweg.optim.sophia_g import SophiaG
from thalweg.optim.sophia_h import SophiaH

BATCH = 32


def test_by_hand_and_as_sophia_h() -> None:
    w = numbers(1.0, 1.0, 1.0)
    g, estimate = numbers(1.0, 1.0, -1.0), BATCH * numbers(5.0, 0.5, 0.0).square()
    for rule in (SophiaG(betas=(0.5, 0.9), gamma=0.01, weight_decay=0.1), SophiaH(betas=(0.5, 0.9), gamma=0.01, weight_decay=0.1)):
        s = rule.absorb(estimate, w, rule.init(w), {})
        assert s["h"].tolist() == pytest.approx([80.0, 0.8, 0.0])
        assert act(rule, g, w, s)[0].tolist() == pytest.approx([0.5 / 0.8 + 0.1, 1.1, -0.9])


def test_the_published_codes_conventions() -> None:
    """With g' the sampled gradient: m / (rho B h) clipped at 1, and m / h clipped at gamma, where h averages g' * g' without B."""
    rule = SophiaG(lr=0.01, gamma=0.05, weight_decay=0.1)
    w = ours = weights([(5, 3)])[0]
    early, late, s = w.clone(), w.clone(), rule.init(w)
    m, h, clip = torch.zeros_like(w), torch.zeros_like(w), 0.05 * BATCH
    for t in range(1, 31):
        g, sampled = gradient(t, [w])[0], 0.3 * gradient(500 + t, [w])[0]
        if t % 10 == 1:
            s, h = rule.absorb(BATCH * sampled**2, ours, s, {}), 0.99 * h + 0.01 * sampled**2
        m = 0.96 * m + 0.04 * g
        early = early * (1 - 0.01 * 0.1) - 0.01 * m.sign() * (m.abs() / (0.05 * BATCH * h + 1e-15)).clamp(max=1)
        late = late * (1 - 0.01 * 0.1) - 0.01 / clip * m.sign() * (m.abs() / (h + 1e-15)).clamp(max=clip)
        d, s = act(rule, g, ours, s, t)
        ours = rule.apply(ours, d)
    assert distance([ours], [early]) < 1e-9
    assert distance([ours], [late]) < 1e-9


def test_the_engines_estimate_is_unbiased_for_the_gauss_newton_diagonal() -> None:
    """For logits x W of B examples under mean cross-entropy the diagonal at W[j, c] is mean x_j^2 p_c (1 - p_c)."""
    x, p = weights([(7, 3)])[0], torch.nn.Parameter(weights([(3, 4)])[0])
    softmax = (x @ p).softmax(1).detach()
    exact = x.square().T @ (softmax * (1 - softmax)) / 7
    opt = SophiaG([p], lr=0.0, betas=(0.9, 0.0), every=1)
    draws = []
    for _ in range(400):
        opt.probe(lambda: x @ p)
        draws.append(opt.state[p]["h"].clone())
        p.grad = torch.zeros_like(p)
        opt.step()
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 400**0.5
    assert ((mean - exact).abs() < 5 * error).all()
    assert (error < 0.2 * exact).all(), "the power: a factor of two, or B itself, would be seen in every entry"


def test_without_curvature_it_is_signum() -> None:
    w = weights([(6, 4)])
    pair = SophiaG(lr=0.01, gamma=0.0, weight_decay=0.1), Signum(lr=0.01, momentum=0.96, weight_decay=0.1)
    assert distance(follow(pair[0], w, 30), follow(pair[1], w, 30)) < 1e-12
