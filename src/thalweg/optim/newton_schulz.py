"""Newton-Schulz iteration for the orthogonal factor of a matrix. Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/.

    x <- x / ||x||_F                                   (1)
    x <- P(A) x,  A = x x^T,  P(A) = a I + b A + c A A  (2)  five times, a, b, c = 3.4445, -4.7750, 2.0315

The singular vectors stay; each singular value s goes through p(s) = a s + b s^3 + c s^5 five times and ends near one (within 0.68 to 1.14 when
it starts above about 0.003): the coefficients favour speed from small s over convergence to one.

After (2) A is P A P, for all of them commute. So up to three iterations of a long matrix are one product with it,

    x <- P_3 P_2 P_1 x,  P_i = P(A_i),  A_1 = x x^T,  A_(i+1) = P_i A_i P_i  (3)

whose other products are of the short side alone. Then A starts anew from x: rounding of its small eigenvalues grows by a^2 from one to the next.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg.core.symmetric import symmetric
from thalweg.optim.frobenius import frobenius

A, B, C = 3.4445, -4.7750, 2.0315
AT_ONCE, LONG = 3, 2  # iterations in (3), and columns for each row from which it pays
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
    n, m = y.shape[-2:]
    at_once = AT_ONCE if m >= LONG * n else 1

    def product(a: Tensor, b: Tensor) -> Tensor:
        return symmetric(n, lambda i, j: a[..., i, :] @ b[..., j], batch=len(x))

    def inner(a: Tensor) -> Tensor:
        return symmetric(n, lambda i, j: add(a[..., i, j], a[..., i, :], a[..., j], beta=B, alpha=C), batch=len(x))

    while steps > 0:
        together = min(at_once, steps)
        gram = product(y, y.mT)
        if together == 1:
            y = add(y, inner(gram), y, beta=A)  # (2)
        else:
            q = p = _shifted(inner(gram))
            for _ in range(together - 1):
                gram = product(product(p, gram), p)
                p = _shifted(inner(gram))
                q = product(p, q)
            y = q @ y  # (3)
        steps -= together
    y = y.unsqueeze(0) if single else y
    return (y.mT if x.shape[-2] > x.shape[-1] else y).to(x.dtype)


def _shifted(x: Tensor) -> Tensor:
    """A I + x, which may be written into x."""
    if torch.compiler.is_compiling():
        return x + A * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)  # to lower a view of a diagonal, torch calls what it warns of
    x.diagonal(dim1=-2, dim2=-1).add_(A)
    return x
