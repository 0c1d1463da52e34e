"""Inverses of Kronecker factors without inverting: descent in normal coordinates. Lin et al. (2023), arXiv:2302.09738.

    H_K = K^T A K,  H_C = C^T G C                                             (1)  A: [d, d], G: [o, o], positive semi-definite; given
    m_K <- a m_K + (tr(H_C)/o H_K + lambda tr(C^T C)/o K^T K - I) / 2         (2)
    m_C <- a m_C + (tr(H_K)/d H_C + lambda tr(K^T K)/d C^T C - I) / 2         (3)
    K <- K expm(-b m_K),  C <- C expm(-b m_C)                                 (4)  expm(-X) = I - X where truncated

All matrices may be diagonal, and are then vectors. Products, sums and traces alone are taken, in the dtype of K and C.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.symmetric import symmetric
from thalweg.curvature.layer_rows import inner

Coordinates = tuple[Tensor, Tensor, Tensor, Tensor]
"""K, C, m_K, m_C."""
Inverses = tuple[Tensor | None, Tensor | None]
"""K K^T and C C^T, each where it saves time."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The numbers of (2) to (4).

    Args:
        rate: b.
        damping: lambda.
        momentum: a.
        exact: the exponential itself, in fp32 at least; False truncates it to first order.
    """

    rate: float
    damping: float
    momentum: float
    exact: bool

    def update(self, at: Coordinates, h_k: Tensor, h_c: Tensor) -> Coordinates:
        """One step towards K K^T (x) C C^T = (A (x) G + damping)^-1."""
        k, c, m_k, m_c = at
        k_k, c_c = inner(k), inner(c)
        m_k = self.momentum * m_k + (_mean(h_c) * h_k + self.damping * _mean(c_c) * k_k - one(k)) / 2  # (2)
        m_c = self.momentum * m_c + (_mean(h_k) * h_c + self.damping * _mean(k_k) * c_c - one(c)) / 2  # (3)
        return self._along(k, m_k), self._along(c, m_c), m_k, m_c

    def _along(self, k: Tensor, m: Tensor) -> Tensor:
        """Equation (4)."""
        if k.dim() == 1:
            x = -self.rate * m
            return k * (x.exp() if self.exact else 1 + x)
        if not self.exact:
            return torch.addmm(k, k, m, alpha=-self.rate)
        x = -self.rate * m.to(torch.promote_types(m.dtype, torch.float32))
        return k @ torch.linalg.matrix_exp(x).to(k.dtype)


def start(h_k: Tensor, h_c: Tensor) -> Coordinates:
    """K = C = I without momentum, where K^T A K and C^T G C are the factors themselves."""
    return one(h_k), one(h_c), torch.zeros_like(h_k), torch.zeros_like(h_c)


def inverses(at: Coordinates, times: int) -> Inverses:
    """K K^T and C C^T, where they save more than they take in as many uses: each is one product of squares and saves one with M in each use.

    None for diagonals, and in 16 bits, where rounding would make them indefinite.
    """
    k, c, _, _ = at
    if k.dim() == 1 or k.dtype.itemsize < 4:
        return None, None
    d, o = len(k), len(c)
    return _outer(k) if d < times * o else None, _outer(c) if o < times * d else None


def natural(at: Coordinates, m: Tensor, known: Inverses = (None, None)) -> Tensor:
    """C C^T M K K^T for a matrix M, [o, d]; `known` are the `inverses` of `at`."""
    k, c, _, _ = at
    m = m.to(k.dtype)
    if k.dim() == 1:
        return (c * c).unsqueeze(1) * m * (k * k)
    m = m @ k @ k.mT if known[0] is None else m @ known[0]
    return c @ (c.mT @ m) if known[1] is None else known[1] @ m


def one(a: Tensor) -> Tensor:
    """The identity in the form of a."""
    return torch.ones_like(a) if a.dim() == 1 else torch.eye(len(a), dtype=a.dtype, device=a.device)


def _outer(k: Tensor) -> Tensor:
    return symmetric(len(k), lambda i, j: k[i] @ k[j].mT)


def _mean(a: Tensor) -> Tensor:
    """The trace over the size."""
    return (a if a.dim() == 1 else a.diagonal()).mean()
