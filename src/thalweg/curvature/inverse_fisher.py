"""Products with the inverse of a damped empirical Fisher matrix, without matrices. Frantar, Kurtic, Alistarh (2021), arXiv:2107.03356 (M-FAC).

    F = lambda I + (1 / m) sum of g_i g_i^T over m gradients g_i in d dimensions                (1)

Static, by the Woodbury recursion (section 3.1), for pruning: each query is cheap.
    h_i = F_{i-1}^-1 g_i,  n_i = m + g_i^T h_i,  F_0 = lambda I                                 (2)
    F^-1 v = v / lambda - sum h_i (h_i^T v) / n_i                                               (3)
    set up O(d m^2), a product O(d m), one entry of the inverse O(m), memory d m
Sliding window, by the Gram matrix K = G G^T of the gradients as rows of G (section 3.2), for training: gradients come and go.
    F^-1 v = (v - G^T (m lambda I + K)^-1 G v) / lambda                                         (4)
    another gradient O(d m), a product O(d m + m^3), memory d m

Departure: (4) factors K by Cholesky in each product, where the paper keeps an LU factorisation in a form of its own; the order of cost is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from thalweg.core.checks import check


class Factors(NamedTuple):
    """The inverse of (1) as the vectors of (2).

    Args:
        h: the vectors h_i, [m, d].
        n: the denominators n_i, [m].
        damping: lambda.
    """

    h: Tensor
    n: Tensor
    damping: float


def fisher_factors(grads: Tensor, damping: float) -> Factors:
    """Set up (2) from gradients [m, d]; damping > 0."""
    check("fisher_factors", "damping", damping, 1.0, "> 0")
    m = grads.shape[0]
    h, n = torch.empty_like(grads), grads.new_empty(m)
    for i, g in enumerate(grads):
        h[i] = fisher_solve(Factors(h[:i], n[:i], damping), g)
        n[i] = m + g @ h[i]
    return Factors(h, n, damping)


def fisher_solve(f: Factors, v: Tensor) -> Tensor:
    """F^-1 v for a vector [d]: equation (3)."""
    return v / f.damping - (f.h.mT @ ((f.h @ v[:, None]) / f.n[:, None]))[:, 0]


def fisher_diagonal(f: Factors) -> Tensor:
    """The diagonal of F^-1, [d], in O(d m)."""
    return 1 / f.damping - (f.h.square() / f.n[:, None]).sum(0)


def fisher_entry(f: Factors, i: int, j: int) -> Tensor:
    """One entry of F^-1, 0-d, in O(m)."""
    return float(i == j) / f.damping - (f.h[:, i] * f.h[:, j] / f.n).sum()


def obs_saliency(f: Factors, w: Tensor) -> Tensor:
    """By how much the loss is expected to rise where one weight of w, [d], is removed and the others adapt: w_i^2 / (2 F^-1_ii), [d]."""
    return w.square() / (2 * fisher_diagonal(f))


def obs_removal(f: Factors, w: Tensor, i: int) -> Tensor:
    """The weights w, [d], with weight i at zero and the others adapted: w - F^-1 e_i w_i / F^-1_ii (optimal brain surgeon)."""
    unit = torch.zeros_like(w)
    unit[i] = 1
    column = fisher_solve(f, unit)
    removed = w - column * (w[i] / column[i])
    removed[i] = 0
    return removed


def gram_solve(rows: Tensor, gram: Tensor, v: Tensor, *, size: int, damping: float) -> Tensor:
    """F^-1 v from the gradients themselves: equation (4).

    Args:
        rows: the gradients G, [k, d]; those that are missing from `size` count as zero.
        gram: K = G G^T in float64, [k, k]: it is small, and (4) cancels digits.
        v: a vector, [d].
        size: the m of (1), at least k.
        damping: lambda, > 0.
    """
    rounding = len(gram) * torch.finfo(gram.dtype).eps * gram.diagonal().amax()  # of K: long gradients that are alike leave the sum definite
    small = gram + (size * damping + rounding) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(small)  # what is not finite gives NaN and no error
    inner = torch.cholesky_solve((rows @ v[:, None]).to(gram), torch.where(failed > 0, torch.nan, factor))
    return (v - (rows.mT @ inner.to(v))[:, 0]) / damping
