"""Batches of examples held in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def epochs(x: Tensor, y: Tensor, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: each pass takes the examples in a new order and leaves out what does not fill a batch.

    Args:
        x: inputs, [examples, ...].
        y: targets, [examples, ...].
        size: examples per batch; at most all of them are taken.
        generator: of the orders.
    """
    size = min(size, len(x))
    while True:
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - size + 1, size):
            rows = order[start : start + size]
            yield x[rows], y[rows]
