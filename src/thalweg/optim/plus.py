"""The term that every rule ends with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def plus(x: Tensor, a: Any, y: Tensor) -> Tensor:
    """The sum x + a y; where a is a Python number in one operation, or in none where it is zero."""
    if not isinstance(a, float):
        return x + a * y
    return torch.add(x, y, alpha=a) if a else x
