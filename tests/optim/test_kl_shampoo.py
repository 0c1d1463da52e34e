"""KL-Shampoo by hand in float64, and what it says of its fixed point."""

from __future__ import annotations

import pytest
import torch
from oracles import MATRICES, act, distance, follow, gradient, weights

from thalweg.optim.kl_shampoo import KLShampoo

F64 = torch.float64


def test_by_hand_with_dense_inverses() -> None:
    lr, b1, b2, eps, decay = 0.1, 0.8, 0.9, 1e-3, 0.5
    found = follow(KLShampoo(lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay, every=2), weights([(4, 3)]), 7)[0]
    w = weights([(4, 3)])[0]
    left, right, m = torch.zeros(4, 4, dtype=F64), torch.zeros(3, 3, dtype=F64), torch.zeros(4, 3, dtype=F64)
    e, f = torch.full((4,), 0.1, dtype=F64), torch.full((3,), 0.1, dtype=F64)
    for t in range(1, 8):
        g = gradient(t, [w])[0]
        if t == 1:
            left, right = (1 - b2) * g @ g.T / 3, (1 - b2) * g.T @ g / 4
            p, q = (torch.linalg.eigh(x)[1].flip(1) for x in (left, right))
            continue
        m = b1 * m + (1 - b1) * g
        w = w - lr * (p @ ((p.T @ m @ q) / (torch.outer(e, f).sqrt() + eps)) @ q.T + decay * w)
        by_right, by_left = g @ q @ torch.diag(1 / f) @ q.T @ g.T / 3, g.T @ p @ torch.diag(1 / e) @ p.T @ g / 4
        left, right = b2 * left + (1 - b2) * by_right, b2 * right + (1 - b2) * by_left
        e, f = b2 * e + (1 - b2) * torch.diag(p.T @ by_right @ p), b2 * f + (1 - b2) * torch.diag(q.T @ by_left @ q)
        if t % 2 == 1:
            p, q = torch.linalg.qr(left @ p)[0], torch.linalg.qr(right @ q)[0]
    assert distance([found], [w]) < 1e-7, "the first left basis has a null direction, which rounding chooses"


def test_the_factors_find_a_kronecker_covariance_with_its_scale() -> None:
    """Gradients a z b^T, z standard normal: kron(L, R) tends to kron(a a^T, b b^T), and a preconditioned gradient has unit variance."""
    a, b = torch.diag(torch.tensor([3.0, 1.0, 0.3], dtype=F64)), torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=F64)
    rule = KLShampoo(betas=(0.0, 0.995), every=5, eps=0.0)
    generator = torch.Generator().manual_seed(0)
    w, s, seen = torch.zeros(1, 3, 2, dtype=F64), None, torch.zeros((), dtype=F64)
    for t in range(1, 2501):
        g = (a @ torch.randn(3, 2, generator=generator, dtype=F64) @ b.T).unsqueeze(0)
        d, s = act(rule, g, w, s, t)
        seen += d.square().mean() / 1000 if t > 1500 else 0
    assert s is not None
    left, right = ((s[q] * s[x].mT) @ s[q].mT for q, x in (("QL", "e"), ("QR", "f")))
    true = torch.kron(a @ a.T, b @ b.T)
    assert (torch.kron(left[0], right[0]) - true).norm() < 0.25 * true.norm()
    assert (torch.kron(s["L"][0], s["R"][0]) - true).norm() < 0.25 * true.norm()
    assert abs(float(seen) - 1) < 0.1


def test_the_first_step_moves_nothing_and_a_long_side_is_its_diagonal() -> None:
    start = weights(MATRICES)
    assert distance(follow(KLShampoo(), start, 1), start) == 0.0 and distance(follow(KLShampoo(lr=0.1), start, 3), start) > 1e-3
    rule = KLShampoo(max_dim=3)
    g = weights([(1, 5, 3)])[0]
    _, s = act(rule, g, g)
    assert s["L"].shape == s["QL"].shape == (1, 5, 1) and s["R"].shape == (1, 3, 3)
    _, s = act(rule, g, g, s, 2)
    expected = 0.98 * 0.02 * (g * g).sum(-1, keepdim=True) / 3 + 0.02 * (g * g).sum(-1, keepdim=True) / 0.1 / 3
    assert torch.allclose(s["L"], expected)


@pytest.mark.parametrize(("most", "left", "right"), [(4000.0, 40, 10), (20.0, 20, 10), (5.0, 10, 10)])
def test_inverse_roots_are_limited_by_the_sides_length(most: float, left: float, right: float) -> None:
    """A side below ten is limited by ten, a long one by its length or by `most`."""
    g = torch.zeros(1, 40, 3, dtype=F64)
    s, rule = None, KLShampoo(betas=(0.0, 0.0), most=most)
    for t in (1, 2, 3):
        d, s = act(rule, g, g, s, t)
    assert s is not None and not d.any()
    assert torch.allclose(s["e"], torch.full_like(s["e"], left**-2)) and torch.allclose(s["f"], torch.full_like(s["f"], right**-2))
