"""Inverse Fisher products against dense inverses on a small network, their cost in operations, and pruning by them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from thalweg.curvature import fisher_diagonal, fisher_entry, fisher_factors, fisher_solve, gram_solve, obs_removal, obs_saliency

DAMPING = 1e-2


def gradients(dtype: torch.dtype = torch.float64, examples: int = 12) -> Tensor:
    """One gradient for each example of a small network, [examples, 41]."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2), nn.Tanh(), nn.Linear(2, 1, bias=True)).to(dtype)
    x, y = torch.randn(examples, 4, dtype=dtype), torch.randn(examples, 1, dtype=dtype)
    rows = [torch.autograd.grad((model(x[i]) - y[i]).square().sum(), list(model.parameters())) for i in range(examples)]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def dense(grads: Tensor, size: int) -> Tensor:
    return torch.linalg.inv(DAMPING * torch.eye(grads.shape[1], dtype=torch.float64) + grads.double().mT @ grads.double() / size)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_both_forms_are_the_dense_inverse(dtype: torch.dtype, tolerance: float) -> None:
    grads = gradients(dtype)
    v = torch.randn(grads.shape[1], generator=torch.Generator().manual_seed(1), dtype=dtype)
    inverse = dense(grads, len(grads))
    rows = grads.double()
    for found in (fisher_solve(fisher_factors(grads, DAMPING), v), gram_solve(grads, rows @ rows.mT, v, size=len(grads), damping=DAMPING)):
        assert found.dtype == dtype and (found.double() - inverse @ v.double()).norm() < tolerance * (inverse @ v.double()).norm()


def test_fewer_gradients_than_the_window_count_as_zero() -> None:
    grads = gradients()[:5]
    v = gradients()[7]
    found = gram_solve(grads, grads @ grads.mT, v, size=12, damping=DAMPING)
    assert torch.allclose(found, dense(grads, 12) @ v, rtol=1e-9)


def test_long_gradients_that_are_alike_have_a_solution_and_what_is_not_finite_gives_nan() -> None:
    """Rounding of K is then above the damping, and would make the sum indefinite."""
    rows = gradients()[:1].repeat(6, 1) * 1e9
    found = gram_solve(rows, rows @ rows.mT, rows[0], size=6, damping=1e-5)
    assert bool(found.isfinite().all()) and found.norm() < 1e-3 * rows[0].norm() / 1e-5
    rows[2, 1] = torch.nan
    assert bool(gram_solve(rows, rows @ rows.mT, rows[0], size=6, damping=1e-5).isnan().all())


def test_entries_and_the_diagonal() -> None:
    grads = gradients()
    factors, inverse = fisher_factors(grads, DAMPING), dense(grads, len(grads))
    assert torch.allclose(fisher_diagonal(factors), inverse.diagonal(), rtol=1e-10)
    assert all(fisher_entry(factors, i, j).item() == pytest.approx(inverse[i, j].item()) for i, j in ((3, 3), (2, 7)))


def test_removal_is_the_best_that_the_quadratic_model_allows() -> None:
    """min of d^T F d / 2 over d with d_i = -w_i, solved as a dense system with a Lagrange multiplier."""
    grads = gradients()
    n, i = grads.shape[1], 6
    w = torch.randn(n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fisher = torch.linalg.inv(dense(grads, len(grads)))
    unit = torch.eye(n, dtype=torch.float64)[i]
    system = torch.cat((torch.cat((fisher, unit[:, None]), 1), torch.cat((unit, torch.zeros(1, dtype=unit.dtype)))[None]))
    d = torch.linalg.solve(system, torch.cat((0 * w, -w[i : i + 1])))[:n]
    factors = fisher_factors(grads, DAMPING)
    assert torch.allclose(obs_removal(factors, w, i), w + d, atol=1e-9) and obs_removal(factors, w, i)[i] == 0
    assert obs_saliency(factors, w)[i].item() == pytest.approx((d @ fisher @ d / 2).item(), rel=1e-8)


def operations(m: int, d: int) -> dict[str, int]:
    """Floating-point operations of the matrix products of each part."""
    grads = torch.randn(m, d, generator=torch.Generator().manual_seed(0))
    gram, out = (grads @ grads.mT).double(), {}
    factors = fisher_factors(grads, DAMPING)
    parts = {
        "set up": lambda: fisher_factors(grads, DAMPING),
        "product": lambda: fisher_solve(factors, grads[0]),
        "window": lambda: gram_solve(grads, gram, grads[0], size=m, damping=DAMPING),
    }
    for name, part in parts.items():
        with FlopCounterMode(display=False) as counter:
            part()
        out[name] = counter.get_total_flops()
    return out


def test_costs_grow_linearly_with_the_dimension() -> None:
    small, wide, deep = operations(8, 1000), operations(8, 4000), operations(16, 1000)
    assert small["product"] == small["window"] == 4 * 8 * 1000, "two products with a vector"
    assert {name: wide[name] / small[name] for name in small} == {"set up": 4, "product": 4, "window": 4}
    assert deep["product"] == 2 * small["product"] and small["set up"] == 2 * 8 * 7 * 1000 and deep["set up"] == 2 * 16 * 15 * 1000


def test_a_million_dimensions_need_no_matrix() -> None:
    grads = torch.randn(3, 1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = fisher_solve(fisher_factors(grads, 1.0), grads[0])
    assert torch.allclose(found, gram_solve(grads, grads @ grads.mT, grads[0], size=3, damping=1.0), rtol=1e-6, atol=1e-12)


def test_damping_must_be_positive() -> None:
    with pytest.raises(ValueError, match="fisher_factors: damping must be a number > 0; found 0.0"):
        fisher_factors(gradients(), 0.0)
