"""Descent in normal coordinates: its fixed point, and what truncating the exponential costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from thalweg.curvature.layer_rows import inner
from thalweg.curvature.normal_coordinates import Coordinates, Descent, inverses, natural, start


def spd(n: int, seed: int) -> Tensor:
    x = torch.randn(n, 2 * n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x @ x.T / n


def descent(rate: float, *, exact: bool = False, damping: float = 0.0, momentum: float = 0.5) -> Descent:
    return Descent(rate=rate, damping=damping, momentum=momentum, exact=exact)


def updated(step: Descent, at: Coordinates, a: Tensor, g: Tensor) -> Coordinates:
    return step.update(at, inner(at[0], a), inner(at[1], g))


def test_a_step_by_hand() -> None:
    a, g, step = torch.diag(torch.tensor([4.0, 1.0])).double(), torch.diag(torch.tensor([2.0])).double(), descent(0.1, damping=0.5)
    k, c, m_k, m_c = updated(step, start(a, g), a, g)
    torch.testing.assert_close(m_k, torch.diag(torch.tensor([(8 + 0.5 - 1) / 2, (2 + 0.5 - 1) / 2])).double())
    torch.testing.assert_close(m_c, torch.tensor([[(5 / 2 * 2 + 0.5 - 1) / 2]]).double())
    torch.testing.assert_close(k, torch.diag(torch.tensor([1 - 0.375, 1 - 0.075])).double())
    k2, _, m_k2, _ = updated(step, (k, c, m_k, m_c), a, g)
    h = float(c) ** 2 * 2 * k @ a @ k + 0.5 * float(c) ** 2 * k @ k - torch.eye(2).double()
    torch.testing.assert_close(m_k2, 0.5 * m_k + h / 2)
    torch.testing.assert_close(k2, k - 0.1 * k @ m_k2)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
def test_with_constant_factors_it_ends_at_the_inverse(exact: bool, diagonal: bool) -> None:
    a, g = spd(4, 0), spd(3, 1)
    if diagonal:
        a, g = a.diagonal(), g.diagonal()
    step = descent(0.1, exact=exact)
    at = start(a, g)
    for _ in range(1000):
        at = updated(step, at, a, g)
    m = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    whole = [torch.diag(x) if diagonal else x for x in (a, g)]
    torch.testing.assert_close(natural(at, m), torch.linalg.solve(whole[1], m) @ torch.linalg.inv(whole[0]), rtol=1e-8, atol=1e-8)


def test_the_truncation_is_of_second_order() -> None:
    a, g = spd(4, 0), spd(3, 1)
    gaps = []
    for rate in (1e-2, 5e-3):
        ends = [updated(step, start(a, g), a, g)[0] for step in (descent(rate), descent(rate, exact=True))]
        gaps.append(float((ends[0] - ends[1]).norm()))
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.1)


def test_diagonal_matrices_go_the_way_of_dense_ones() -> None:
    a, g = torch.tensor([4.0, 1.0, 0.1]).double(), torch.tensor([2.0, 0.5]).double()
    step = descent(0.05, damping=0.1)
    wide, narrow = start(torch.diag(a), torch.diag(g)), start(a, g)
    for _ in range(20):
        wide, narrow = updated(step, wide, torch.diag(a), torch.diag(g)), updated(step, narrow, a, g)
    assert all(torch.allclose(x, torch.diag(y), rtol=1e-12) for x, y in zip(wide, narrow, strict=True))


@pytest.mark.parametrize(("times", "kept"), [(1, (False, True)), (2, (True, True)), (0, (False, False))])
def test_inverses_are_kept_where_they_save_products_and_a_step_with_them_is_the_same(times: int, kept: tuple[bool, bool]) -> None:
    a, g = spd(4, 0), spd(3, 1)
    at = updated(descent(0.1), start(a, g), a, g)
    m = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    known = inverses(at, times)
    assert tuple(x is not None for x in known) == kept
    torch.testing.assert_close(natural(at, m, known), natural(at, m), rtol=1e-12, atol=1e-12)


def test_diagonals_and_narrow_matrices_have_no_inverses() -> None:
    """In 16 bits K K^T would be indefinite."""
    at = start(spd(4, 0), spd(3, 1))
    narrow = tuple(x.bfloat16() for x in at)
    assert inverses((narrow[0], narrow[1], narrow[2], narrow[3]), 100) == (None, None)
    assert inverses(start(spd(4, 0).diagonal(), spd(3, 1).diagonal()), 100) == (None, None)
