"""Damped inverses of Kronecker products. Martens and Grosse (2015), arXiv:1503.05671.

    (A + pi sqrt(lambda) I)^-1 (x) (G + sqrt(lambda) / pi I)^-1           (1)  A: [d, d], G: [o, o]; pi^2 = (tr(A) / d) / (tr(G) / o)
    (A (x) G + lambda I)^-1                                               (2)

What (1) inverts is what (2) does and two cross terms, which this pi keeps small in the trace norm. (1) takes two Cholesky factors, (2) all
eigenvalues and vectors of A and G, several times the operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

Roots = tuple[Tensor, ...]
"""For (1) both inverses; for (2) eigenvalues and vectors of A, then of G, as `torch.linalg.eigh` gives them."""


def roots(a: Tensor, g: Tensor, damping: float, inverse: str) -> Roots:
    """What a product with the inverse needs.

    Args:
        a: A, positive semi-definite.
        g: G.
        damping: lambda, > 0; for (2) it is not used until the product.
        inverse: "cholesky" for (1), "eigen" for (2).

    Raises:
        ValueError: a factor with its damping is not positive definite in its precision.
    """
    if inverse == "eigen":
        return (*torch.linalg.eigh(a), *torch.linalg.eigh(g))
    mean_a, mean_g = a.diagonal().mean(), g.diagonal().mean()
    pi = torch.where((mean_a > 0) & (mean_g > 0), (mean_a / mean_g).sqrt(), 1.0)
    return _inverse(a, pi * damping**0.5), _inverse(g, damping**0.5 / pi)


def damped_inverse(root: Roots, m: Tensor, damping: float) -> Tensor:
    """The inverse times vec(M), as a matrix [o, d].

    Args:
        root: of `roots`; eigenvalues that rounding made negative count as zero.
        m: M, such as the gradient of (W b).
        damping: > 0, of (2); (1) has that of its `roots`.
    """
    with torch.autocast(m.device.type, enabled=False):
        if len(root) == 2:
            return root[1] @ m @ root[0]
        values_a, a, values_g, g = root
        return g @ ((g.mT @ m @ a) / (torch.outer(values_g.clamp(min=0), values_a.clamp(min=0)) + damping)) @ a.mT


def _inverse(a: Tensor, damping: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(a + damping * torch.eye(len(a), dtype=a.dtype, device=a.device))
    if failed:
        advice = "take a smaller lr if the loss has grown, else more damping"
        raise ValueError(f"A Kronecker factor with its damping is not positive definite in {a.dtype}; {advice}.")
    return torch.cholesky_inverse(factor)
