"""Newton-Schulz iteration for the orthogonal factor of a matrix. Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/.

    x <- x / ||x||_F                       (1)
    x <- a x + (b A + c A A) x,  A = x x^T (2)  five times, a, b, c = 3.4445, -4.7750, 2.0315

The singular vectors stay; each singular value s goes through p(s) = a s + b s^3 + c s^5 five times and ends near one (within 0.68 to 1.14 when
it starts above about 0.003): the coefficients favour speed from small s over convergence to one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.optim.frobenius import frobenius

A, B, C = 3.4445, -4.7750, 2.0315
MIRRORED = 256  # rows from which a quarter of a product costs more than putting quarters together
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
    single = x.shape[0] == 1  # products of two matrices are faster than those of batches of one
    y, add = (y.squeeze(0), torch.addmm) if single else (y, torch.baddbmm)
    n = y.shape[-2]
    halves = not torch.compiler.is_compiling() and single and n >= MIRRORED  # compiled, one graph takes all sizes; parts of a batch would be copied
    for _ in range(steps):
        gram = _symmetric(n, halves, lambda i, j: y[..., i, :] @ y[..., j, :].mT)  # noqa: B023 - called at once
        inner = _symmetric(n, halves, lambda i, j: add(gram[..., i, j], gram[..., i, :], gram[..., j], beta=B, alpha=C))  # noqa: B023
        y = add(y, inner, y, beta=A)  # (2)
    y = y.unsqueeze(0) if single else y
    return (y.mT if x.shape[-2] > x.shape[-1] else y).to(x.dtype)


def _symmetric(n: int, halves: bool, block: Callable[[slice, slice], Tensor]) -> Tensor:
    """A symmetric n x n matrix from `block(rows, columns)`; where it is halved, from three quarters: the fourth is the mirror of its opposite."""
    if not halves:
        return block(slice(None), slice(None))
    low, high = slice(n // 2), slice(n // 2, None)
    corner = block(low, high)
    return torch.cat((torch.cat((block(low, low), corner), -1), torch.cat((corner.mT, block(high, high)), -1)), -2)
