"""Symmetric products of matrices from three quarters of their entries."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MIRRORED = 768  # rows from which a quarter of a product costs more than putting quarters together


def symmetric(n: int, block: Callable[[slice, slice], Tensor], *, batch: int = 1) -> Tensor:
    """A symmetric n x n matrix, or a batch of them, from `block(rows, columns)`.

    From 768 rows on it is made in halves, and the quarter below the diagonal is the mirror of the one above. Not for several matrices, parts of
    which would be copied, and not while compiling, where one graph takes all sizes.
    """
    if torch.compiler.is_compiling() or batch != 1 or n < MIRRORED:
        return block(slice(None), slice(None))
    low, high = slice(n // 2), slice(n // 2, None)
    corner = block(low, high)
    return torch.cat((torch.cat((block(low, low), corner), -1), torch.cat((corner.mT, block(high, high)), -1)), -2)
