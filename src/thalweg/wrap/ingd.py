"""INGD, inverse-free natural gradient descent. Lin et al. (2023), arXiv:2302.09738.

    H_K = K^T A K,  H_C = C^T G C                                             (1)  A, G: Kronecker factors of a layer, [d, d] and [o, o]
    m_K <- a m_K + (tr(H_C)/o H_K + lambda tr(C^T C)/o K^T K - I) / 2         (2)
    m_C <- a m_C + (tr(H_K)/d H_C + lambda tr(K^T K)/d C^T C - I) / 2         (3)
    K <- K expm(-b m_K),  C <- C expm(-b m_C)                                 (4)  expm(-X) = I - X where truncated
    base optimizer's step with C C^T M K K^T in the place of M = (grad W, grad b)  (5)

(4) is a step of Riemannian gradient descent with momentum on positive definite matrices, in coordinates in which their metric is the identity.
Where the factors stay the same and lambda = 0 it ends at K K^T (x) C C^T = (A (x) G)^-1, KFAC's inverse, and no matrix was inverted or decomposed: so
everything may be bfloat16. K K^T and C C^T are positive semi-definite whatever the rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from thalweg.core.card import Card
from thalweg.core.checks import check
from thalweg.core.space import Log, Space
from thalweg.core.wrapper import Wrapper
from thalweg.curvature.kronecker import observe
from thalweg.curvature.layer_matrix import Layer, gradient_matrix, layers_of, set_gradient
from thalweg.curvature.normal_coordinates import Descent, Inverses, inverses, natural, start
from thalweg.wrap.closure_graph import parameters_of
from thalweg.wrap.layer_state import copied
from thalweg.wrap.own_state import joined, parted

CARD = Card(
    name="INGD",
    title="Simplifying Momentum-based Positive-definite Submanifold Optimization with Applications to Deep Learning",
    authors="Lin et al.",
    year=2023,
    family="wrap",
    arxiv="2302.09738",
    ledger=298,
    needs=("closure",),
    reduces_to=("the base optimizer with factor_lr=0",),
    departures=(
        "Factors are the empirical Fisher matrix's, as in the published code, and scaled for convolutions as in arXiv:1602.01407.",
        "No warm-up of b, which the published code raises in two steps from 2e-4.",
    ),
    use="As KFAC, where its inverses are too slow or half precision is wanted: products of matrices only. The factors take "
    "some updates to find their scale: start with a small lr or a warm-up.",
)
SPACE = Space({"factor_lr": Log(1e-3, 1e-1), "damping": Log(1e-4, 1e-1)})


class INGD(Wrapper):
    """Wraps any torch optimizer, usually SGD with momentum: `INGD(SGD(model.parameters(), lr=0.01), model).step(closure)`.

    The closure clears the gradients, computes a loss that is a mean over the batch, calls backward and returns it; layers are watched only while
    it runs. Linear layers and plain two-dimensional convolutions are preconditioned (`layers` has them by name), other parameters keep their
    gradients. The state has the dtype of the weights. Works in one process.

    Args:
        optimizer: the base optimizer.
        model: holds the layers.
        factor_lr: b, >= 0.
        damping: lambda, >= 0.
        momentum: a, of the updates of the factors.
        every: steps between updates of the factors, >= 1.
        structure: "dense" or "diagonal" matrices K and C; a diagonal keeps two numbers for each row and each column of a layer.
        exponential: "truncated" to first order, as in the published code, or "exact".
    """

    model: nn.Module
    layers: dict[str, Layer]
    factor_lr: float
    damping: float
    momentum: float
    every: int
    structure: str
    exponential: str
    memory: dict[str, Any]
    inverses: dict[str, Inverses]

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, *, factor_lr: float = 1e-2, damping: float = 1e-3, momentum: float = 0.5, every: int = 10,
        structure: str = "dense", exponential: str = "truncated",
    ) -> None:
        values: dict[str, Any] = {"factor_lr": factor_lr, "damping": damping, "momentum": momentum, "every": every}
        values |= {"structure": structure, "exponential": exponential}
        ranges = (">= 0", ">= 0", "[0, 1)", "int >= 1", "dense | diagonal", "truncated | exact")
        for (name, value), range in zip(values.items(), ranges, strict=True):
            check("INGD", name, value, None, range)
        super().__init__(optimizer, {**values, "model": model, "memory": {"steps": 0, "factors": {}}, "inverses": {}})
        self.layers = layers_of(model, parameters_of(optimizer))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if closure is None:
            raise ValueError("INGD.step needs a closure that clears the gradients, computes the loss, calls backward and returns it; found None.")
        factors, diagonal = self.memory["factors"], self.structure == "diagonal"
        watched = self.layers if self.memory["steps"] % self.every == 0 else {}
        through = {name: (k, c) for name, (k, c, _, _) in factors.items()}
        with torch.enable_grad(), observe(watched, diagonal=diagonal, narrow=True, through=through) as seen:
            loss = closure()
        descent = Descent(rate=self.factor_lr, damping=self.damping, momentum=self.momentum, exact=self.exponential == "exact")
        for name, new in seen.items():
            h_k, h_c = new.A, new.G  # (1)
            if bool(h_k.isfinite().all()) and bool(h_c.isfinite().all()):  # one overflow must not stay in the factors
                factors[name] = descent.update(factors.get(name) or start(h_k, h_c), h_k, h_c)  # (2) to (4)
                self.inverses.pop(name, None)
        for name, coordinates in factors.items():
            if (m := gradient_matrix(self.layers[name])) is not None:
                if name not in self.inverses:
                    self.inverses[name] = inverses(coordinates, self.every)
                set_gradient(self.layers[name], natural(coordinates, m, self.inverses[name]))  # (5)
        self.memory["steps"] += 1
        self.base.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return joined("INGD", super().state_dict(), copied(self.memory))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        base, own = parted("INGD", state_dict, parameters_of(self.base))
        super().load_state_dict(base)
        self.memory, self.inverses = copied(own, {name: layer.weight.device for name, layer in self.layers.items()}), {}
