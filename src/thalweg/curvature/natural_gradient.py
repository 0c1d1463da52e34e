"""Gradients of layers times their damped inverse Kronecker factors, within a bound of the step's length in the Fisher metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from thalweg.curvature.kronecker_inverse import Roots, damped_inverse
from thalweg.curvature.layer_matrix import Layer, gradient_matrix


def natural_gradients(
    layers: Mapping[str, Layer], roots: Mapping[str, Roots], groups: Iterable[Mapping[str, Any]], damping: float, bound: float | None
) -> list[tuple[Layer, Tensor]]:
    """nu D for each layer with factors and a gradient M: D is the damped inverse times vec(M), nu = min(1, sqrt(bound / sum rate^2 <D, M>)).

    Args:
        layers: by name.
        roots: of the layers whose factors are known.
        groups: of the optimizer, with the learning rates.
        damping: > 0.
        bound: of the sum; None for nu = 1.
    """
    rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
    found, size = [], 0.0
    for name, root in roots.items():
        m = gradient_matrix(layers[name])
        if m is not None:
            d = damped_inverse(root, m.to(root[0].dtype), damping)
            found.append((layers[name], d))
            size += rates[id(layers[name].weight)] ** 2 * float((d * m).sum())
    nu = 1.0 if bound is None or not size > 0 else min(1.0, math.sqrt(bound / size))
    return [(layer, nu * d) for layer, d in found]
