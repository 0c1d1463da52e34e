"""The sign of the sign methods: torch's turns NaN into zero, which would hide a broken gradient."""

from __future__ import annotations

from torch import Tensor

LIMIT = 2.0**-100


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1 for each entry, NaN for NaN; an entry below 2^-100 gives its multiple of that."""
    return x.clamp(-LIMIT, LIMIT) * (1 / LIMIT)
