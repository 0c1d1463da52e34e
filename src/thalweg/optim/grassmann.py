"""A subspace that moves at random, and Adam in it: what GrassWalk and GrassJump share. Rajabi et al. (2025), arXiv:2510.01878.

    R = P^T g                                                                   (1)
    m <- Q m,  v <- (1 - b2^(t-1)) |Q^2 (v_hat - m_hat^2) + (Q m_hat)^2|        (2)  where P has changed: Q = P^T P_before, squares by entry
    m <- b1 m + (1 - b1) R,  v <- b2 v + (1 - b2) R^2                           (3)
    n = m / (sqrt(v) + eps)                                                     (4)
    L = (g - P R) diag(||n_i|| / ||R_i||)                                       (5)  columns i; at most growth times as long as the L before
    d = rho (P n + L)                                                           (6)  rho = sqrt(1 - b2^t) / (1 - b1^t)

(2) turns mean and variance of each coordinate to the new basis as if coordinates were uncorrelated; m_hat and v_hat are corrected for their start.
(5) gives back the part of the gradient outside the subspace, each column as long as Adam made the part inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thalweg.core.rule import Scalars, State, ema
from thalweg.optim.adam import bias_correction
from thalweg.optim.frobenius import frobenius
from thalweg.optim.subspace import as_given, orthonormal, sizes, wide

TINY = 1e-8  # beside a column's norm, as published


def geodesic(p: Tensor, z: Tensor, angle: Any) -> Tensor:
    """A basis of the subspace at the end of a geodesic of the Grassmann manifold.

    Args:
        p: orthonormal columns, [batch, n, r].
        z: a direction, [batch, n, r]; its part inside the subspace does not count, nor does its length.
        angle: largest principal angle between the old subspace and the new, in radians.

    Returns:
        Orthonormal columns, [batch, n, r]; p itself where r = n, for there is no other subspace.
    """
    if p.shape[-1] == p.shape[-2]:
        return p
    u, s, vh = torch.linalg.svd(z - p @ (p.mT @ z), full_matrices=False)
    theta = (angle * s / s[..., :1]).unsqueeze(-2)
    return orthonormal((p @ vh.mT * theta.cos() + u * theta.sin()) @ vh)


def turned(q: Tensor, m: Tensor, v: Tensor, past1: Any, past2: Any) -> tuple[Tensor, Tensor]:
    """Both moments in a new basis: equation (2).

    Args:
        q: new basis times old basis, P^T P_before, [batch, r, r].
        m: first moment in the old basis, [batch, r, long].
        v: second moment, likewise.
        past1: 1 - b1^(t-1), what m has to be divided by.
        past2: 1 - b2^(t-1), what v has to be divided by.
    """
    mean = m / past1
    return q @ m, past2 * (q.square() @ (v / past2 - mean.square()) + (q @ mean).square()).abs()


def start(w: Tensor, rank: int) -> State:
    """Basis, moments, and the length of the last recovery term."""
    short, r, long = sizes(w, rank)
    shapes = {"p": (short, r), "m": (r, long), "v": (r, long), "length": (1, 1)}
    return {name: w.new_zeros(w.shape[0], *shape) for name, shape in shapes.items()}


def rates(betas: tuple[float, float], t: int) -> dict[str, float]:
    """What `descent` reads in c: the correction of step t, and the corrections of the moments that it starts from."""
    b1, b2 = betas
    return {"rate": bias_correction(betas, 0.0, t)["rate"], "past1": 1 - b1 ** (t - 1), "past2": 1 - b2 ** (t - 1)}


def descent(g: Tensor, p: Tensor, s: State, c: Scalars, betas: tuple[Any, Any], eps: Any, growth: Any) -> tuple[Tensor, State]:
    """The direction d of a step and the new state, given the basis p of this step; `c` has t, rare and `rates`."""
    x, m, v = wide(g), s["m"], s["v"]
    if c["rare"] and c["t"] > 1 and p is not s["p"]:
        m, v = turned(p.mT @ s["p"], m, v, c["past1"], c["past2"])  # (2)
    r = p.mT @ x  # (1)
    m, v = ema(m, r, betas[0]), ema(v, r * r, betas[1])  # (3)
    n = m / (v.sqrt() + eps)  # (4)
    rest = (x - p @ r) * (n.norm(dim=-2, keepdim=True) / (r.norm(dim=-2, keepdim=True) + TINY))
    length = frobenius(rest)
    limit = torch.where(s["length"] > 0, growth * s["length"], length)  # a length of zero would hold the term down for good
    rest = rest * torch.where(length > limit, limit / length, 1)  # (5)
    return as_given(c["rate"] * (p @ n + rest), g), {"p": p, "m": m, "v": v, "length": torch.where(length > limit, limit, length)}  # (6)
