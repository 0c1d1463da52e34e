"""Newton-Schulz iteration for the orthogonal factor of a matrix. Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/.

    x <- x / ||x||_F                       (1)
    x <- a x + (b A + c A A) x,  A = x x^T (2)  five times, a, b, c = 3.4445, -4.7750, 2.0315

The singular vectors stay; each singular value s goes through p(s) = a s + b s^3 + c s^5 five times and ends near one (within 0.68 to 1.14 when
it starts above about 0.003): the coefficients favour speed from small s over convergence to one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.optim.frobenius import frobenius

A, B, C = 3.4445, -4.7750, 2.0315
EPS = 1e-12  # far above the root of the smallest float32, so that a norm that underflows cannot blow x up


def orthogonalize(x: Tensor, *, steps: int = 5, compute: str = "bf16") -> Tensor:
    """Replace the singular values of each matrix by values near one.

    Args:
        x: matrices, [batch, rows, cols]. A zero matrix gives zeros, NaN stays NaN, a norm below 1e-12 is not brought up to one.
        steps: iterations of (2).
        compute: "bf16" for products in bfloat16, "native" for the dtype of x.

    Returns:
        Matrices of the shape and dtype of x, with Frobenius norm about sqrt(min(rows, cols)).
    """
    wide = x.mT if x.shape[-2] > x.shape[-1] else x
    y = wide / (frobenius(wide) + EPS)  # (1), before narrowing
    if compute == "bf16":
        y = y.bfloat16()
    for _ in range(steps):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), y, beta=A)  # (2)
    return (y.mT if x.shape[-2] > x.shape[-1] else y).to(x.dtype)
