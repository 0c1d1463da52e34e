"""Newton-Schulz against the polynomial of the singular values, by an SVD in float64."""

from __future__ import annotations

import pytest
import torch
from oracles import weights

from thalweg.optim import newton_schulz
from thalweg.optim.newton_schulz import orthogonalize


def by_svd(x: torch.Tensor, steps: int) -> torch.Tensor:
    """The same polynomial applied to the singular values: what the iteration computes, without an iteration of matrices."""
    u, s, vh = torch.linalg.svd(x / torch.linalg.matrix_norm(x, keepdim=True), full_matrices=False)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag_embed(s) @ vh


@pytest.mark.parametrize("shape", [(1, 6, 4), (3, 4, 9), (2, 5, 5), (1, 1, 7), (1, 7, 1), (1, 30, 8), (2, 8, 20)])
def test_is_the_polynomial_of_the_singular_values(shape: tuple[int, ...]) -> None:
    x = weights([shape])[0]
    assert torch.allclose(orthogonalize(x, compute="native"), by_svd(x, 5), rtol=0, atol=1e-10)
    for steps in (1, 2, 3, 4, 7):
        assert torch.allclose(orthogonalize(x, compute="native", steps=steps), by_svd(x, steps), rtol=0, atol=1e-9)
    assert torch.allclose(orthogonalize(x.float(), compute="bf16").double(), by_svd(x, 5), rtol=0, atol=0.05)


def test_singular_values_end_near_one_and_scale_does_not_matter() -> None:
    x = weights([(4, 30, 20)])[0]
    s = torch.linalg.svdvals(orthogonalize(x, compute="native"))
    assert 0.65 < s.min() < s.max() < 1.2
    assert torch.allclose(orthogonalize(1e-6 * x, compute="native"), orthogonalize(x, compute="native"), atol=1e-4)


def test_iterations_at_once_round_no_worse_than_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, for a matrix whose singular values fall over four decades and for one of noise."""
    noise = torch.randn(64, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(noise, full_matrices=False)
    falling = u @ torch.diag(torch.logspace(0, -4, 64, dtype=torch.float64)) @ vh

    def off(x: torch.Tensor) -> float:
        found = orthogonalize(x[None].float()).double()[0]
        return float((found - by_svd(x[None], 5)[0]).norm() / 8)

    together = off(noise), off(falling)
    monkeypatch.setattr(newton_schulz, "LONG", 1000)
    singly = off(noise), off(falling)
    assert together != singly and together[0] < 0.04 and together[1] < 1.1 * singly[1]


def test_zero_tiny_and_nan() -> None:
    x = torch.zeros(2, 3, 4)
    x[1] = float("nan")
    out = orthogonalize(x)
    assert torch.equal(out[0], torch.zeros(3, 4))
    assert out[1].isnan().all()
    assert orthogonalize(torch.full((1, 3, 4), 1e-25)).abs().max() <= 2, "a norm that underflows must not blow the matrix up"
    assert out.dtype == torch.float32
    assert torch.equal(x[0], torch.zeros(3, 4)), "the argument is left as it is"
