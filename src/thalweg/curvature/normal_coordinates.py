"""Inverses of Kronecker factors without inverting: descent in normal coordinates. Lin et al. (2023), arXiv:2302.09738.

    H_K = K^T A K,  H_C = C^T G C                                             (1)  A: [d, d], G: [o, o], positive semi-definite
    m_K <- a m_K + (tr(H_C)/o H_K + lambda tr(C^T C)/o K^T K - I) / 2         (2)
    m_C <- a m_C + (tr(H_K)/d H_C + lambda tr(K^T K)/d C^T C - I) / 2         (3)
    K <- K expm(-b m_K),  C <- C expm(-b m_C)                                 (4)  expm(-X) = I - X where truncated

All matrices may be diagonal, and are then vectors. Products, sums and traces alone are taken, in the dtype of K and C.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Coordinates = tuple[Tensor, Tensor, Tensor, Tensor]
"""K, C, m_K, m_C."""
Inverses = tuple[Tensor, Tensor]
"""K K^T and C C^T."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The numbers of (1) to (4).

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

    def start(self, a: Tensor, g: Tensor) -> Coordinates:
        """K = C = I, without momentum, for factors of these shapes."""
        return one(a), one(g), torch.zeros_like(a), torch.zeros_like(g)

    def update(self, at: Coordinates, a: Tensor, g: Tensor) -> Coordinates:
        """One step towards K K^T (x) C C^T = (A (x) G + damping)^-1."""
        k, c, m_k, m_c = at
        h_k, h_c, k_k, c_c = _inner(k, a), _inner(c, g), _inner(k, None), _inner(c, None)  # (1)
        m_k = self.momentum * m_k + (_mean(h_c) * h_k + self.damping * _mean(c_c) * k_k - one(a)) / 2  # (2)
        m_c = self.momentum * m_c + (_mean(h_k) * h_c + self.damping * _mean(k_k) * c_c - one(g)) / 2  # (3)
        return self._along(k, m_k), self._along(c, m_c), m_k, m_c

    def _along(self, k: Tensor, m: Tensor) -> Tensor:
        """Equation (4)."""
        x = -self.rate * m
        if k.dim() == 1:
            return k * (x.exp() if self.exact else 1 + x)
        if not self.exact:
            return k + k @ x
        return k @ torch.linalg.matrix_exp(x.to(torch.promote_types(x.dtype, torch.float32))).to(k.dtype)


def inverses(at: Coordinates) -> Inverses | None:
    """K K^T and C C^T, which save two products of four. None for diagonals, and in 16 bits, where rounding would make them indefinite."""
    k, c, _, _ = at
    return (k @ k.mT, c @ c.mT) if k.dim() > 1 and k.dtype.itemsize >= 4 else None


def natural(at: Coordinates, m: Tensor, known: Inverses | None = None) -> Tensor:
    """C C^T M K K^T for a matrix M, [o, d]; `known` are the `inverses` of `at`."""
    k, c, _, _ = at
    m = m.to(k.dtype)
    if known is not None:
        return known[1] @ m @ known[0]
    return (c * c).unsqueeze(1) * m * (k * k) if k.dim() == 1 else c @ (c.mT @ m @ k) @ k.mT


def one(a: Tensor) -> Tensor:
    """The identity in the form of a."""
    return torch.ones_like(a) if a.dim() == 1 else torch.eye(len(a), dtype=a.dtype, device=a.device)


def _inner(k: Tensor, s: Tensor | None) -> Tensor:
    """K^T S K, S the identity where it is None; symmetric in spite of rounding."""
    if k.dim() == 1:
        return k * k if s is None else k * k * s
    product = k.mT @ (k if s is None else s @ k)
    return (product + product.mT) / 2


def _mean(a: Tensor) -> Tensor:
    """The trace over the size."""
    return (a if a.dim() == 1 else a.diagonal()).mean()
