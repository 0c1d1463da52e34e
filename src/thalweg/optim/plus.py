"""The term that every rule ends with: a sum of two tensors, one of them scaled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def plus(x: Tensor, a: Any, y: Tensor) -> Tensor:
    """x + a y, in one operation and without a temporary where a is a Python number."""  # noqa: D403
    return torch.add(x, y, alpha=a) if isinstance(a, float) else x + a * y
