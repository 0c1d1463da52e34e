"""Geodesics of the Grassmann manifold, moments in a turned basis, and one step in a subspace by hand."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import gradient, weights
from scipy.linalg import expm, subspace_angles

from thalweg.optim.grassmann import descent, geodesic, rates, start, turned
from thalweg.optim.subspace import orthonormal

P, Z = (x.unsqueeze(0) for x in weights([(7, 3), (7, 3)]))
P = orthonormal(P)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.5])
def test_the_largest_principal_angle_is_the_one_asked_for(angle: float) -> None:
    q = geodesic(P, Z, angle)
    assert torch.allclose(q.mT @ q, torch.eye(3, dtype=q.dtype), atol=1e-12)
    assert max(subspace_angles(P[0].numpy(), q[0].numpy())) == pytest.approx(angle, abs=1e-7)
    assert torch.allclose(geodesic(P, 7 * Z + P @ Z[:, :3], angle), q, atol=1e-10), "neither length nor the part inside the subspace matters"


def test_the_geodesic_is_the_matrix_exponentials() -> None:
    """exp of [[0, -B^T], [B, 0]] in a basis whose first columns are P; both are compared as projectors."""
    tangent = (Z - P @ (P.mT @ Z))[0]
    tangent = 0.8 * tangent / torch.linalg.matrix_norm(tangent, 2)
    rotation = expm((tangent @ P[0].mT - P[0] @ tangent.mT).numpy())
    expected, q = torch.from_numpy(rotation) @ P[0], geodesic(P, Z, 0.8)[0]
    assert torch.allclose(q @ q.mT, expected @ expected.mT, atol=1e-10)
    assert geodesic(torch.eye(3).unsqueeze(0), Z[:, :3].float(), 0.5).equal(torch.eye(3).unsqueeze(0)), "a whole space has nowhere to go"


def test_moments_turn_as_mean_and_variance_do() -> None:
    q = orthonormal(weights([(3, 3)])[0].unsqueeze(0))
    mean, spread = weights([(3, 4)])[0].unsqueeze(0), weights([(3, 4)])[0].unsqueeze(0).square()
    m, v = turned(q, 0.19 * mean, 0.002 * (spread + mean * mean), 0.19, 0.002)
    assert torch.allclose(m, 0.19 * q @ mean, rtol=1e-12)
    exact = (q.unsqueeze(-1) * spread.unsqueeze(-3) * q.unsqueeze(-1)).sum(-2) + (q @ mean).square()  # Q diag(s) Q^T has this diagonal
    assert torch.allclose(v / 0.002, exact, rtol=1e-10)
    same = turned(torch.eye(3, dtype=q.dtype).unsqueeze(0), m, v, 0.5, 0.3)
    assert torch.allclose(same[0], m, rtol=1e-12) and torch.allclose(same[1], v, rtol=1e-12), "nothing moves where the basis does not"


def test_a_step_by_hand() -> None:
    g = gradient(1, [Z[0]])[0].unsqueeze(0)
    p = orthonormal(weights([(3, 2)])[0].unsqueeze(0))
    s = {**start(g, 2), "length": torch.full((1, 1, 1), 0.01, dtype=g.dtype)}
    d, new = descent(g, p, {**s, "p": p}, {"t": 5.0, "rare": True, **rates((0.9, 0.99), 5)}, (0.9, 0.99), 1e-3, 1.5)
    expected = torch.zeros(3, 7, dtype=g.dtype)
    rest = torch.zeros_like(expected)
    for i in range(7):
        r = p[0].mT @ g[0, i]
        n = 0.1 * r / (math.sqrt(0.01) * r.abs() + 1e-3)
        expected[:, i] = p[0] @ n
        rest[:, i] = (g[0, i] - p[0] @ r) * n.norm() / r.norm()
    assert rest.norm() > 0.015 == pytest.approx(new["length"].item()), "the limit is at work"
    rate = math.sqrt(1 - 0.99**5) / (1 - 0.9**5)
    assert torch.allclose(d[0].mT, rate * (expected + rest * 0.015 / rest.norm()), rtol=1e-6)
    free, held = descent(g, p, {**start(g, 2), "p": p}, {"t": 5.0, "rare": True, **rates((0.9, 0.99), 5)}, (0.9, 0.99), 1e-3, 1.5)
    assert torch.allclose(free[0].mT, rate * (expected + rest), rtol=1e-6) and held["length"].item() == pytest.approx(rest.norm().item(), rel=1e-6)
